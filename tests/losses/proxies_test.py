"""Tests of proxy-anchor and centre loss, and of the centres' update."""

import functools

import chex
import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference import batch_losses
from reference import losses as reference
from reference.loss_batches import COLUMNS, IDS, WEIGHTS
from wrong.losses_proxies import (
  HONEST,
  PROXIES,
  PROXY_IDS,
  RATE,
  SETTINGS,
  VARIANTS,
  dirty,
)

from facesiam_jax import losses, parallel


@functools.cache
def _jitted():
  """Values, weights and both gradients of the mean of proxy_anchor."""

  def run(proxies, columns, ids, weights, proxy_weights):
    def mean(proxies, columns):
      terms = losses.proxy_anchor(
        proxies,
        PROXY_IDS,
        columns,
        ids,
        column_weights=weights,
        proxy_weights=proxy_weights,
        **SETTINGS,
      )
      return numeric.mean(terms), terms

    gradients, terms = jax.grad(mean, (0, 1), has_aux=True)(proxies, columns)
    return *terms, *gradients

  return jax.jit(run)


ALL = np.ones(7, np.float32)


def _run(proxies=PROXIES, columns=COLUMNS, ids=IDS, weights=WEIGHTS, kept=ALL):
  results = _jitted()(proxies, columns, ids, weights, kept.astype(np.float32))
  return [np.asarray(x) for x in results]


@pytest.mark.parametrize("name", list(HONEST))
def test_mistakes_are_refused_for_what_they_are(name):
  """The right formula passes where the wrong ones are built and refused."""
  honest = jax.jit(HONEST[name])
  VARIANTS[f"losses.{name}"].check(honest)


def test_proxy_loss_does_not_depend_on_the_devices(devices):
  """Each device holds some proxies and some columns; the last is padding."""
  proxies = np.concatenate([PROXIES, np.full((1, 5), np.nan, np.float32)])
  proxy_ids = np.append(PROXY_IDS, 0).astype(np.int32)
  kept = np.append(ALL, 0.0).astype(np.float32)
  value, _ = batch_losses.proxy_anchor(
    PROXIES, PROXY_IDS, COLUMNS, IDS, WEIGHTS, **SETTINGS
  )
  _, _, wrt_proxies, wrt_columns = _run()

  def loss(own, rows, gathered):
    return losses.proxy_anchor(
      own[:, :5],
      jnp.asarray(proxy_ids)[rows],
      gathered[:, 5:].reshape(16, 5),
      IDS,
      num_proxies=7,
      column_weights=WEIGHTS,
      proxy_weights=jnp.asarray(kept)[rows],
      **SETTINGS,
    )

  # A row is one proxy and two columns, so that both are split at once.
  together = np.concatenate([proxies, dirty().reshape(8, 10)], axis=1)
  for number in (1, 2, 4, 8):
    found, gradient = numeric.over_devices(
      loss, together, devices=devices[:number]
    )
    np.testing.assert_allclose(found, value, rtol=2e-6)
    of_columns = gradient[:, 5:].reshape(16, 5)
    numeric.assert_gradients_close(gradient[:7, :5], wrt_proxies, rtol=1e-5)
    numeric.assert_gradients_close(of_columns, wrt_columns, rtol=1e-5)
    assert not np.any(gradient[7, :5])


@pytest.mark.parametrize("filling", [np.nan, np.inf, 0.0])
def test_padding_may_hold_anything(filling):
  kept = np.array([1, 1, 0, 1, 1, 0, 1.0])
  columns = np.where(WEIGHTS[:, None] > 0, COLUMNS, np.float32(filling))
  proxies = np.where(kept[:, None] > 0, PROXIES, np.float32(filling))
  actual, expected = _run(proxies, columns, kept=kept), _run(kept=kept)
  for x, y in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(x, y)
  np.testing.assert_array_equal(actual[1], kept)
  assert not np.any(actual[0][kept == 0]) and not np.any(actual[2][kept == 0])
  assert not np.any(actual[3][WEIGHTS == 0])


def test_absent_people_are_pushed_and_not_divided_by():
  """Six of seven people are present: the shares of the two terms."""
  values, weights, wrt_proxies, _ = _run()
  _, expected = batch_losses.proxy_anchor(
    PROXIES, PROXY_IDS, COLUMNS, IDS, WEIGHTS, **SETTINGS
  )
  absent = list(PROXY_IDS).index(6)
  np.testing.assert_allclose(values[absent], expected[absent], rtol=1e-5)
  assert weights[absent] == 1 and np.any(wrt_proxies[absent])


_DEGENERATE = {
  "one person": (PROXIES, COLUMNS, np.full(16, 2), WEIGHTS),
  "all masked": (PROXIES, COLUMNS * np.nan, IDS, WEIGHTS * 0),
  "one row": (PROXIES, COLUMNS, IDS, np.arange(16) == 3),
  "duplicates": (
    np.tile(COLUMNS[:1], (7, 1)),
    np.tile(COLUMNS[:1], (16, 1)),
    IDS,
    WEIGHTS,
  ),
  "zeros": (PROXIES * 0, COLUMNS * 0, IDS, WEIGHTS),
}


@pytest.mark.parametrize("case", list(_DEGENERATE))
def test_degenerate_batches_are_finite_and_as_the_loops_say(case):
  proxies, columns, ids, weights = _DEGENERATE[case]
  weights = weights.astype(np.float32)
  results = _run(proxies, columns, ids.astype(np.int32), weights)
  chex.assert_tree_all_finite(results)
  _, expected = batch_losses.proxy_anchor(
    proxies, PROXY_IDS, columns, ids, weights, **SETTINGS
  )
  np.testing.assert_allclose(results[0], expected, rtol=2e-5, atol=2e-6)
  np.testing.assert_array_equal(results[1], ALL)
  assert np.any(expected) == (case != "all masked")


def test_an_unknown_person_inside_jit_is_a_negative_of_all_proxies():
  """Not counted as present, where -1 would wrap round to the last proxy."""
  ids = np.where(np.arange(16) == 5, -1, IDS).astype(np.int32)
  _, expected = batch_losses.proxy_anchor(
    PROXIES, PROXY_IDS, COLUMNS, ids, WEIGHTS, **SETTINGS
  )
  np.testing.assert_allclose(_run(ids=ids)[0], expected, rtol=2e-5)


def test_order_rotation_and_length_change_nothing():
  values, _, wrt_proxies, wrt_columns = _run()
  order = np.random.default_rng(5).permutation(16)
  rotation, _ = np.linalg.qr(np.random.default_rng(6).normal(size=(5, 5)))
  other = _run(
    (3.0 * PROXIES @ rotation).astype(np.float32),
    (COLUMNS[order] @ rotation / 2).astype(np.float32),
    IDS[order],
    WEIGHTS[order],
  )
  np.testing.assert_allclose(other[0], values, rtol=1e-4, atol=1e-5)
  back = rotation.T
  numeric.assert_gradients_close(other[2] @ back * 3.0, wrt_proxies)
  numeric.assert_gradients_close(other[3] @ back / 2, wrt_columns[order])


def test_bf16_is_cast_up_and_vmap_agrees():
  short = jnp.asarray(COLUMNS).astype(jnp.bfloat16)
  loss = jax.jit(
    lambda x, c: losses.proxy_anchor(x, PROXY_IDS, c, IDS, **SETTINGS)[0]
  )
  expected = loss(PROXIES, short.astype(jnp.float32))
  np.testing.assert_array_equal(loss(PROXIES, short), expected)
  mapped = jax.jit(jax.vmap(loss))(
    jnp.stack([PROXIES] * 2), jnp.stack([short] * 2)
  )
  np.testing.assert_allclose(mapped, [expected] * 2, rtol=1e-5)


def test_defaults():
  args = (PROXIES, PROXY_IDS, COLUMNS, IDS)
  expected = losses.proxy_anchor(*args, num_proxies=7, scale=32.0, margin=0.1)
  np.testing.assert_array_equal(losses.proxy_anchor(*args)[0], expected[0])
  x = losses.update_centers(PROXIES, COLUMNS, IDS)
  np.testing.assert_array_equal(
    x, losses.update_centers(PROXIES, COLUMNS, IDS, rate=0.5)
  )


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"proxies": PROXIES[0]}, r"proxies must have shape .* got \(5,\)"),
    ({"columns": COLUMNS[:, :4]}, r"same width, got \(7, 5\) and \(16, 4\)"),
    ({"columns": IDS[:, None]}, "columns must be floating point"),
    ({"columns": COLUMNS[:0]}, "columns must not be empty"),
    ({"proxy_ids": PROXY_IDS[:6]}, r"proxy_ids .* got \(6,\) for \(7, 5\)"),
    ({"proxy_ids": PROXY_IDS + 1}, "proxy_ids must be from 0 to 6, got 7"),
    ({"column_ids": IDS - 1}, "column_ids must be from 0 to 6, got -1"),
    ({"column_ids": IDS * 1.0}, "column_ids must be integers"),
    (
      {"num_proxies": 6},
      "column_ids must be from 0 to 5, got 6|proxy_ids .* 6",
    ),
    ({"num_proxies": 0}, "num_proxies must be positive, got 0"),
    ({"scale": 0.0}, "scale must be positive, got 0.0"),
    ({"margin": -0.1}, "margin must be from 0.0 to 1.0, got -0.1"),
    ({"column_weights": WEIGHTS[:3]}, r"column_weights .* got \(3,\)"),
    ({"proxy_weights": WEIGHTS}, r"proxy_weights .* got \(16,\) for \(7, 5\)"),
  ],
)
def test_bad_arguments_of_proxy_anchor_are_refused(changes, match):
  arguments = {
    "proxies": PROXIES,
    "proxy_ids": PROXY_IDS,
    "columns": COLUMNS,
    "column_ids": IDS,
    **changes,
  }
  with pytest.raises(ValueError, match=match):
    losses.proxy_anchor(**arguments)


def test_ids_of_padding_are_not_looked_at():
  ids = np.where(WEIGHTS > 0, IDS, -1).astype(np.int32)
  expected = losses.center(dirty(), IDS, PROXIES, WEIGHTS)
  actual = losses.center(dirty(), ids, PROXIES, WEIGHTS)
  np.testing.assert_array_equal(actual[0], expected[0])
  moved = losses.update_centers(PROXIES, dirty(), ids, WEIGHTS)
  np.testing.assert_array_equal(
    moved, losses.update_centers(PROXIES, dirty(), IDS, WEIGHTS)
  )


def test_an_unknown_person_is_nan_in_center_and_moves_nothing_inside_jit():
  ids = IDS.copy()
  ids[[2, 6]] = 7, -1
  values = jax.jit(lambda i: losses.center(COLUMNS, i, PROXIES)[0])(ids)
  np.testing.assert_array_equal(
    np.isnan(values), np.isin(np.arange(16), [2, 6])
  )
  moved = jax.jit(lambda i: losses.update_centers(PROXIES, COLUMNS, i))(ids)
  without = np.isin(np.arange(16), [2, 6], invert=True).astype(np.float32)
  expected = reference.update_centers(PROXIES, COLUMNS, ids, without, 0.5)
  np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)


def test_centers_move_alike_on_any_number_of_devices(devices):
  """Each device gathers the global batch: equal to one device's update."""
  expected = reference.update_centers(PROXIES, COLUMNS, IDS, WEIGHTS, RATE)
  spec = jax.sharding.PartitionSpec()

  def step(x, ids, weights):
    gathered = [
      jax.lax.all_gather(a, parallel.AXIS, tiled=True)
      for a in (x, ids, weights)
    ]
    moved = losses.update_centers(PROXIES, *gathered, rate=RATE)
    return jax.lax.all_gather(moved, parallel.AXIS)

  for number in (1, 8):
    mesh = parallel.make_mesh(devices[:number])
    mapped = parallel.pmap(step, mesh, out_specs=spec)
    moved = np.asarray(mapped(dirty(), IDS, WEIGHTS))
    np.testing.assert_array_equal(moved, np.tile(moved[:1], (number, 1, 1)))
    np.testing.assert_allclose(moved[0], expected, rtol=1e-5, atol=1e-6)


def test_nan_in_a_valid_row_is_not_hidden():
  x = COLUMNS.copy()
  x[3] = np.nan
  values, _ = losses.center(x, IDS, PROXIES)
  np.testing.assert_array_equal(np.isnan(values), np.arange(16) == 3)
  moved = losses.update_centers(PROXIES, x, IDS)
  np.testing.assert_array_equal(np.isnan(moved).any(1), np.arange(7) == IDS[3])
  assert np.all(np.isnan(_run(columns=x)[0]))


def test_repeated_updates_reach_the_mean():
  """A single step covers rate n / (1 + n) of the way."""
  x, ids = jnp.array([[1.0], [3.0]]), jnp.array([0, 0])
  centers = jnp.zeros((1, 1))
  for expected in (2 / 3, 2 / 3 + (2 - 2 / 3) / 3):
    centers = losses.update_centers(centers, x, ids, rate=0.5)
    np.testing.assert_allclose(centers, [[expected]], rtol=1e-6)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"embeddings": COLUMNS[0]}, r"embeddings must have shape .* got \(5,\)"),
    ({"embeddings": COLUMNS[:, :2]}, r"same width, got \(16, 2\) and \(7, 5\)"),
    ({"centers": np.ones((7, 5), int)}, "centers must be floating point"),
    ({"embeddings": COLUMNS[:0]}, "embeddings must not be empty"),
    ({"ids": IDS[:3]}, r"ids must hold .* got \(3,\) for \(16, 5\)"),
    ({"ids": IDS + 2}, "ids must be from 0 to 6, got 7"),
    ({"ids": IDS - 1}, "ids must be from 0 to 6, got -1"),
    ({"ids": IDS * 1.0}, "ids must be integers, got dtype float"),
    ({"weights": WEIGHTS[:3]}, r"weights must hold .* got \(3,\)"),
  ],
)
@pytest.mark.parametrize("loss", [losses.center, losses.update_centers])
def test_bad_arguments_of_centers_are_refused(loss, changes, match):
  arguments = {"embeddings": COLUMNS, "ids": IDS, "centers": PROXIES, **changes}
  with pytest.raises(ValueError, match=match):
    loss(**arguments)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_bad_rates_are_refused(rate):
  with pytest.raises(ValueError, match="rate must be from 0.0 to 1.0, got"):
    losses.update_centers(PROXIES, COLUMNS, IDS, rate=rate)
