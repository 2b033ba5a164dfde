"""Tests of distance-weighted mining beyond the frequencies of a small batch.

Those, against the loops of reference/mining.py, are in wrong/mining_drawn.py.
"""

import functools

import jax
import numpy as np
import pytest
from mining_batches import Batch, make_batch, run, sphere_distances
from reference import mining as reference
from scipy import stats
from wrong.mining_drawn import check_distance_weighted, naive_draw

from facesiam_jax import mining
from facesiam_jax.mining import drawn

_KEY = jax.random.key(7)


def _labels(batch):
  return (batch.anchor_ids, batch.column_ids)


def test_the_check_accepts_another_right_implementation():
  check_distance_weighted(naive_draw())


def test_columns_of_several_blocks():
  """300 columns: the draw goes through blocks of them first."""
  rng = np.random.default_rng(0)
  ids = rng.integers(0, 5, 300).astype(np.int32)
  weights = (rng.uniform(size=300) > 0.2).astype(np.float32)
  rows = np.flatnonzero(weights)[[3, 200]].astype(np.int32)
  distances = rng.uniform(0.4, 1.6, (2, 300)).astype(np.float32)
  batch = Batch(distances, ids[rows], ids, rows, weights)
  options = {"dimension": 4, "cutoff": 0.5, "max_distance": 1.4}
  draw = lambda key: mining.distance_weighted(
    distances, *_labels(batch), **batch.labels(), **options, key=key,
    positive="hardest",
  )  # fmt: skip
  mined = jax.jit(jax.vmap(draw))(jax.random.split(_KEY, 20000))
  for a in range(2):
    expected = reference.draw_probabilities(batch, a, **options)
    counts = np.bincount(np.asarray(mined.negatives)[:, a], minlength=300)
    assert not counts[expected == 0].any()
    likely = expected > 0
    chance = stats.chisquare(counts[likely], 20000 * expected[likely]).pvalue
    assert chance > 1e-3


def test_none_is_drawn_at_the_largest_distance_itself():
  ids = np.array([7, 7, 8, 8], np.int32)
  distances = np.array([[0.0, 0.5, 1.25, 1.375]], np.float32)
  draw = lambda key: mining.distance_weighted(
    distances, ids[:1], ids, anchor_rows=np.array([0]), key=key, dimension=3,
    max_distance=1.375, positive="hardest",
  )  # fmt: skip
  mined = jax.jit(jax.vmap(draw))(jax.random.split(_KEY, 100))
  np.testing.assert_array_equal(mined.negatives, 2)


_SHARES = np.array(
  [
    [[0.25, 0.0, 0.25, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0, 0.0]],
    [[0.0, 0.0, 0.0, 0.0, 0.5], [0.0, 0.5, 0.25, 0.0, 0.0]],
    [[0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 0.25, 0.0, 0.0]],
  ],
  np.float32,
)


def test_a_point_on_a_seam_falls_in_the_entry_that_begins_there():
  for point, expected in (
    (0.0, [[0, 0], [4, 1], [1, 2]]),
    (0.25, [[2, 0], [4, 1], [1, 2]]),
    (0.5, [[3, 0], [4, 1], [3, 2]]),
  ):
    found = drawn._pick(_SHARES, np.full((3, 2), point, np.float32))
    assert found.tolist() == expected


def test_a_point_past_the_sum_falls_in_the_last_entry_with_a_share():
  """Rounding may bring it there."""
  found = drawn._pick(_SHARES, np.ones((3, 2), np.float32))
  assert found.tolist() == [[3, 0], [4, 2], [3, 2]]


def test_a_draw_follows_the_row_not_its_place_or_the_rows_beside_it():
  batch = make_batch(1, values=sphere_distances)
  call = lambda b: run(
    mining.distance_weighted, b, key=_KEY, dimension=5, max_positives=3
  )
  whole = call(batch)
  order = np.array([6, 2, 5])
  part = call(
    batch._replace(
      distances=batch.distances[order],
      anchor_ids=batch.anchor_ids[order],
      anchor_rows=batch.anchor_rows[order],
    )
  )
  for a, b in zip(whole, part, strict=True):
    np.testing.assert_array_equal(np.asarray(a)[order], b)


def test_another_key_gives_other_draws():
  batch = make_batch(1, values=lambda rng, s: rng.uniform(0.9, 1.1, s))
  call = lambda key: mining.distance_weighted(
    batch.distances, *_labels(batch), **batch.labels(), key=key, dimension=5,
    max_positives=3,
  )  # fmt: skip
  call = jax.jit(call)
  first, same, other = (call(jax.random.key(k)) for k in (0, 0, 1))
  np.testing.assert_array_equal(first.negatives, same.negatives)
  assert np.any(np.asarray(first.negatives) != other.negatives)


@functools.cache
def _extreme(dimension):
  ids = np.array([0, 0, 1, 1], np.int32)
  call = lambda distances: mining.distance_weighted(
    distances, ids[:1], ids, anchor_rows=np.array([0]), key=_KEY,
    dimension=dimension, positive="easiest",
  )  # fmt: skip
  return jax.jit(call)


@pytest.mark.parametrize("dimension", [2, 512, 4096])
@pytest.mark.parametrize("distance", [0.0, 0.5, 1.39, 1.41, 2.0])
def test_extreme_weights_stay_finite(dimension, distance):
  """At 512 dimensions the weight at 0.5 is exp(370)."""
  distances = np.full((1, 4), distance, np.float32)
  distances[0, 3] = min(distance + 0.3, 2.0)
  mined = _extreme(dimension)(distances)
  assert int(mined.negatives[0]) in (2, 3)
  assert float(mined.weights[0]) == 1
  if dimension >= 512 and 0.5 <= distance < 1.1:
    assert int(mined.negatives[0]) == 2, "the near one is overwhelmingly rarer"


def test_positives_are_those_asked_for():
  batch = make_batch(2, values=lambda rng, s: rng.uniform(0.4, 1.3, s))
  options = {"key": _KEY, "dimension": 5}
  call = functools.partial(
    mining.distance_weighted,
    batch.distances,
    *_labels(batch),
    **batch.labels(),
    **options,
  )
  for positive, pick in (
    ("hardest", reference.farthest),
    ("easiest", reference.nearest),
  ):
    mined = call(positive=positive)
    for a, row in enumerate(batch.distances):
      positives, negatives = reference.kinds(batch, a)
      assert float(mined.weights[a]) == bool(positives and negatives)
      if positives:
        assert int(mined.positives[a]) == pick(row, positives)


@pytest.mark.parametrize(
  "options, match",
  [
    ({"dimension": 1}, "dimension must be at least 2, got 1"),
    ({"cutoff": 0.0}, "0 < cutoff < max_distance < 2, got 0.0 and 1.4"),
    ({"cutoff": 1.4}, "got 1.4 and 1.4"),
    ({"cutoff": 1.5}, "got 1.5 and 1.4"),
    ({"max_distance": 2.0}, "got 0.5 and 2.0"),
    ({"max_positives": None}, "needs max_positives"),
    ({"positive": "all"}, "positive must be one of"),
  ],
)
def test_bad_options_are_refused(options, match):
  ids = np.array([0, 0, 1], np.int32)
  call = {"dimension": 8, "max_positives": 1, "key": _KEY} | options
  with pytest.raises(ValueError, match=match):
    mining.distance_weighted(
      np.ones((3, 3), np.float32), ids, ids, anchor_rows=np.arange(3), **call
    )
