"""Tests of the losses of triplets beside their loops and wrong variants."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from wrong.losses_triplet import (
  EMBEDDINGS,
  FAR,
  HONEST,
  INPUTS,
  NEAR,
  SETTINGS,
  VARIANTS,
  WEIGHTS,
  dirty,
)

from facesiam_jax import losses, ops

LOSSES = {name: getattr(losses, name) for name in INPUTS}
each_loss = pytest.mark.parametrize("name", list(LOSSES))
each_preset = pytest.mark.parametrize(
  "name", ["csc413_as_written", "csc413_as_run"]
)
each_distance_loss = pytest.mark.parametrize(
  "name", ["triplet_margin", "soft_margin_triplet"]
)


@functools.cache
def _jitted(name):
  """(values, weights) and the gradient of their mean, compiled once."""

  def run(arrays, weights):
    def mean(arrays):
      terms = LOSSES[name](*arrays, weights, **SETTINGS[name])
      return numeric.mean(terms), terms

    gradient, terms = jax.grad(mean, has_aux=True)(arrays)
    return *terms, gradient

  return jax.jit(run)


def _run(name, arrays=None, weights=WEIGHTS):
  arrays = INPUTS[name] if arrays is None else arrays
  return [np.asarray(x) for x in _jitted(name)(arrays, weights)]


@each_loss
def test_mistakes_are_refused_for_what_they_are(name):
  """The right formula passes where the wrong ones are built and refused."""
  honest = jax.jit(HONEST[name])
  VARIANTS[f"losses.{name}"].check(honest)


@each_loss
def test_masked_rows_hold_anything(name):
  actual, expected = _run(name, dirty(name)), _run(name)
  for x, y in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(x, y)
  masked = WEIGHTS == 0
  assert not np.any(actual[0][masked]) and not np.any(actual[2][:, masked])


@each_loss
def test_all_masked_is_zero_and_nan_is_not_hidden(name):
  values, weights, gradient = _run(
    name, INPUTS[name] * np.nan, np.zeros(11, np.float32)
  )
  assert not np.any(values) and not np.any(weights) and not np.any(gradient)
  arrays = INPUTS[name].copy()
  arrays[0, 3] = np.nan
  values, _, _ = _run(name, arrays)
  np.testing.assert_array_equal(np.isnan(values), np.arange(11) == 3)


def test_mean_over_active_triplets_is_zero_without_any():
  """Libraries that divide by the number of active triplets give 0/0."""

  def mean(near, far):
    values, weights = losses.triplet_margin(near, far, margin=0.1)
    return ops.masked_mean(values, weights * (values > 0))

  run = jax.jit(jax.value_and_grad(mean))
  value, gradient = run(jnp.zeros(3), jnp.ones(3))
  assert float(value) == 0.0 and not np.any(gradient)
  near, far = jnp.array([0.5, 0.0, 0.0]), jnp.array([0.3, 1.0, 2.0])
  np.testing.assert_allclose(run(near, far)[0], 0.3, rtol=1e-6)


def test_collapsed_networks_show_their_mark():
  """All embeddings alike: the margin, or log 2; presets have no gradient."""
  zeros = np.zeros((2, 11), np.float32)
  np.testing.assert_allclose(_run("triplet_margin", zeros)[0][0], 0.3)
  soft = _run("soft_margin_triplet", zeros)[0][0]
  np.testing.assert_allclose(soft, np.log(2.0), rtol=1e-6)
  for name in ("csc413_as_written", "csc413_as_run"):
    values, _, gradient = _run(name, np.ones((3, 11, 5), np.float32))
    np.testing.assert_allclose(values[0], 0.6, rtol=1e-6)
    np.testing.assert_allclose(gradient, np.zeros((3, 11, 5)), atol=1e-7)


def test_larger_margins_never_cost_less_and_soft_stays_above_the_hinge():
  before = np.zeros(11)
  for margin in (1e-6, 0.2, 1.0):
    values, _ = losses.triplet_margin(NEAR, FAR, margin=margin)
    assert np.all(values >= before)
    before = np.asarray(values)
  soft, _ = losses.soft_margin_triplet(NEAR, FAR)
  assert np.all(soft > np.maximum(NEAR - FAR, 0))


def test_soft_margin_cannot_overflow():
  far = np.tile(np.float32([0.0, 1e4]), 6)[:11]
  values, _, gradient = _run("soft_margin_triplet", np.stack([far, 1e4 - far]))
  np.testing.assert_allclose(values[[2, 3]], [0.0, 1e4])
  assert np.all(np.isfinite(gradient))


@each_preset
def test_presets_ignore_rotation_and_only_one_ignores_length(name):
  values = _run(name)[0]
  rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(5, 5)))
  rotated = _run(name, (EMBEDDINGS @ rotation).astype(np.float32))[0]
  np.testing.assert_allclose(rotated, values, rtol=1e-4, atol=1e-5)
  longer = _run(name, 3.0 * EMBEDDINGS)[0]
  same = np.allclose(longer, values, rtol=1e-4, atol=1e-5)
  assert same == (name == "csc413_as_written")


def test_presets_contradict_each_other():
  """The report's own numbers: 2.592 and 4.779 are no unit vectors' distances.

  As written the loss lies between margin - 4 and margin + 4 whatever the
  embeddings are; as run a triplet of those distances costs nothing.
  """
  anchors = jnp.zeros((1, 2))
  near, far = jnp.array([[2.592, 0.0]]), jnp.array([[0.0, 4.779]])
  values, _ = losses.csc413_as_run(anchors, near, far)
  assert float(values[0]) == 0.0
  values, _ = losses.csc413_as_run(anchors, far, near)
  np.testing.assert_allclose(values, [4.779 - 2.592 + 1.0], rtol=1e-6)
  written, _ = losses.csc413_as_written(near, near, -near)
  np.testing.assert_allclose(written, [1.0 - 4.0], rtol=1e-6)


def test_defaults():
  pairs = ((NEAR, FAR), losses.triplet_margin, 0.2)
  triplets = [(EMBEDDINGS, LOSSES[n], 1.0) for n in LOSSES if n[0] == "c"]
  for arrays, loss, margin in (pairs, *triplets):
    expected = loss(*arrays, margin=margin)[0]
    np.testing.assert_array_equal(loss(*arrays)[0], expected)


@each_loss
def test_jit_vmap_and_short_floats_agree(name):
  short = jnp.asarray(INPUTS[name]).astype(jnp.bfloat16)
  loss = lambda x: LOSSES[name](*x, WEIGHTS, **SETTINGS[name])
  plain, cast = loss(short.astype(jnp.float32)), loss(short)
  np.testing.assert_array_equal(cast[0], plain[0])
  mapped = jax.jit(jax.vmap(loss))(jnp.stack([short, short]))
  np.testing.assert_allclose(mapped[0][1], plain[0], rtol=1e-5, atol=1e-6)
  compiled = _run(name, np.asarray(short.astype(jnp.float32)))
  np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-5, atol=1e-6)
  assert cast[0].dtype == cast[1].dtype == jnp.float32


@each_loss
def test_rows_are_independent(name):
  values, weights, gradient = _run(name)
  order = np.arange(11)[::-1]
  actual = _run(name, INPUTS[name][:, order], WEIGHTS[order])
  np.testing.assert_allclose(actual[0], values[order], rtol=1e-6)
  np.testing.assert_array_equal(actual[1], weights[order])
  numeric.assert_gradients_close(actual[2], gradient[:, order], rtol=1e-6)


@each_distance_loss
@pytest.mark.parametrize(
  "arguments, match",
  [
    ((NEAR, FAR[:3]), r"same shape, got \(11,\) and \(3,\)"),
    ((NEAR[:, None], FAR), r"positive_distances must .* got \(11, 1\)"),
    ((NEAR, FAR[:, None]), r"negative_distances must .* got \(11, 1\)"),
    ((NEAR, FAR.astype(int)), "negative_distances must be floating"),
    ((NEAR[:0], FAR[:0]), "positive_distances must not be empty"),
    (
      (NEAR, FAR, WEIGHTS[:2]),
      r"weights must .* of positive_dist.* got \(2,\) for \(11,\)",
    ),
  ],
)
def test_bad_distances_are_refused(name, arguments, match):
  with pytest.raises(ValueError, match=match):
    LOSSES[name](*arguments)


A, P, N = EMBEDDINGS


@each_preset
@pytest.mark.parametrize(
  "arguments, match",
  [
    ((A[0], P, N), r"anchors must have shape \[B, D\], got \(5,\)"),
    ((A, P[:3], N), r"anchors and positives .* got \(11, 5\) and \(3, 5\)"),
    ((A, P, N[:, :4]), r"anchors and negatives .* \(11, 5\) and \(11, 4\)"),
    ((A, P.astype(int), N), "positives must be floating point"),
    ((A[:0], P[:0], N[:0]), "anchors must not be empty"),
    ((A, P, N, WEIGHTS[:4]), r"weights must .* got \(4,\) for \(11, 5\)"),
  ],
)
def test_bad_embeddings_are_refused(name, arguments, match):
  with pytest.raises(ValueError, match=match):
    LOSSES[name](*arguments)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", [n for n in LOSSES if n[0] != "s"])
def test_bad_margins_are_refused(name, margin):
  with pytest.raises(
    ValueError, match=f"margin must be positive, got {margin}"
  ):
    LOSSES[name](*INPUTS[name], margin=margin)
