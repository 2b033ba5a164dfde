"""Tests of facesiam_jax.gallery.ranking: who is best, however it is found."""

import jax
import numpy as np
import pytest

from facesiam_jax.gallery import index as index_lib
from facesiam_jax.gallery import ranking, search
from facesiam_jax.gallery.records import Records
from tests.gallery import fake_bundle
from tests.reference import gallery as reference


def _records(rows, owners):
  ids = np.arange(5, 5 + len(rows), dtype=np.int32)
  names = {int(person): f"P{person}" for person in owners}
  # Powers of two: exact, so that ties stay ties.
  quality = 0.5 ** np.random.default_rng(7).integers(0, 4, len(rows))
  owners, quality = owners.astype(np.int32), quality.astype(np.float32)
  return Records(ids, owners, rows, quality, names)


def _lattice(size=150, people=23):
  """Small whole numbers: very many ties; one person has most templates."""
  rng = np.random.default_rng(0)
  rows = rng.integers(-1, 2, (size, 4)).astype(np.float32)
  owners = rng.integers(1, people, size)
  owners[20:130] = people
  queries = rng.integers(-1, 2, (9, 4)).astype(np.float32)
  return _records(rows, owners), queries


def _want(records, queries, k, metric, rule):
  return reference.top_k_people(
    records.embeddings, np.ones(len(records.template_ids)),
    records.template_ids, records.person_ids, queries,
    k=k, metric=metric, rule=rule, quality=records.quality,
  )  # fmt: skip


def _check(found, want):
  np.testing.assert_array_equal(found[1], want[1])
  np.testing.assert_allclose(found[0], want[0], rtol=1e-6)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("rule", ["max", "mean", "top2_mean", "weighted_mean"])
def test_equals_reference_with_ties(rule, metric):
  records, queries = _lattice()
  index = index_lib.Index(records, unit=False)
  found = ranking.best_people(index, queries, 7, metric=metric, rule=rule)
  _check(found, _want(records, queries, 7, metric, rule))


def test_reference_rejects_other_rules():
  records, queries = _lattice()
  index = index_lib.Index(records, unit=False)
  for rule in search.RULES:
    found = ranking.best_people(index, queries, 7, metric="dot", rule=rule)
    for other in set(search.RULES) - {rule}:
      with pytest.raises(AssertionError):
        _check(found, _want(records, queries, 7, "dot", other))
  # Of the last rule, with somebody else's weights.
  rolled = records._replace(quality=np.roll(records.quality, 1))
  with pytest.raises(AssertionError):
    _check(found, _want(rolled, queries, 7, "dot", "weighted_mean"))


def test_compact_gives_the_bits_of_float32():
  records, queries = _lattice()
  plain = index_lib.Index(records, unit=False)
  compact = index_lib.Index(records, unit=False, compact=True)
  assert compact.slots.embeddings is None
  assert compact.slots.compact.codes.dtype == np.int8
  for rule, metric in (("max", "dot"), ("mean", "dot"),
                       ("weighted_mean", "dot"),
                       ("max", fake_bundle._l1)):  # fmt: skip
    find = lambda i, m=metric, r=rule: ranking.best_people(
      i, queries, 7, metric=m, rule=r
    )
    for got, want in zip(find(compact), find(plain), strict=True):
      np.testing.assert_array_equal(got, want)


def test_many_devices_give_the_bits_of_one():
  rng = np.random.default_rng(1)
  rows = rng.normal(size=(9000, 4)).astype(np.float32)
  rows[4000:4050] = rows[:50]
  records = _records(rows, rng.integers(1, 900, 9000))
  queries = rows[:9]
  one = index_lib.Index(records, unit=False, devices=jax.devices()[:1])
  two = index_lib.Index(records, unit=False, devices=jax.devices()[:2])
  assert two.slots.embeddings.sharding.num_devices == 2
  for rule in ("max", "mean", "weighted_mean"):
    found = ranking.best_people(two, queries, 5, metric="dot", rule=rule)
    want = ranking.best_people(one, queries, 5, metric="dot", rule=rule)
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_array_equal(found[1], want[1])


def test_a_small_gallery_takes_one_device():
  records, _ = _lattice()
  index = index_lib.Index(records, unit=False)
  assert index.slots.valid.sharding.num_devices == 1
  assert index.slots.capacity == search.BLOCK
