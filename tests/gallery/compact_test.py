"""Tests of facesiam_jax.gallery.search.compact."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax.gallery import search
from facesiam_jax.gallery.search import compact as compact_lib

_jitted = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))
_candidates = jax.jit(
  compact_lib.candidates, static_argnames=("k", "metric", "block")
)
METRICS = pytest.mark.parametrize("metric", search.METRICS)
DTYPES = pytest.mark.parametrize("dtype", search.DTYPES)
K = 5


@functools.cache
def _case():
  """Unit rows, of which a query's neighbours lie near; some not valid."""
  rng = np.random.default_rng(2)
  gallery = rng.normal(size=(9001, 24)).astype(np.float32)
  queries = gallery[:11] + 0.1 * rng.normal(size=(11, 24))
  gallery[60:90] = queries[0] + 0.05 * rng.normal(size=(30, 24))
  gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
  queries /= np.linalg.norm(queries, axis=1, keepdims=True)
  gallery[70] = gallery[71]
  ids = rng.permutation(20000)[:9001].astype(np.int32)
  return gallery, rng.random(9001) < 0.95, ids, queries.astype(np.float32)


def _assert_same(found, want):
  np.testing.assert_array_equal(found.ids, want.ids)
  np.testing.assert_array_equal(found.scores, want.scores)


@DTYPES
@METRICS
def test_same_bits_as_the_float32_gallery(metric, dtype):
  gallery, valid, ids, queries = _case()
  compact = search.compress(gallery, dtype=dtype)
  assert compact.codes.dtype == dtype
  found = search.top_k_compact(compact, gallery, valid, ids, queries, k=K,
                               metric=metric)  # fmt: skip
  want = _jitted(gallery, valid, ids, queries, k=K, metric=metric)
  _assert_same(found, want)
  # The certificate was had without the float32 gallery.
  assert (found.looked < len(gallery)).any()


def test_near_ties_take_the_whole_gallery():
  rng = np.random.default_rng(4)
  centre = rng.normal(size=16)
  gallery = centre + 1e-4 * rng.normal(size=(3000, 16))
  gallery = (gallery / np.linalg.norm(gallery, axis=1)[:, None]).astype("f")
  valid, ids = np.ones(3000, bool), np.arange(3000, dtype=np.int32)
  queries = gallery[:3]
  compact = search.compress(gallery)
  found = search.top_k_compact(compact, gallery, valid, ids, queries, k=K,
                               metric="euclidean")  # fmt: skip
  want = _jitted(gallery, valid, ids, queries, k=K, metric="euclidean")
  _assert_same(found, want)
  assert (found.looked == 3000).all()
  # What would be found without a certificate is wrong.
  places, _ = _candidates(compact, valid, queries, k=64,
                          metric="euclidean")  # fmt: skip
  assert not all(set(w) <= set(p) for w, p in zip(
    np.asarray(want.ids).tolist(), np.asarray(places).tolist(),
    strict=True))  # fmt: skip


def _exact(queries, gallery, metric):
  queries, gallery = np.float64(queries), np.float64(gallery)
  if metric == "euclidean":
    difference = queries[:, None] - gallery[None]
    return -np.square(difference).sum(axis=2)
  return queries @ gallery.T


def _check_bounds(compact, gallery, queries, metric):
  """No row that is no candidate has a score above the bound."""
  count = len(gallery)
  places, bounds = _candidates(compact, np.ones(count), queries, k=9,
                               metric=metric)  # fmt: skip
  scores = _exact(queries, gallery, metric)
  np.put_along_axis(scores, np.asarray(places), -np.inf, axis=1)
  bounds = np.asarray(bounds, np.float64)[:, -1]
  slack = compact_lib.rounding(queries, compact)
  assert (scores.max(axis=1) <= bounds + slack).all()


def _rows(kind):
  rng = np.random.default_rng(6)
  rows = rng.normal(size=(313, 17))
  if kind == "heavy":
    rows = rng.standard_t(1.5, size=(313, 17))
  if kind == "sparse":
    rows = rows * (rng.random((313, 17)) < 0.1)
  if kind == "ramp":
    # Rounding all one way, along the query.
    rows = np.concatenate([np.ones((313, 1)), np.full((313, 16), 0.5)], 1)
    rows[:, 1:] -= rng.integers(0, 2, (313, 1)) / 127 + 1e-3
  return rows.astype(np.float32), rows[::40].astype(np.float32)


@DTYPES
@METRICS
@pytest.mark.parametrize("kind", ["normal", "heavy", "sparse", "ramp"])
def test_bounds_hold(kind, metric, dtype):
  gallery, queries = _rows(kind)
  _check_bounds(search.compress(gallery, dtype=dtype), gallery, queries, metric)


def test_bounds_without_residuals_are_noticed():
  gallery, _ = _rows("ramp")
  queries = np.ones((3, 17), np.float32)
  compact = search.compress(gallery)
  _check_bounds(compact, gallery, queries, "dot")
  without = compact._replace(residuals=jnp.zeros_like(compact.residuals))
  with pytest.raises(AssertionError):
    _check_bounds(without, gallery, queries, "dot")


def test_rows_keep_their_residuals():
  gallery, _ = _rows("heavy")
  for dtype in search.DTYPES:
    codes, scales, residuals, norm_sq = map(
      np.asarray, search.compress(gallery, dtype=dtype)
    )
    restored = scales[:, None].astype(np.float64) * codes.astype(np.float64)
    lost = np.linalg.norm(gallery - restored, axis=1)
    np.testing.assert_allclose(residuals, lost, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(norm_sq, np.square(gallery).sum(1), rtol=1e-5)


def test_degenerate_galleries():
  gallery, valid, ids, queries = _case()
  small = gallery[:4].copy()
  small[1], small[2, 0] = 0, np.nan
  for rows, usable in (
    (gallery[:0], valid[:0]),
    (small, np.ones(4, bool)),
    (small, np.zeros(4, bool)),
  ):
    numbers = ids[: len(rows)]
    want = _jitted(rows, usable, numbers, queries, k=6, metric="dot")
    found = search.top_k_compact(search.compress(rows), rows, usable, numbers,
                                 queries, k=6, metric="dot")  # fmt: skip
    _assert_same(found, want)
  none = search.top_k_compact(search.compress(small), small, np.ones(4),
                              ids[:4], queries[:0], k=6,
                              metric="dot")  # fmt: skip
  assert none.ids.shape == (0, 6)


def test_refuses():
  rows = np.ones((4, 3), np.float32)
  case = rows, np.ones(4), np.arange(4)
  compact = search.compress(rows)
  right = {"queries": rows, "k": 1, "metric": "dot"}
  search.top_k_compact(compact, *case, **right)
  for bad, match in (
    ({"metric": "manhattan"}, "metric"),
    ({"k": 0}, "k must"),
    ({"queries": rows[:, :2]}, "queries"),
    ({"queries": rows * np.float32(np.nan)}, "finite"),
  ):
    with pytest.raises(ValueError, match=match):
      search.top_k_compact(compact, *case, **(right | bad))
  with pytest.raises(ValueError, match="rows"):
    search.top_k_compact(compact, rows[:3], *case[1:], **right)
  with pytest.raises(ValueError, match="dtype"):
    search.compress(rows, dtype="int4")
  with pytest.raises(ValueError, match="gallery"):
    search.compress(rows[0])
