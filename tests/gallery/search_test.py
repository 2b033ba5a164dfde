"""Tests of facesiam_jax.gallery.search."""

import doctest
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from facesiam_jax.gallery import search
from facesiam_jax.gallery.search import scan as scan_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search import templates
from tests.reference import gallery as reference

_jitted = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))
METRICS = pytest.mark.parametrize("metric", search.METRICS)


def _unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _lattice_case(seed=0):
  """Small whole numbers: every score exact, very many ties."""
  rng = np.random.default_rng(seed)
  gallery = rng.integers(-1, 2, (53, 5)).astype(np.float32)
  queries = rng.integers(-1, 2, (11, 5)).astype(np.float32)
  valid = rng.random(53) < 0.8
  ids = rng.permutation(1000)[:53].astype(np.int32)
  return gallery, valid, ids, queries


def _check_lattice(top_k, metric, k, block):
  case = _lattice_case()
  scores, ids = top_k(*case, k=k, metric=metric, block=block)
  want_scores, want_ids = reference.top_k(*case, k=k, metric=metric)
  np.testing.assert_array_equal(scores, want_scores)
  np.testing.assert_array_equal(ids, want_ids)


@METRICS
@pytest.mark.parametrize(
  "k, block", [(1, 16), (7, 16), (70, 7), (5, search.BLOCK)]
)
def test_equals_reference_with_ties(metric, k, block):
  _check_lattice(_jitted, metric, k, block)


def _wrong_variants():
  right = _jitted

  def ascending(gallery, valid, ids, queries, *, k, metric, block):
    found = right(gallery, valid, ids, -queries, k=k, metric=metric)
    return -found.scores, found.ids

  def ties_to_larger_id(gallery, valid, ids, queries, **options):
    scores, found = right(gallery, valid, 1000 - ids, queries, **options)
    return scores, np.where(found == -1, -1, 1000 - found)

  def ties_by_place(gallery, valid, ids, queries, **options):
    places = np.arange(len(ids))
    scores, found = right(gallery, valid, places, queries, **options)
    return scores, np.where(found == -1, -1, ids[found])

  def padding_matches(gallery, valid, ids, queries, **options):
    return right(gallery, np.ones_like(valid), ids, queries, **options)

  def other_metric(*case, metric, **options):
    other = "dot" if metric == "euclidean" else "euclidean"
    return right(*case, metric=other, **options)

  def plain_distance(*case, metric, **options):
    scores, found = right(*case, metric=metric, **options)
    if metric != "euclidean":
      return np.zeros_like(scores), found
    return -np.sqrt(-scores), found

  return [
    ascending,
    ties_to_larger_id,
    ties_by_place,
    padding_matches,
    other_metric,
    plain_distance,
  ]


@METRICS
@pytest.mark.parametrize("wrong", _wrong_variants(), ids=lambda f: f.__name__)
def test_reference_rejects_wrong_variants(wrong, metric):
  with pytest.raises(AssertionError):
    _check_lattice(wrong, metric, 7, 16)


@METRICS
@pytest.mark.parametrize("block", [32, 256])
def test_equals_reference_on_random_rows(metric, block):
  rng = np.random.default_rng(3)
  gallery = rng.normal(size=(97, 13)).astype(np.float32)
  queries = rng.normal(size=(5, 13)).astype(np.float32)
  if metric == "cosine":
    gallery, queries = _unit(gallery), _unit(queries)
  case = gallery, np.ones(97, bool), np.arange(97)[::-1], queries
  scores, ids = _jitted(*case, k=9, metric=metric, block=block)
  want_scores, want_ids = reference.top_k(*case, k=9, metric=metric)
  np.testing.assert_array_equal(ids, want_ids)
  np.testing.assert_allclose(scores, want_scores, rtol=1e-5, atol=1e-6)


def test_near_duplicates_keep_their_order():
  # All distances are far below the rounding of |q|^2 + |g|^2 - 2 q.g, and more
  # rows than the slack lie within it, so the whole gallery is looked at twice.
  rng = np.random.default_rng(4)
  centre = rng.normal(size=16)
  gallery = (centre + 1e-4 * rng.normal(size=(150, 16))).astype(np.float32)
  queries = (centre + 1e-4 * rng.normal(size=(3, 16))).astype(np.float32)
  gallery[40] = gallery[30]
  queries[0] = gallery[30]
  case = gallery, np.ones(150, bool), np.arange(150), queries
  scores, ids = _jitted(*case, k=10, metric="euclidean", block=64)
  want_scores, want_ids = reference.top_k(*case, k=10, metric="euclidean")
  np.testing.assert_array_equal(ids, want_ids)
  np.testing.assert_allclose(scores, want_scores, rtol=1e-5)
  assert scores[0, 0] == 0 and ids[0, :2].tolist() == [30, 40]
  assert not np.signbit(scores[0, 0])
  # The product form alone does not get this right.
  products = 2 * queries @ gallery.T - np.square(gallery).sum(axis=1)
  naive = np.argsort(-products, axis=1, kind="stable")[:, :10]
  assert (naive != want_ids).any()


@METRICS
def test_not_finite_rows_match_nothing_and_disturb_nothing(metric):
  gallery, _, ids, queries = _lattice_case(1)
  valid = np.ones(53, bool)
  clean = _jitted(gallery, valid, ids, queries, k=60, metric=metric, block=16)
  spoilt = np.concatenate([gallery, gallery[:3]])
  spoilt[53, 1], spoilt[54, 2], spoilt[55, 0] = np.nan, np.inf, -np.inf
  all_ids = np.concatenate([ids, [2000, 2001, 2002]]).astype(np.int32)
  bad_query = queries[:1].copy()
  bad_query[0, 0] = np.nan
  found = _jitted(
    spoilt,
    np.ones(56, bool),
    all_ids,
    np.concatenate([queries, bad_query]),
    k=60,
    metric=metric,
    block=16,
  )
  np.testing.assert_array_equal(found.ids[:-1], clean.ids)
  np.testing.assert_array_equal(found.scores[:-1], clean.scores)
  assert (found.ids[-1] == search.NO_MATCH).all()
  assert (found.scores[-1] == -np.inf).all()


@METRICS
def test_empty_gallery_and_no_queries(metric):
  none = np.zeros((0, 4), np.float32)
  rows = np.ones((3, 4), np.float32)
  no_ids = np.zeros(0, np.int32)
  found = _jitted(none, no_ids, no_ids, rows, k=2, metric=metric)
  assert found.ids.tolist() == [[-1, -1]] * 3
  assert (found.scores == -np.inf).all()
  found = _jitted(rows, np.ones(3), np.arange(3), none, k=2, metric=metric)
  assert found.ids.shape == found.scores.shape == (0, 2)


@functools.cache
def _big_case(metric):
  rng = np.random.default_rng(5)
  gallery = rng.normal(size=(9001, 37)).astype(np.float32)
  queries = (gallery[:33] + 0.1 * rng.normal(size=(33, 37))).astype(np.float32)
  if metric == "cosine":
    gallery, queries = _unit(gallery), _unit(queries)
  case = gallery, np.ones(9001, bool), np.arange(9001, dtype=np.int32), queries
  return case, jax.device_get(_jitted(*case, k=12, metric=metric))


@METRICS
def test_bits_do_not_depend_on_the_query_batch(metric):
  (gallery, valid, ids, queries), want = _big_case(metric)
  for count in (1, 9, 31):
    found = _jitted(gallery, valid, ids, queries[:count], k=12, metric=metric)
    np.testing.assert_array_equal(found.scores, want.scores[:count])
    np.testing.assert_array_equal(found.ids, want.ids[:count])
    last = _jitted(gallery, valid, ids, queries[-count:], k=12, metric=metric)
    np.testing.assert_array_equal(last.scores, want.scores[-count:])


@METRICS
def test_bits_do_not_depend_on_the_rest_of_the_gallery(metric):
  (gallery, valid, ids, queries), want = _big_case(metric)
  keep = np.sort(want.ids[0])
  found = _jitted(
    gallery[keep], valid[keep], keep, queries[:1], k=12, metric=metric
  )
  np.testing.assert_array_equal(found.scores, want.scores[:1])
  np.testing.assert_array_equal(found.ids, want.ids[:1])
  order = np.random.default_rng(6).permutation(len(ids))
  found = _jitted(
    gallery[order], valid, ids[order], queries, k=12, metric=metric
  )
  np.testing.assert_array_equal(found.scores, want.scores)
  np.testing.assert_array_equal(found.ids, want.ids)


@METRICS
def test_bits_do_not_depend_on_the_device_count(metric):
  (gallery, valid, ids, queries), want = _big_case(metric)
  assert jax.device_count() >= 8
  rows = 8 * search.BLOCK
  padding = rows - len(ids)
  padded = (
    np.pad(gallery, ((0, padding), (0, 0))),
    np.pad(valid, (0, padding)),
    np.pad(ids, (0, padding), constant_values=2**31 - 1),
  )
  # Rows dealt out in turn, so that every device holds a part of the answer.
  dealt = [x.reshape(-1, 8, *x.shape[1:]).swapaxes(0, 1) for x in padded]
  dealt = [x.reshape(rows, *x.shape[2:]) for x in dealt]

  def search_shard(gallery, valid, ids, queries):
    found = search.top_k(gallery, valid, ids, queries, k=12, metric=metric)
    gathered = jax.lax.all_gather(found, "data", axis=1, tiled=True)
    return search.merge(gathered.scores, gathered.ids, k=12)

  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  split, whole = PartitionSpec("data"), PartitionSpec()
  found = jax.jit(
    jax.shard_map(
      search_shard,
      mesh=mesh,
      in_specs=(split, split, split, whole),
      out_specs=whole,
      check_vma=False,
    )
  )(*dealt, queries)
  np.testing.assert_array_equal(found.scores, want.scores)
  np.testing.assert_array_equal(found.ids, want.ids)


@METRICS
def test_jit_and_plain_agree(metric):
  case = _lattice_case(2)
  plain = search.top_k(*case, k=4, metric=metric, block=32)
  jitted = _jitted(*case, k=4, metric=metric, block=32)
  np.testing.assert_array_equal(plain.scores, jitted.scores)
  np.testing.assert_array_equal(plain.ids, jitted.ids)


@METRICS
def test_products_have_full_precision(metric):
  case = _lattice_case()
  find = functools.partial(search.top_k, k=3, metric=metric, block=16)
  text = str(jax.make_jaxpr(find)(*case))
  products = text.count("dot_general[")
  assert products and text.count("Precision.HIGHEST") >= 2 * products


@METRICS
@pytest.mark.parametrize("size", [300, 9001])
def test_many_queries_in_parts_and_by_block_are_as_at_once(
  metric, size, monkeypatch
):
  gallery, valid, ids, queries = _big_case(metric)[0]
  case = gallery[:size], valid[:size], ids[:size], queries
  want = jax.jit(
    functools.partial(search.top_k, k=12, metric=metric)
  )(*case)  # fmt: skip
  for limits in ((4 * size * 8, 4 * size * 8, 8), (0, 0, 8)):
    for name, value in zip(
      ("_AT_ONCE_BYTES", "_PART_BYTES", "_MANY"), limits, strict=True
    ):
      monkeypatch.setattr(scan_lib, name, value)
    find = functools.partial(search.top_k, k=12, metric=metric, block=256)
    found = jax.jit(find)(*case)
    np.testing.assert_array_equal(found.ids, want.ids)
    np.testing.assert_array_equal(found.scores, want.scores)


def test_merge_is_totally_ordered():
  scores = np.array([[3.0, 1.0, -np.inf, 3.0, 2.0, -np.inf]])
  ids = np.array([[9, 4, -1, 2, 5, -1]])
  found = search.merge(scores, ids, k=5)
  assert found.ids.tolist() == [[2, 9, 5, 4, -1]]
  assert found.scores.tolist() == [[3.0, 3.0, 2.0, 1.0, -np.inf]]


def test_best_per_person_equals_reference():
  rng = np.random.default_rng(7)
  scores = -np.sort(-rng.integers(0, 5, (13, 17)).astype(np.float32), axis=1)
  ids = np.argsort(rng.random((13, 17)), axis=1)
  people = rng.integers(0, 6, (13, 17))
  scores[4, 9:], ids[4, 9:] = -np.inf, search.NO_MATCH
  scores[5], ids[5] = -np.inf, search.NO_MATCH
  for k in (1, 3, 8):
    best = search.best_per_person(scores, ids, people, k=k)
    want = np.array(reference.best_per_person(scores, ids, people, k))
    np.testing.assert_array_equal(best.scores, want[..., 0])
    np.testing.assert_array_equal(best.ids, want[..., 1])
    np.testing.assert_array_equal(best.people, want[..., 2])


@pytest.mark.parametrize(
  "change",
  [
    {"queries": np.ones((2, 3), np.float32)},
    {"metric": "manhattan"},
    {"k": 0},
    {"block": 0},
    {"queries": np.full((2, 5), np.nan, np.float32)},
  ],
  ids=["width", "metric", "k", "block", "finite"],
)
def test_refuses(change):
  arguments = {
    "gallery": np.ones((4, 5), np.float32),
    "valid": np.ones(4),
    "template_ids": np.arange(4),
    "queries": np.ones((2, 5), np.float32),
    "k": 1,
    "metric": "cosine",
  }
  search.top_k(**arguments)
  with pytest.raises(ValueError, match=next(iter(change))):
    search.top_k(**(arguments | change))


def test_reductions_refuse_wrong_shapes():
  two, three = jnp.zeros((1, 2)), jnp.zeros((1, 3))
  with pytest.raises(ValueError, match="shape"):
    search.merge(two, three, k=1)
  with pytest.raises(ValueError, match="k = 3"):
    search.merge(two, two, k=3)
  with pytest.raises(ValueError, match="same shape"):
    search.best_per_person(two, two, three, k=1)
  with pytest.raises(ValueError, match="k must be"):
    search.best_per_person(two, two, two, k=0)


def test_docstring_examples():
  for module in (templates, scores_lib):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
