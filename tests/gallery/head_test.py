"""Tests of the gallery search by a bundle's own head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import heads
from facesiam_jax.gallery import search
from facesiam_jax.gallery.search import scores as scores_lib

_jitted = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))
_NAMES = (
  "abs_difference_logistic",
  "chi_square_logistic",
  "cosine_logistic",
  "euclidean_logistic",
  "l1_logistic",
)


def _case(dim=6):
  rng = np.random.default_rng(dim)
  gallery = rng.normal(size=(203, dim)).astype(np.float32)
  gallery[150] = gallery[20]
  queries = gallery[18:29] + np.float32(0.1) * rng.normal(size=(11, dim))
  queries = queries.astype(np.float32)
  ids = rng.permutation(500)[:203].astype(np.int32)
  return gallery, rng.random(203) < 0.9, ids, queries


def _head(name, dim):
  module = heads.create(name)
  x = jnp.zeros((1, dim))
  variables = module.init(jax.random.key(0), x, x)
  leaves, tree = jax.tree.flatten(variables)
  rng = np.random.default_rng(1)
  leaves = [x + 0.05 * rng.random(x.shape).astype(np.float32) for x in leaves]
  variables = jax.tree.unflatten(tree, leaves)
  return lambda a, b: module.apply(variables, a, b)


@pytest.mark.parametrize("name", _NAMES)
def test_scores_are_those_of_verify(name):
  gallery, valid, ids, queries = _case()
  head = _head(name, 6)
  found = _jitted(gallery, valid, ids, queries, k=9, metric=head, block=128)
  for row, query in enumerate(queries):
    logits = np.asarray(head(np.broadcast_to(query, gallery.shape), gallery))
    of_id = dict(zip(ids.tolist(), logits.tolist(), strict=True))
    got = [of_id[i] for i in np.asarray(found.ids)[row].tolist()]
    np.testing.assert_allclose(found.scores[row], got, atol=1e-6, rtol=1e-6)
    want = np.sort(logits[valid])[::-1][:9]
    np.testing.assert_allclose(found.scores[row], want, atol=1e-6, rtol=1e-6)


def _l1(x, y):
  return -jnp.sum(jnp.abs(x - y), axis=1)


def _check_lattice(top_k):
  """Small whole numbers: every score exact, very many ties."""
  rng = np.random.default_rng(2)
  gallery = rng.integers(-1, 2, (61, 4)).astype(np.float32)
  queries = rng.integers(-1, 2, (5, 4)).astype(np.float32)
  valid, ids = rng.random(61) < 0.8, rng.permutation(61).astype(np.int32)
  found = top_k(gallery, valid, ids, queries, k=70, metric=_l1, block=16)
  for row, query in enumerate(queries):
    rows = [
      (sum(abs(float(a) - float(b)) for a, b in zip(query, g, strict=True)), i)
      for g, ok, i in zip(gallery, valid, ids.tolist(), strict=True)
      if ok
    ]
    rows = sorted(rows)
    want = [i for _, i in rows] + [search.NO_MATCH] * (70 - len(rows))
    np.testing.assert_array_equal(found.ids[row], want)
    want = [-d for d, _ in rows] + [-np.inf] * (70 - len(rows))
    np.testing.assert_array_equal(found.scores[row], want)


def test_equals_reference_with_ties():
  _check_lattice(_jitted)


@pytest.mark.parametrize(
  "wrong",
  [
    lambda x, y: -_l1(x, y),
    lambda x, y: -jnp.sum(jnp.square(x - y), axis=1),
    lambda x, y: -jnp.max(jnp.abs(x - y), axis=1),
    lambda x, y: _l1(x, jnp.roll(y, 1, axis=0)),
  ],
  ids=["reversed", "squared", "largest", "neighbour"],
)
def test_reference_rejects_wrong_variants(wrong):
  def top_k(*case, metric, **options):
    return _jitted(*case, metric=wrong, **options)

  with pytest.raises(AssertionError):
    _check_lattice(top_k)


def test_bits_do_not_depend_on_batch_or_rest_of_the_gallery():
  gallery, valid, ids, queries = _case(16)
  head = _head("chi_square_logistic", 16)
  want = _jitted(gallery, valid, ids, queries, k=5, metric=head)
  one = _jitted(gallery, valid, ids, queries[3:4], k=5, metric=head)
  np.testing.assert_array_equal(one.scores[0], want.scores[3])
  order = np.random.default_rng(3).permutation(203)
  found = _jitted(gallery[order], valid[order], ids[order], queries, k=5,
                  metric=head)  # fmt: skip
  np.testing.assert_array_equal(found.ids, want.ids)
  np.testing.assert_array_equal(found.scores, want.scores)
  keep = np.isin(ids, np.asarray(want.ids)[3])
  found = _jitted(gallery[keep], valid[keep], ids[keep], queries[3:4], k=5,
                  metric=head)  # fmt: skip
  np.testing.assert_array_equal(found.scores[0], want.scores[3])


def test_memory_does_not_grow_with_the_gallery():
  queries = jax.ShapeDtypeStruct((64, 32), np.float32)

  def needed(size):
    shapes = ((size, 32), np.float32), (size, bool), (size, np.int32)
    rows = [jax.ShapeDtypeStruct(*shape) for shape in (
      shapes[0], ((size,), bool), ((size,), np.int32))]  # fmt: skip
    program = _jitted.lower(*rows, queries, k=5, metric=_l1, block=1024)
    return program.compile().memory_analysis().temp_size_in_bytes

  small, large = needed(8192), needed(32768)
  # Beyond the gallery itself (its sorted ids, and it when it was padded).
  assert large - small < 3 * 24576 * 32 * 4
  assert small < 64 * 8192 * 32 * 4 / 4


def test_cost_of_a_pair():
  assert search.pair_cost(lambda x, y: (x * y).sum(axis=1), 64) >= 100
  dear = search.pair_cost(_head("chi_square_logistic", 64), 64)
  assert dear > search.pair_cost(_l1, 64)


def test_refuses_what_is_no_metric():
  with pytest.raises(ValueError, match="metric"):
    scores_lib.check_metric("head")
