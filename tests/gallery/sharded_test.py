"""Tests of facesiam_jax.gallery.search.sharded."""

import functools

import jax
import numpy as np
import pytest

from facesiam_jax import parallel
from facesiam_jax.gallery import search
from facesiam_jax.gallery.search import compact as compact_lib

K = 11
_jitted = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))


@functools.cache
def _searcher(devices, metric):
  mesh = parallel.make_mesh(jax.devices()[:devices])
  return mesh, search.searcher(mesh, k=K, metric=metric)


@functools.cache
def _case(size):
  """Unit rows with exact duplicates, near-ties and holes, ids shuffled."""
  rng = np.random.default_rng(size)
  gallery = rng.normal(size=(size, 8)).astype(np.float32)
  gallery[1::97] = gallery[0]
  gallery[2::89] = gallery[5] * (1 + 1e-7)
  gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
  queries = np.concatenate([gallery[:16], rng.normal(size=(17, 8))])
  queries /= np.linalg.norm(queries, axis=1, keepdims=True)
  ids = rng.permutation(3 * size)[:size].astype(np.int32)
  return gallery, rng.random(size) < 0.9, ids, queries.astype(np.float32)


def _assert_same(found, want):
  np.testing.assert_array_equal(found.ids, want.ids)
  np.testing.assert_array_equal(found.scores, want.scores)


@pytest.mark.parametrize("metric", search.METRICS)
@pytest.mark.parametrize("size", [8191, 40007])
def test_same_bits_on_any_number_of_devices(metric, size):
  gallery, valid, ids, queries = _case(size)
  want = _jitted(gallery, valid, ids, queries, k=K, metric=metric)
  for devices in (1, 2, 8) if size == 40007 else (4,):
    mesh, find = _searcher(devices, metric)
    shards = search.place(gallery, valid, ids, mesh)
    assert shards.embeddings.sharding.num_devices == devices
    _assert_same(find(shards, queries), want)


def test_same_bits_after_shuffled_enrolment_and_removal():
  gallery, valid, ids, queries = _case(40007)
  want = _jitted(gallery, valid, ids, queries, k=K, metric="cosine")
  order = np.random.default_rng(1).permutation(len(ids))
  order = order[valid[order]]
  mesh, find = _searcher(8, "cosine")
  every = np.ones(len(order), bool)
  shards = search.place(gallery[order], every, ids[order], mesh)
  _assert_same(find(shards, queries), want)
  for count in (1, 7, 32):
    found = find(shards, queries[:count])
    _assert_same(found, jax.tree.map(lambda x, n=count: x[:n], want))


@pytest.mark.slow
def test_same_bits_in_a_large_batch():
  gallery, valid, ids, queries = _case(40007)
  want = _jitted(gallery, valid, ids, queries, k=K, metric="cosine")
  many = np.tile(queries, (32, 1))[:1024]
  mesh, find = _searcher(2, "cosine")
  found = find(search.place(gallery, valid, ids, mesh), many)
  for start in range(0, 1024 - len(queries), len(queries)):
    part = jax.tree.map(lambda x, s=start: x[s : s + len(queries)], found)
    _assert_same(part, want)


def test_more_wanted_than_a_device_or_the_gallery_has():
  gallery, _, ids, queries = _case(8191)
  few = np.arange(5)
  mesh, find = _searcher(4, "cosine")
  shards = search.place(gallery[few], np.ones(5), ids[few], mesh)
  found = find(shards, queries)
  want = _jitted(gallery[few], np.ones(5), ids[few], queries, k=K,
                 metric="cosine")  # fmt: skip
  _assert_same(found, want)
  assert (np.asarray(found.ids)[:, 5:] == search.NO_MATCH).all()
  empty = search.place(gallery[:0], np.ones(0), ids[:0], mesh)
  assert (np.asarray(find(empty, queries).ids) == search.NO_MATCH).all()
  removed = shards._replace(valid=shards.valid & False)
  assert (np.asarray(find(removed, queries).ids) == search.NO_MATCH).all()


def test_place_keeps_to_the_rows_it_is_given():
  gallery, valid, ids, _ = _case(8191)
  mesh, _ = _searcher(2, "cosine")
  block = search.BLOCK
  shards = search.place(gallery, valid, ids, mesh, rows_per_device=2 * block)
  assert shards.embeddings.shape == (4 * block, 8)
  for rows in (block - 1, 0):
    with pytest.raises(ValueError, match="rows_per_device"):
      search.place(gallery, valid, ids, mesh, rows_per_device=rows)


@pytest.mark.parametrize("metric", search.METRICS)
def test_candidates_of_a_compact_gallery_over_a_mesh(metric):
  """All that could be among the best are candidates, on 1 and on 8 devices."""
  gallery, valid, ids, queries = _case(8192)
  compact = search.compress(gallery)
  want = _jitted(gallery, valid, ids, queries, k=K, metric=metric)
  exact = np.asarray(_jitted(gallery, valid, ids, queries, k=200,
                             metric=metric).scores)  # fmt: skip
  for devices in (1, 8):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    shards = search.CompactShards(compact, valid, ids)
    shards = parallel.split(shards, len(ids), mesh)
    find = search.candidate_searcher(mesh, k=128, metric=metric)
    bounds, found = map(np.asarray, find(shards, queries))
    assert bounds.shape == found.shape == (33, 128)
    assert (np.diff(bounds) <= 0).all()
    assert all(len(set(row)) == 128 for row in found.tolist())
    # The bound of each place holds for the exact score of that place.
    slack = compact_lib.rounding(queries, compact)[:, None]
    assert (exact[:, :128] <= bounds + slack).all()
    sure = np.asarray(want.scores)[:, -1:] > bounds[:, -1:] + slack
    assert sure.mean() > 0.5
    for row in np.flatnonzero(sure):
      assert set(np.asarray(want.ids)[row]) <= set(found[row])
