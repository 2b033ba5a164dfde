"""Tests of facesiam_jax.gallery.search.people."""

import functools

import jax
import numpy as np
import pytest

from facesiam_jax.gallery import search
from tests.reference import gallery as reference

_jitted = jax.jit(
  search.top_k_people, static_argnames=("k", "metric", "rule", "block")
)
RULES = pytest.mark.parametrize("rule", search.RULES)


def _quality(rule, weights):
  return weights if rule == "weighted_mean" else None


@functools.cache
def _case(seed=0):
  """Whole numbers, people scattered, one with many, some not valid."""
  rng = np.random.default_rng(seed)
  gallery = rng.integers(-2, 3, (83, 5)).astype(np.float32)
  queries = rng.integers(-2, 3, (9, 5)).astype(np.float32)
  people = rng.integers(3, 20, 83).astype(np.int32)
  people[10:50] = 7
  valid = (rng.random(83) < 0.8) & (people != 5)
  ids = rng.permutation(1000)[:83].astype(np.int32)
  weights = rng.integers(0, 3, 83).astype(np.float32)
  return (gallery, valid, ids, people, queries), weights


def _check(top_k, rule, metric="dot", k=6, block=16):
  case, weights = _case()
  weights = _quality(rule, weights)
  found = top_k(*case, k=k, metric=metric, rule=rule, quality=weights,
                block=block)  # fmt: skip
  want = reference.top_k_people(*case, k=k, metric=metric, rule=rule,
                                quality=weights)  # fmt: skip
  np.testing.assert_allclose(found[0], want[0], rtol=1e-6)
  np.testing.assert_array_equal(found[1], want[1])


@RULES
@pytest.mark.parametrize(
  "metric, k, block",
  [
    ("dot", 6, 16),
    ("euclidean", 30, 7),
    pytest.param("dot", 1, 2048, marks=pytest.mark.soak),
  ],
)
def test_equals_reference(rule, metric, k, block):
  _check(_jitted, rule, metric, k, block)


def _wrong_variants():
  def change(**options):
    return lambda *case, **given: _jitted(*case, **(given | options))

  def other_rule(*case, rule, quality, **options):
    other = "mean" if rule in ("max", "weighted_mean") else "max"
    return _jitted(*case, rule=other, quality=None, **options)

  def not_valid_too(gallery, valid, *case, **options):
    return _jitted(gallery, np.ones_like(valid), *case, **options)

  def people_by_place(gallery, valid, ids, people, queries, **options):
    return _jitted(gallery, valid, ids, people[::-1], queries, **options)

  def later_person_first(gallery, valid, ids, people, queries, **options):
    found = _jitted(gallery, valid, ids, 99 - people, queries, **options)
    return found.scores, np.where(found.people == -1, -1, 99 - found.people)

  def block_by_block(gallery, valid, ids, people, queries, **options):
    # A person's rows of two blocks taken for two people.
    split = people * 2 + (np.arange(len(people)) >= 30)
    found = _jitted(gallery, valid, ids, split, queries, **options)
    return found.scores, np.where(found.people == -1, -1, found.people // 2)

  return {
    "other_metric": change(metric="euclidean"),
    "other_rule": other_rule,
    "not_valid_too": not_valid_too,
    "people_by_place": people_by_place,
    "later_person_first": later_person_first,
    "block_by_block": block_by_block,
  }


@RULES
@pytest.mark.parametrize("wrong", _wrong_variants())
def test_reference_rejects_wrong_variants(wrong, rule):
  with pytest.raises(AssertionError):
    _check(_wrong_variants()[wrong], rule)


@functools.cache
def _big():
  rng = np.random.default_rng(8)
  gallery = rng.normal(size=(9001, 13)).astype(np.float32)
  gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
  people = rng.integers(0, 900, 9001).astype(np.int32)
  people[:3000] = 450
  ids = np.arange(9001, dtype=np.int32)
  valid = np.ones(9001, bool)
  weights = rng.random(9001).astype(np.float32)
  return (gallery, valid, ids, people, gallery[:17] + 0), weights


@pytest.mark.parametrize(
  "rule",
  [
    "max",
    "mean",
    "weighted_mean",
    pytest.param("top2_mean", marks=pytest.mark.soak),
  ],
)
def test_bits_do_not_depend_on_batch_place_and_others(rule):
  (gallery, valid, ids, people, queries), weights = _big()
  find = functools.partial(_jitted, k=7, metric="cosine", rule=rule)
  want = find(gallery, valid, ids, people, queries,
              quality=_quality(rule, weights))  # fmt: skip
  order = np.random.default_rng(9).permutation(9001)
  order = order[(people[order] >= 449) | (people[order] % 2 == 0)]
  kept = np.isin(np.arange(900), people[order])
  shuffled = find(
    gallery[order], valid[order], ids[order], people[order], queries[:3],
    quality=_quality(rule, weights[order]),
  )  # fmt: skip
  for row in range(3):
    survivors = [p for p in np.asarray(want.people)[row].tolist() if kept[p]]
    scores = dict(zip(*(np.asarray(x)[row].tolist() for x in
                        (want.people, want.scores)), strict=True))  # fmt: skip
    found = np.asarray(shuffled.people)[row].tolist()
    assert found[: len(survivors)] == survivors
    got = np.asarray(shuffled.scores)[row, : len(survivors)]
    assert got.tolist() == [scores[p] for p in survivors]


def test_nobody_and_nothing_finite():
  (gallery, valid, ids, people, queries), _ = _case()
  none = _jitted(gallery, valid & False, ids, people, queries, k=3,
                 metric="dot", rule="mean")  # fmt: skip
  assert (np.asarray(none.people) == search.NO_MATCH).all()
  empty = _jitted(gallery[:0], valid[:0], ids[:0], people[:0], queries, k=3,
                  metric="dot", rule="top2_mean")  # fmt: skip
  assert (np.asarray(empty.scores) == -np.inf).all()
  spoilt = gallery.copy()
  spoilt[people == 7, 2] = np.nan
  found = _jitted(spoilt, valid, ids, people, queries, k=20, metric="dot",
                  rule="mean")  # fmt: skip
  without = _jitted(gallery, valid & (people != 7), ids, people, queries, k=20,
                    metric="dot", rule="mean")  # fmt: skip
  np.testing.assert_array_equal(found.people, without.people)
  np.testing.assert_array_equal(found.scores, without.scores)


def test_refuses():
  case, weights = _case()
  options = {"k": 2, "metric": "dot"}
  for bad in (
    {"rule": "median"},
    {"rule": "mean", "quality": weights},
    {"rule": "weighted_mean"},
    {"rule": "weighted_mean", "quality": -weights},
  ):
    with pytest.raises(ValueError, match="rule|quality"):
      search.top_k_people(*case, **options, **bad)
  queries = case[-1] * np.float32(np.nan)
  with pytest.raises(ValueError, match="finite"):
    search.top_k_people(*case[:-1], queries, **options)
