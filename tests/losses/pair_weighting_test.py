"""Tests of multi-similarity and circle loss beside their loops."""

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference import batch_losses
from reference.loss_batches import (
  BATCHES,
  PAIR_MASK,
  ROWS,
  WEIGHTS,
  assert_terms_close,
)

from facesiam_jax import losses, mining, ops

CASE = BATCHES["some padding, a lone image"]
BOTH = (losses.multi_similarity, losses.circle)


@pytest.mark.parametrize("loss", BOTH)
def test_a_mask_of_all_pairs_is_none(loss):
  settings = {"scale": 5.0} if loss is losses.circle else {}
  expected = CASE.give(loss, **settings)
  for mask in (np.ones((8, 16), bool), np.ones((8, 16), np.float32)):
    actual = CASE.give(loss, pair_mask=mask, **settings)
    np.testing.assert_array_equal(actual[0], expected[0])


@pytest.mark.parametrize("loss", BOTH)
def test_anchors_without_mined_pairs_cost_nothing_but_count(loss):
  """The paper divides by the batch, not by what a miner has left."""
  values, weights = CASE.give(loss, pair_mask=PAIR_MASK)
  assert not PAIR_MASK[2].any() and WEIGHTS[ROWS[2]] == 1
  assert float(values[2]) == 0.0 and float(weights[2]) == 1.0
  np.testing.assert_array_equal(weights, CASE.give(loss)[1])


def test_mined_pairs_enter_as_one_mask():
  """Those that the paper's miner finds."""
  s = ops.pairwise_cosine_similarity(CASE.anchors, CASE.columns)
  mined = mining.multi_similarity(
    s,
    CASE.anchor_ids,
    CASE.column_ids,
    anchor_rows=CASE.anchor_rows,
    column_weights=CASE.column_weights,
  )
  mask = np.asarray(mined.positives | mined.negatives)
  assert 0 < mask.sum() < mask.size - 8
  actual = CASE.give(losses.multi_similarity, pair_mask=mask)
  expected = batch_losses.multi_similarity(
    *CASE, pair_mask=mask, alpha=2.0, beta=50.0, base=0.5
  )
  assert_terms_close(actual, expected)


@pytest.mark.parametrize("loss", BOTH)
def test_a_mask_of_another_shape_is_refused(loss):
  with pytest.raises(ValueError, match=r"pair_mask .* got \(16, 8\) for \(8,"):
    CASE.give(loss, pair_mask=PAIR_MASK.T)


def test_one_stands_inside_the_logarithm():
  """With one far negative the term is nearly 0, not nearly 1/beta."""
  x, ids = jnp.array([[1.0, 0.0], [-1.0, 0.0]]), jnp.arange(2)
  values, weights = jax.jit(
    lambda x: losses.multi_similarity(
      x, ids, x, ids, anchor_rows=jnp.arange(2), beta=20.0
    )
  )(x)
  expected = np.log1p(np.exp(20.0 * (-1.0 - 0.5))) / 20.0
  np.testing.assert_allclose(values, [expected] * 2, rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 1])


def test_circle_weights_pass_no_gradient():
  """One positive at s, one negative at 0: the derivative by hand."""
  s, margin, scale = 0.6, 0.25, 4.0
  y = jnp.array([[s, (1 - s**2) ** 0.5, 0.0], [0.0, 0.0, 1.0]])
  anchor = jnp.array([[1.0, 0.0, 0.0]])

  @jax.jit
  def value(columns):
    return losses.circle(
      anchor,
      jnp.array([3]),
      columns,
      jnp.array([3, 4]),
      anchor_rows=jnp.array([-1]),
      margin=margin,
      scale=scale,
    )[0][0]

  w_p, w_n = 1 + margin - s, margin
  z = scale * w_n * (0 - margin) - scale * w_p * (s - (1 - margin))
  share = 1 / (1 + np.exp(-z))
  np.testing.assert_allclose(value(y), np.log1p(np.exp(z)), rtol=1e-5)
  # d s / d y is the anchor without its part along y.
  tangent = np.array([1.0, 0.0, 0.0]) - s * np.asarray(y[0])
  by_hand = -share * scale * w_p * tangent
  numeric.assert_gradients_close(jax.grad(value)(y)[0], by_hand)


@pytest.mark.parametrize("scale", [256.0, 4096.0])
def test_circle_at_its_extremes_is_finite(scale):
  """A positive opposite and a negative on top: the largest exponents."""
  x, ids = (
    jnp.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]),
    jnp.array([0, 0, 1]),
  )
  value = lambda x: numeric.mean(
    losses.circle(x, ids, x, ids, anchor_rows=jnp.arange(3), scale=scale)
  )
  found, gradient = jax.jit(jax.value_and_grad(value))(x)
  assert np.isfinite(found) and np.all(np.isfinite(gradient))
  assert found > scale


def test_defaults():
  for loss, settings in (
    (losses.multi_similarity, {"alpha": 2.0, "beta": 50.0, "base": 0.5}),
    (losses.circle, {"margin": 0.25, "scale": 256.0}),
  ):
    np.testing.assert_array_equal(
      CASE.give(loss)[0], CASE.give(loss, **settings)[0]
    )


@pytest.mark.parametrize(
  "name, settings, match",
  [
    ("multi_similarity", {"alpha": 0.0}, "alpha must be positive, got 0.0"),
    ("multi_similarity", {"beta": -1.0}, "beta must be positive, got -1.0"),
    (
      "multi_similarity",
      {"base": 1.5},
      "base must be from -1.0 to 1.0, got 1.5",
    ),
    ("circle", {"margin": -0.1}, "margin must be from 0.0 to 1.0, got -0.1"),
    ("circle", {"margin": 1.1}, "margin must be from 0.0 to 1.0, got 1.1"),
    ("circle", {"scale": 0}, "scale must be positive, got 0"),
  ],
)
def test_bad_settings_are_refused(name, settings, match):
  with pytest.raises(ValueError, match=match):
    CASE.give(getattr(losses, name), **settings)
