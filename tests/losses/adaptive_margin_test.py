"""AdaFace's statistics, MagFace's norms and ElasticFace's draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference import margin_batch as batch
from reference import margin_softmax as reference

from facesiam_jax import losses, parallel

KEY = jax.random.key(6)
RNG = np.random.default_rng(21)
X = RNG.normal(size=(16, 5)).astype(np.float32)
X *= np.geomspace(1.0, 200.0, 16, dtype=np.float32)[:, None]
LABELS = np.arange(16, dtype=np.int32) % 7
WEIGHTS = np.ones(16, np.float32)
WEIGHTS[[2, 9, 10]] = 0.0
DIRTY = np.where(WEIGHTS[:, None] > 0, X, np.nan).astype(np.float32)
COUNTS = [1, 2, 4, 8]
SPEC = jax.sharding.PartitionSpec


@pytest.mark.parametrize("count", COUNTS)
def test_norm_statistics_are_those_of_the_global_batch(count, devices):
  """The same on every device, for any number of devices."""
  rows = SPEC(parallel.AXIS)
  update = parallel.pmap(
    lambda x, w: jax.tree.map(
      lambda part: part[None],
      losses.update_norm_statistics(
        losses.NormStatistics(), x, w, rate=0.3, axis_name=parallel.AXIS
      ),
    ),
    parallel.make_mesh(devices[:count]),
    in_specs=(rows, rows),
  )
  found = update(DIRTY, WEIGHTS)
  expected = reference.norm_statistics(20.0, 100.0, X, WEIGHTS, 0.3)
  np.testing.assert_allclose(found.mean, [expected[0]] * count, rtol=1e-6)
  np.testing.assert_allclose(found.std, [expected[1]] * count, rtol=1e-6)


def test_norms_are_clipped_at_both_ends_as_the_authors_do():
  start = losses.NormStatistics()
  near, far = (
    losses.update_norm_statistics(start, np.full((3, 1), x, np.float32), rate=1)
    for x in (0, 1e6)
  )
  np.testing.assert_allclose([near.mean, far.mean], [0.001, 100], rtol=1e-3)


def test_norm_statistics_pass_no_gradient_and_trace_once():
  traces = []

  @jax.jit
  def step(state, x):
    traces.append(1)
    return losses.update_norm_statistics(state, x, WEIGHTS)

  state = step(step(losses.NormStatistics(), DIRTY), DIRTY)
  assert len(traces) == 1 and state.mean.dtype == jnp.float32
  total = lambda x: sum(losses.update_norm_statistics(state, x, WEIGHTS))
  found = jax.jit(jax.grad(total))(DIRTY)
  np.testing.assert_array_equal(found, np.zeros_like(X))


@pytest.mark.parametrize("rate", [-0.1, 1.1, math.nan])
def test_rate_is_a_share(rate):
  with pytest.raises(ValueError, match=f"rate .*{rate}"):
    losses.update_norm_statistics(losses.NormStatistics(), X, rate=rate)


@pytest.mark.parametrize(
  ("x", "weights", "message"),
  [
    (X[0], None, r"embeddings .*\(5,\)"),
    (X[:0], None, r"embeddings .*\(0, 5\)"),
    (X.astype(np.int32), None, "embeddings .*int32"),
    (X, WEIGHTS[:4], r"weights .*\(4,\).*\(16, 5\)"),
  ],
)
def test_statistics_name_bad_input(x, weights, message):
  with pytest.raises(ValueError, match=message):
    losses.update_norm_statistics(losses.NormStatistics(), x, weights)


def test_a_nan_norm_shows_in_the_statistics():
  spoilt = np.array(DIRTY)
  spoilt[0, 0] = np.nan
  found = losses.update_norm_statistics(
    losses.NormStatistics(), spoilt, WEIGHTS
  )
  assert np.isnan(found.mean) and np.isnan(found.std)


@functools.cache
def _mag_norm_slope(regularizer):
  """d loss / d norm of an example at right angles to its class."""
  # Its norm is exact, so that 10 and 110 are the limits themselves.
  towards = np.array([0.0, 6.0, 8.0, 0.0, 0.0], np.float32)

  def loss(norm):
    values, _ = losses.magface(
      (norm / 10 * towards)[None],
      np.eye(5, dtype=np.float32),
      np.zeros(1, np.int32),
      regularizer=regularizer,
    )
    return values[0]

  norms = jnp.array([9.0, 10.0, 30.0, 90.0, 110.0, 120.0])
  return np.asarray(jax.jit(jax.vmap(jax.grad(loss)))(norms))


def test_magface_norm_is_pulled_from_both_sides():
  """g lengthens a short embedding; without g the margin shortens it."""
  found, bare = _mag_norm_slope(35.0), _mag_norm_slope(0.0)
  signs = lambda x: np.sign(np.where(np.abs(x) < 1e-6, 0.0, x))
  np.testing.assert_array_equal(signs(found), [0, -1, 1, 1, 1, 0])
  np.testing.assert_array_equal(signs(bare), [0, 1, 1, 1, 1, 0])
  # Exactly at a limit the whole gradient, not half of it.
  sizes = np.array([10.0, 30.0, 90.0, 110.0])
  penalty = 35.0 * (1 / 110.0**2 - 1 / sizes**2)
  np.testing.assert_allclose(found[1:5] - bare[1:5], penalty, atol=1e-5)
  margin = 0.45 + 0.0035 * (sizes - 10)
  np.testing.assert_allclose(bare[1:5], 64 * 0.0035 * np.cos(margin), rtol=1e-4)


def test_magface_docstring_bound_on_the_regularizer():
  """s k l_a^2 u_a^2 / (u_a^2 - l_a^2) = 22.6 lets g win at l_a."""
  slope = (0.8 - 0.45) / (110.0 - 10.0)
  bound = 64.0 * slope * 100.0 * 12100.0 / (12100.0 - 100.0)
  assert round(bound, 1) == 22.6
  assert _mag_norm_slope(bound)[1] <= 0
  assert _mag_norm_slope(15.0)[1] > 0


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"norm_range": (0.0, 110.0)}, r"norm_range .*\(0.0, 110.0\)"),
    ({"norm_range": (110.0, 10.0)}, r"norm_range .*\(110.0, 10.0\)"),
    ({"margin_range": (0.8, 0.45)}, r"margin_range .*\(0.8, 0.45\)"),
    ({"margin_range": (-0.1, 0.8)}, r"margin_range .*\(-0.1, 0.8\)"),
    ({"margin_range": (0.45, 1.6)}, r"margin_range .*\(0.45, 1.6\)"),
    ({"regularizer": -1.0}, "regularizer .*-1.0"),
    ({"scale": 0.0}, "scale .*0.0"),
  ],
)
def test_magface_names_bad_options(settings, message):
  with pytest.raises(ValueError, match=message):
    losses.magface(X, batch.CENTERS, LABELS, **settings)


def _elastic(own, rows, plus):
  return losses.elasticface(
    own,
    batch.CENTERS,
    jnp.asarray(LABELS)[rows],
    jnp.asarray(WEIGHTS)[rows],
    key=KEY,
    rows=rows,
    scale=8.0,
    std=0.2,
    plus=plus,
    axis_name=parallel.AXIS,
  )


@pytest.mark.parametrize("plus", [False, True])
def test_elasticface_does_not_know_the_number_of_devices(plus, devices):
  """Row by row the same draw; with plus ranked over all devices together."""
  loss = lambda own, rows, columns: _elastic(own, rows, plus)
  results = [
    numeric.over_devices(loss, DIRTY, devices=devices[:count])
    for count in (COUNTS if plus else (1, 8))
  ]
  for value, gradient in results[1:]:
    np.testing.assert_allclose(value, results[0][0], rtol=1e-6)
    numeric.assert_gradients_close(gradient, results[0][1], rtol=1e-5)
  drawn = jax.jit(jax.vmap(lambda r: jax.random.normal(_folded(r))))(
    jnp.arange(16)
  )
  margins = np.maximum(0.0, 0.5 + 0.2 * np.float64(drawn))
  if plus:
    cosines = [
      reference.cosine(row, batch.CENTERS[label])
      for row, label in zip(X, LABELS, strict=True)
    ]
    margins = reference.deal_by_difficulty(margins, cosines, WEIGHTS)
  values = reference.losses(
    X,
    batch.CENTERS,
    LABELS,
    WEIGHTS,
    lambda c, length, row: reference.arcface(c, margins[row]),
    scale=8.0,
  )
  expected = reference.mean(values, WEIGHTS)
  np.testing.assert_allclose(results[0][0], expected, rtol=1e-5)


def _folded(row):
  return jax.random.fold_in(KEY, row)


def test_elasticface_rows_are_those_of_one_device_by_default():
  loss = lambda rows: losses.elasticface(
    X, batch.CENTERS, LABELS, key=KEY, rows=rows, scale=8.0, std=0.2
  )
  plain, given = jax.jit(lambda: (loss(None), loss(np.arange(16))))()
  np.testing.assert_array_equal(plain[0], given[0])


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"kind": "tan"}, "kind .*'tan'"),
    ({"margin": 1.6}, "margin .*1.6"),
    ({"margin": 2.5, "kind": "cos"}, "margin .*2.5"),
    ({"std": -1.0}, "std .*-1.0"),
    ({"rows": np.arange(4)}, r"rows .*\(4,\).*\(16,\)"),
    ({"scale": -1.0}, "scale .*-1.0"),
  ],
)
def test_elasticface_names_bad_options(settings, message):
  with pytest.raises(ValueError, match=message):
    losses.elasticface(X, batch.CENTERS, LABELS, key=KEY, **settings)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"margin": 1.6}, "margin .*1.6"),
    ({"concentration": -1.0}, "concentration .*-1.0"),
    ({"scale": math.nan}, "scale .*nan"),
  ],
)
def test_adaface_names_bad_options(settings, message):
  with pytest.raises(ValueError, match=message):
    losses.adaface(
      X,
      batch.CENTERS,
      LABELS,
      statistics=losses.NormStatistics(),
      **settings,
    )


def test_adaface_step_over_devices_is_that_of_the_global_batch(devices):
  """Statistics of all eight devices, then the loss with them."""

  def loss(own, rows, columns):
    weights = jnp.asarray(WEIGHTS)[rows]
    statistics = losses.update_norm_statistics(
      losses.NormStatistics(),
      own,
      weights,
      rate=0.5,
      axis_name=parallel.AXIS,
    )
    return losses.adaface(
      own,
      batch.CENTERS,
      jnp.asarray(LABELS)[rows],
      weights,
      statistics=statistics,
      scale=8.0,
    )

  value, gradient = numeric.over_devices(loss, DIRTY, devices=devices)
  mean, std = reference.norm_statistics(20.0, 100.0, X, WEIGHTS, 0.5)
  lengths = [reference.norm(row) for row in X]

  def expected(x):
    values = reference.losses(
      x,
      batch.CENTERS,
      LABELS,
      WEIGHTS,
      lambda c, length, row: reference.adaface(c, lengths[row], mean, std),
      scale=8.0,
    )
    return reference.mean(values, WEIGHTS)

  np.testing.assert_allclose(value, expected(X), rtol=1e-6)
  wanted = numeric.gradient(expected, X)
  numeric.assert_gradients_close(gradient, wanted, rtol=1e-5)
  assert not np.asarray(gradient)[WEIGHTS == 0].any()
