"""Tests of the losses of pairs beside their loops and wrong variants."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from reference import losses as reference
from wrong.losses_pairwise import (
  BETA,
  DISTANCES,
  HONEST,
  INPUTS,
  LOGITS,
  SAME,
  VARIANTS,
  WEIGHTS,
  call,
)

from facesiam_jax import losses, ops

LOSSES = {name: getattr(losses, name) for name in INPUTS}
each_loss = pytest.mark.parametrize("name", list(LOSSES))


@functools.cache
def _jitted(name):
  """(values, weights) and the gradient of their mean, compiled once."""

  def run(x, same, weights):
    def mean(x):
      terms = call(name, LOSSES[name], x, same, weights)
      return numeric.mean(terms), terms

    gradient, terms = jax.grad(mean, has_aux=True)(x)
    return *terms, gradient

  return jax.jit(run)


def _run(name, x=None, same=SAME, weights=WEIGHTS):
  x = INPUTS[name] if x is None else x
  return [np.asarray(y) for y in _jitted(name)(x, same, weights)]


@each_loss
def test_mistakes_are_refused_for_what_they_are(name):
  """The right formula passes where the wrong ones are built and refused."""
  honest = jax.jit(HONEST[name])
  VARIANTS[f"losses.{name}"].check(honest)


@pytest.mark.parametrize("logit", [-1e4, -90.0, 20.0, 1e4])
@pytest.mark.parametrize("same", [0, 1])
def test_binary_cross_entropy_cannot_overflow(logit, same):
  """sigmoid(-90) is 0 and 1 - sigmoid(20) is 0 in float32."""
  x = np.full(11, logit, np.float32)
  y = np.full(11, same, np.float32)
  values, _, gradient = _run("binary_cross_entropy", x, y, np.ones(11))
  scale = 3.0 if same else 1.0
  expected = scale * (max(logit, 0.0) - logit * same)
  np.testing.assert_allclose(values, np.full(11, expected), atol=1e-5)
  wanted = np.full(11, scale * ((logit > 0) - same) / 11)
  np.testing.assert_allclose(gradient, wanted, atol=1e-6)


def test_small_losses_keep_their_digits():
  """log1p(exp(-30)), where log(1 + exp(-30)) would be 0."""
  values, _ = losses.binary_cross_entropy(jnp.array([30.0]), jnp.array([1]))
  np.testing.assert_allclose(values, [np.log1p(np.exp(-30.0))], rtol=1e-5)


def test_soft_labels_lie_between():
  soft = np.linspace(0, 1, 11).astype(np.float32)
  values, _ = losses.binary_cross_entropy(LOGITS, soft, pos_weight=2.0)
  expected = reference.binary_cross_entropy(LOGITS, soft, 2.0)
  np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_pos_weight_balances_the_sides():
  """Five pairs of one person, six of two: equal logits, equal sums."""
  zeros = jnp.zeros(11)
  values, _ = losses.binary_cross_entropy(zeros, SAME, pos_weight=6 / 5)
  same = SAME == 1
  np.testing.assert_allclose(
    np.sum(values[same]), np.sum(values[~same]), rtol=1e-6
  )


def test_contrastive_truth_table():
  values, _ = losses.contrastive(
    jnp.array([0.0, 0.9, 0.0, 0.3, 0.5, 0.9]),
    jnp.array([1, 1, 0, 0, 0, 0]),
    margin=0.5,
  )
  np.testing.assert_allclose(values, [0, 0.81, 0.25, 0.04, 0, 0], atol=1e-7)


def test_contrastive_of_equal_rows_is_margin_squared_and_finite():
  x = jnp.ones((2, 3))
  same = jnp.array([1, 0])

  def mean(y):
    distances = ops.euclidean_distance(x, y)
    return numeric.mean(losses.contrastive(distances, same, margin=0.5))

  value, gradient = jax.jit(jax.value_and_grad(mean))(x)
  np.testing.assert_allclose(value, 0.25 / 2, rtol=1e-6)
  np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_margin_loss_teaches_its_boundary():
  """Each costly pair moves beta by -1 or +1, masked ones by nothing."""

  def mean(beta):
    terms = losses.margin_loss(DISTANCES, SAME, WEIGHTS, beta=beta, margin=0.3)
    return numeric.mean(terms)

  costly = reference.margin_loss(DISTANCES, SAME, BETA, 0.3) > 0
  expected = np.where(SAME == 1, -1.0, 1.0) * costly * WEIGHTS / sum(WEIGHTS)
  assert costly.any() and not costly.all()
  np.testing.assert_allclose(jax.grad(mean)(BETA), expected, rtol=1e-6)
  dirty = jnp.where(WEIGHTS > 0, BETA, jnp.nan)
  np.testing.assert_allclose(jax.grad(mean)(dirty), expected, rtol=1e-6)
  scalar = reference.margin_loss(DISTANCES, SAME, np.full(11, 1.2), 0.2)
  actual, _ = losses.margin_loss(DISTANCES, SAME)
  np.testing.assert_allclose(actual, scalar, rtol=1e-5, atol=1e-6)


def test_margin_loss_is_dlibs_with_its_numbers():
  """max(0, d - 0.6 + 0.04) for one person, max(0, 0.6 - d + 0.04) for two."""
  d = jnp.array([0.5, 0.58, 0.7, 0.5, 0.63, 0.7])
  same = jnp.array([1, 1, 1, 0, 0, 0])
  values, _ = losses.margin_loss(d, same, beta=0.6, margin=0.04)
  expected = [0, 0.02, 0.14, 0.14, 0.01, 0]
  np.testing.assert_allclose(values, expected, atol=1e-6)


def test_defaults():
  for name, settings in (
    ("binary_cross_entropy", {"pos_weight": 1.0}),
    ("contrastive", {"margin": 1.0}),
    ("margin_loss", {"beta": 1.2, "margin": 0.2}),
  ):
    x = INPUTS[name]
    expected = LOSSES[name](x, SAME, **settings)[0]
    np.testing.assert_array_equal(LOSSES[name](x, SAME)[0], expected)


@each_loss
def test_masked_rows_hold_anything(name):
  values, weights, gradient = _run(name)
  for filling in (np.nan, np.inf, -1e30):
    dirty = np.where(WEIGHTS > 0, INPUTS[name], np.float32(filling))
    same = np.where(WEIGHTS > 0, SAME, np.float32(filling))
    actual = _run(name, dirty, same)
    for x, y in zip(actual, (values, weights, gradient), strict=True):
      np.testing.assert_array_equal(x, y)
  masked = WEIGHTS == 0
  assert not np.any(values[masked]) and not np.any(gradient[masked])


@each_loss
def test_all_masked_is_zero_and_nan_is_not_hidden(name):
  values, weights, gradient = _run(
    name, np.full(11, np.nan, np.float32), weights=np.zeros(11, np.float32)
  )
  assert not np.any(values) and not np.any(weights) and not np.any(gradient)
  dirty = np.where(np.arange(11) == 3, np.float32(np.nan), INPUTS[name])
  values, _, _ = _run(name, dirty)
  np.testing.assert_array_equal(np.isnan(values), np.arange(11) == 3)


@each_loss
def test_rows_are_independent(name):
  values, _, gradient = _run(name)
  order = np.arange(11)[::-1]
  settings = {"beta": BETA[order]} if name == "margin_loss" else {}
  loss = functools.partial(LOSSES[name], **settings)
  actual, _ = call(
    name,
    lambda x, same, weights, **rest: loss(
      x, same, weights, **{**rest, **settings}
    ),
    INPUTS[name][order],
    SAME[order],
    WEIGHTS[order],
  )
  np.testing.assert_allclose(actual, values[order], rtol=1e-6)


@each_loss
def test_jit_vmap_and_short_floats_agree(name):
  short = jnp.asarray(INPUTS[name]).astype(jnp.bfloat16)
  plain = call(name, LOSSES[name], short.astype(jnp.float32))
  cast = call(name, LOSSES[name], short)
  mapped = jax.vmap(lambda x: call(name, LOSSES[name], x))(
    jnp.stack([short, short])
  )
  np.testing.assert_array_equal(cast[0], plain[0])
  np.testing.assert_allclose(mapped[0][1], plain[0], rtol=1e-6)
  compiled = _run(name, np.asarray(short.astype(jnp.float32)))
  np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-6)
  assert cast[0].dtype == cast[1].dtype == jnp.float32


@each_loss
@pytest.mark.parametrize(
  "x, same, weights, match",
  [
    (LOGITS, SAME[:3], None, r"same and .* got \(3,\) and \(11,\)"),
    (LOGITS, SAME[:, None], None, r"same and .* got \(11, 1\) and \(11,\)"),
    (LOGITS[:, None], SAME, None, r"must have shape \[B\], got \(11, 1\)"),
    (LOGITS[:0], SAME[:0], None, r"must not be empty, got shape \(0,\)"),
    (SAME.astype(int), SAME, None, "must be floating point, got dtype int32"),
    (LOGITS, SAME, WEIGHTS[:4], r"weights must .* got \(4,\) for \(11,\)"),
    (LOGITS, SAME * 2, None, "same must be from 0 to 1, got 2.0"),
    (LOGITS, jnp.asarray(SAME) - 1, WEIGHTS, "same must be .* got -1.0"),
    (LOGITS, SAME * np.nan, None, "same must be from 0 to 1, got nan"),
  ],
)
def test_bad_arguments_are_refused(name, x, same, weights, match):
  with pytest.raises(ValueError, match=match):
    LOSSES[name](x, same, weights)


@pytest.mark.parametrize(
  "name, settings, match",
  [
    (
      "binary_cross_entropy",
      {"pos_weight": 0.0},
      "pos_weight must be positive",
    ),
    ("contrastive", {"margin": 0.0}, "margin must be positive, got 0.0"),
    ("margin_loss", {"margin": -1.0}, "margin must be positive, got -1.0"),
    (
      "margin_loss",
      {"beta": BETA[:4]},
      r"beta and distances .* got \(4,\) and",
    ),
  ],
)
def test_bad_settings_are_refused(name, settings, match):
  with pytest.raises(ValueError, match=match):
    LOSSES[name](DISTANCES, SAME, **settings)
