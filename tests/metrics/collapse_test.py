"""Tests of facesiam_jax.metrics.collapse.

Equality with the loops of reference/collapse.py is in wrong/collapse.py.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from reference import collapse as reference
from wrong.collapse import make_embeddings

from facesiam_jax import losses, mining, ops, parallel
from facesiam_jax.metrics import collapse

_statistics = jax.jit(collapse.collapse_statistics)


def _values(x, weights=None):
  return np.array(_statistics(x, weights))


def test_any_number_of_devices_measures_the_global_batch(devices):
  x, weights = make_embeddings(0)
  x, weights = np.resize(x, (16, 5)), np.resize(weights, 16)
  spec = jax.sharding.PartitionSpec()

  def own(x, weights):
    gathered = lax.all_gather(x, parallel.AXIS, tiled=True)
    weights = lax.all_gather(weights, parallel.AXIS, tiled=True)
    return collapse.collapse_statistics(gathered, weights)

  expected = reference.statistics(x, weights)
  for count in (1, 2, 4, 8):
    mapped = parallel.pmap(
      own, parallel.make_mesh(devices[:count]), out_specs=spec
    )
    np.testing.assert_allclose(mapped(x, weights), expected, rtol=1e-5)


def test_known_configurations():
  """Corners of a simplex spread all ways; a line has rank 1."""
  simplex = _values(np.eye(5, dtype=np.float32))
  np.testing.assert_allclose(
    simplex, [math.sqrt(0.8), math.sqrt(2), 4, 5], rtol=1e-6
  )
  line = np.arange(5, dtype=np.float32)[:, None] * [[1.0, 2.0, -1.0]]
  assert round(float(_values(line.astype(np.float32))[2]), 5) == 1
  apart = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
  np.testing.assert_allclose(_values(apart), [1, 2, 1, 2], rtol=1e-6)


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5])
def test_spread_follows_the_distance_from_one_point(noise):
  rng = np.random.default_rng(0)
  point = rng.normal(size=(1, 16))
  x = point + noise * rng.normal(size=(64, 16))
  x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
  spread, distance, rank, _ = _values(x)
  expected = reference.statistics(x)
  np.testing.assert_allclose(spread, expected[0], rtol=1e-3)
  np.testing.assert_allclose(distance, expected[1], rtol=1e-3)
  # Fifteen directions share what is left: the rank does not see a collapse.
  assert 10 < rank < 15


@pytest.mark.parametrize(
  "x",
  [
    np.zeros((4, 3)),
    np.ones((4, 3)),
    np.ones((1, 3)),
    np.full((4, 3), np.nan),
  ],
  ids=["zeros", "duplicates", "one row", "all padding"],
)
def test_degenerate_batches_are_zero(x):
  weights = np.zeros(len(x)) if np.isnan(x).any() else np.ones(len(x))
  values = _values(x.astype(np.float32), weights)
  np.testing.assert_array_equal(values, [0, 0, 0, weights.sum()])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_any_length_of_embeddings(scale):
  x, weights = make_embeddings(1)
  before = _values(x, weights)
  after = _values((x.astype(np.float64) * scale).astype(np.float32), weights)
  np.testing.assert_allclose(after[[0, 2, 3]], before[[0, 2, 3]], rtol=1e-5)
  np.testing.assert_allclose(after[1] / scale, before[1], rtol=1e-5)


def test_order_rotation_and_padding_change_nothing():
  x, _ = make_embeddings(2, padding=False)
  before = _values(x)
  rng = np.random.default_rng(0)
  turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
  np.testing.assert_allclose(_values(x[::-1].copy()), before, rtol=1e-5)
  turned = (x @ turn).astype(np.float32)
  np.testing.assert_allclose(_values(turned), before, rtol=1e-5)
  padded = np.pad(x, ((2, 3), (0, 0)), constant_values=np.nan)
  weights = np.pad(np.ones(11, np.float32), (2, 3))
  np.testing.assert_allclose(_values(padded, weights), before, rtol=1e-6)


def test_nan_that_counts_makes_the_figures_nan():
  x, weights = make_embeddings(0)
  x[2, 3] = np.nan
  values = _values(x, weights)
  assert np.isnan(values[:3]).all()
  assert values[3] == 8


def test_plain_jit_vmap_and_bfloat16():
  x, weights = make_embeddings(0)
  low = jnp.asarray(x).astype(jnp.bfloat16)
  full = low.astype(jnp.float32)
  plain = collapse.collapse_statistics(full, weights)
  np.testing.assert_allclose(_values(low, weights), plain, rtol=1e-6)
  together = jax.jit(jax.vmap(collapse.collapse_statistics))(
    jnp.stack([full, 2 * full]), np.stack([weights, weights])
  )
  for value, pair in zip(plain, together, strict=True):
    assert pair.dtype == jnp.float32
    np.testing.assert_allclose(pair[0], value, rtol=1e-6)
  np.testing.assert_allclose(
    together.distance[1], 2 * plain.distance, rtol=1e-6
  )


@pytest.mark.parametrize(
  "x, weights, match",
  [
    (np.ones(3, np.float32), None, r"\[B, D\] .* got float32 \(3,\)"),
    (np.ones((3, 2), np.int32), None, "floating point .* got int32"),
    (np.ones((0, 2), np.float32), None, r"B, D >= 1, got float32 \(0, 2\)"),
    (np.ones((3, 0), np.float32), None, r"got float32 \(3, 0\)"),
    (np.ones((3, 2), np.float32), np.ones(2), r"got \(2,\) for \(3, 2\)"),
  ],
)
def test_bad_arrays_are_refused(x, weights, match):
  with pytest.raises(ValueError, match=match):
    collapse.collapse_statistics(x, weights)


@pytest.mark.parametrize(
  "options, expected",
  [
    ({"spread": 0.049}, True),
    ({"spread": 0.05}, False),
    ({"spread": 0.3, "threshold": 0.31}, True),
    ({"spread": 0.3, "distance": 0.04, "margin": 1.0}, True),
    ({"spread": 0.3, "distance": 0.06, "margin": 1.0}, False),
    ({"spread": 0.3, "distance": 0.06, "margin": 2.0}, True),
    ({"spread": 0.01, "distance": 9.0, "margin": 1.0}, True),
    ({"spread": 0.0, "threshold": 0.0}, False),
  ],
)
def test_decision(options, expected):
  assert collapse.is_collapsed(**options) is expected


@pytest.mark.parametrize(
  "options, match",
  [
    ({"spread": math.nan}, "spread must be a number .* got nan"),
    ({"spread": -0.1}, "spread .* got -0.1"),
    ({"spread": 0.1, "threshold": 1.5}, "threshold must be from 0 to 1"),
    ({"spread": 0.1, "threshold": math.nan}, "threshold .* got nan"),
    ({"spread": 0.1, "margin": 1.0}, "distance and margin go together"),
    ({"spread": 0.1, "distance": 1.0}, "distance and margin go together"),
    (
      {"spread": 0.1, "distance": math.nan, "margin": 1.0},
      "distance must be a number .* got nan",
    ),
  ],
)
def test_nonsense_is_refused(options, match):
  with pytest.raises(ValueError, match=match):
    collapse.is_collapsed(**options)


@pytest.mark.parametrize("collapses", [True, False])
def test_alarm_tells_a_collapsed_run_from_one_that_learns(collapses):
  """A linear map of four people's faces, batch-hard on unit rows.

  Where the faces tell little of the people, squared distances pull all rows
  onto one point and the loss rests at the margin; where they tell enough,
  plain distances separate the people and there is no alarm on the way.
  """
  rng = np.random.default_rng(0)
  ids = jnp.arange(32) // 8
  offset, noise = (3.0, 2.0) if collapses else (1.0, 1.0)
  people = rng.normal(size=(4, 12)) + offset
  faces = people[np.asarray(ids)] + noise * rng.normal(size=(32, 12))
  faces = jnp.asarray(faces, jnp.float32)
  measure = ops.squared_distance if collapses else ops.euclidean_distance

  def loss(weights):
    x = ops.l2_normalize(jnp.matmul(faces, weights, precision="highest"))
    mined = mining.batch_hard(
      ops.pairwise_squared_distance(x, x), ids, ids, anchor_rows=jnp.arange(32)
    )
    distances = (
      measure(x, x[indices]) for indices in (mined.positives, mined.negatives)
    )
    terms = losses.triplet_margin(*distances, mined.weights, margin=0.2)
    return ops.masked_mean(*terms), collapse.collapse_statistics(x)

  @jax.jit
  def train(weights):
    def step(weights, _):
      (value, found), slope = jax.value_and_grad(loss, has_aux=True)(weights)
      return weights - 0.4 * jnp.sign(slope), (value, found.spread)

    return lax.scan(step, weights, length=60)

  start = jnp.asarray(rng.normal(size=(12, 6)), jnp.float32)
  _, (values, spreads) = train(start)
  alarms = [collapse.is_collapsed(float(spread)) for spread in spreads]
  assert not alarms[0]
  if collapses:
    assert alarms[-1]
    np.testing.assert_allclose(values[-1], 0.2, rtol=0.02)
  else:
    assert not any(alarms)
    assert float(values[-1]) < 0.06
