"""Plausible mistakes in the losses of pairs."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from reference import losses as reference
from variants import Variants

from facesiam_jax import losses

_RNG = np.random.default_rng(0)
LOGITS = _RNG.normal(0, 3, 11).astype(np.float32)
DISTANCES = _RNG.uniform(0.05, 2.0, 11).astype(np.float32)
SAME = np.array([1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1], np.float32)
WEIGHTS = np.array([1, 0, 2, 1, 0.5, 1, 0, 1, 1, 1, 1], np.float32)
BETA = _RNG.uniform(0.8, 1.2, 11).astype(np.float32)
SETTINGS = {
  "binary_cross_entropy": {"pos_weight": 3.0},
  "contrastive": {"margin": 0.7},
  "margin_loss": {"margin": 0.3},
}
INPUTS = {
  "binary_cross_entropy": LOGITS,
  "contrastive": DISTANCES,
  "margin_loss": DISTANCES,
}


@functools.cache
def expected(name):
  """Values of all rows, masked ones too, and the gradient of the mean."""
  settings = dict(SETTINGS[name])
  if name == "margin_loss":
    settings["beta"] = BETA.astype(np.float64)
  function = lambda x: getattr(reference, name)(x, SAME, **settings)
  mean = lambda x: np.sum(function(x) * WEIGHTS) / np.sum(WEIGHTS)
  return function(INPUTS[name]), numeric.gradient(mean, INPUTS[name])


def call(name, loss, x, same=SAME, weights=WEIGHTS):
  settings = dict(SETTINGS[name])
  if name == "margin_loss":
    settings["beta"] = jnp.asarray(BETA)
  return loss(x, same, weights, **settings)


def check(name, loss):
  """Every row without weights; masked NaN; the gradient of the mean."""
  values, gradient = expected(name)
  assert len({*np.sign(values[SAME == 0])}) == 2 or name[0] == "b"
  actual = call(name, loss, jnp.asarray(INPUTS[name]), weights=None)
  np.testing.assert_allclose(actual[0], values, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(actual[1], np.ones(11))
  dirty = jnp.where(WEIGHTS > 0, INPUTS[name], jnp.nan)
  same = np.where(WEIGHTS > 0, SAME, 7.0)
  actual = call(name, loss, dirty, same)
  wanted = np.where(WEIGHTS > 0, values, 0.0)
  np.testing.assert_allclose(actual[0], wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(actual[1], WEIGHTS)
  found = jax.grad(lambda x: numeric.mean(call(name, loss, x, same)))(dirty)
  numeric.assert_gradients_close(found, gradient)


def pairs_loss(formula):
  """A loss of formula(x, same, ...), rightly masked."""

  def loss(x, same, weights=None, **settings):
    weights = jnp.ones(11) if weights is None else jnp.asarray(weights)
    valid = weights > 0
    x, same = jnp.where(valid, x, 1.0), jnp.where(valid, same, 0.0)
    return jnp.where(valid, formula(x, same, **settings), 0.0), weights

  return loss


def _changed(name, same=lambda y: y, **changes):
  right = getattr(losses, name)

  def loss(x, y, weights=None, **settings):
    for key, change in changes.items():
      settings[key] = change(settings[key])
    y = y if weights is None else np.where(np.asarray(weights) > 0, y, 0.0)
    return right(x, same(y), weights, **settings)

  return loss


def common(name):
  right = getattr(losses, name)

  def not_masked(x, same, weights=None, **settings):
    weights = jnp.ones(11) if weights is None else jnp.asarray(weights)
    same = jnp.where(weights > 0, same, 0.0)
    return right(x, same, **settings)[0], weights

  def masked_late(x, same, weights=None, **settings):
    values, weights = not_masked(x, same, weights, **settings)
    return jnp.where(weights > 0, values, 0.0), weights

  return {
    "flipped label": _changed(name, same=lambda y: 1 - y),
    "weights counted as one": lambda x, same, weights=None, **settings: (
      right(x, same, weights, **settings)[0],
      jnp.ones(11),
    ),
    "weights multiplied in": lambda x, same, weights=None, **settings: (
      right(x, same, weights, **settings)[0]
      * (1.0 if weights is None else weights),
      jnp.ones(11) if weights is None else weights,
    ),
    "mean for values": lambda x, same, weights=None, **settings: (
      jnp.full(11, numeric.mean(right(x, same, weights, **settings))),
      jnp.ones(11) if weights is None else weights,
    ),
    "padding not masked": not_masked,
    # A hinge passes no gradient back to NaN: for it this is no mistake.
    **({} if name == "margin_loss" else {"masked in the result": masked_late}),
  }


def _bce(z, y, *, pos_weight):
  return -pos_weight * y * jnp.log(jax.nn.sigmoid(z)) - (1 - y) * jnp.log(
    jax.nn.sigmoid(-z)
  )


def _contrastive(d, y, *, margin):
  return y * d**2 + (1 - y) * jnp.maximum(margin - d, 0) ** 2


def _margin(d, y, *, beta, margin):
  return jnp.maximum(margin + (2 * y - 1) * (d - beta), 0)


HONEST = {
  "binary_cross_entropy": pairs_loss(_bce),
  "contrastive": pairs_loss(_contrastive),
  "margin_loss": pairs_loss(_margin),
}
_WRONG = {
  "binary_cross_entropy": {
    "sign of the logits": lambda z, *args, **kwargs: (
      losses.binary_cross_entropy(-z, *args, **kwargs)
    ),
    "probabilities for logits": lambda z, *args, **kwargs: (
      losses.binary_cross_entropy(jax.nn.sigmoid(z), *args, **kwargs)
    ),
    "pos_weight on the negatives": pairs_loss(
      lambda z, y, pos_weight: _bce(-z, 1 - y, pos_weight=pos_weight)
    ),
    "pos_weight on both": pairs_loss(
      lambda z, y, pos_weight: pos_weight * _bce(z, y, pos_weight=1.0)
    ),
    "pos_weight forgotten": _changed(
      "binary_cross_entropy", pos_weight=lambda c: 1.0
    ),
    "positives only": pairs_loss(
      lambda z, y, pos_weight: y * _bce(z, y, pos_weight=pos_weight)
    ),
    "bits for nats": pairs_loss(
      lambda z, y, pos_weight: _bce(z, y, pos_weight=pos_weight) / jnp.log(2)
    ),
  },
  "contrastive": {
    "plain for squared": pairs_loss(
      lambda d, y, margin: y * d + (1 - y) * jnp.maximum(margin - d, 0)
    ),
    "squared distance in the hinge": pairs_loss(
      lambda d, y, margin: y * d**2 + (1 - y) * jnp.maximum(margin - d**2, 0)
    ),
    "half": pairs_loss(
      lambda d, y, margin: _contrastive(d, y, margin=margin) / 2
    ),
    "no hinge": pairs_loss(
      lambda d, y, margin: y * d**2 + (1 - y) * (margin - d) ** 2
    ),
    "margin for positives too": pairs_loss(
      lambda d, y, margin: _contrastive(
        jnp.where(y > 0, jnp.maximum(d - margin, 0), d), y, margin=margin
      )
    ),
    "margin doubled": _changed("contrastive", margin=lambda m: 2 * m),
  },
  "margin_loss": {
    "same in {0, 1} for a sign": pairs_loss(
      lambda d, y, beta, margin: jnp.maximum(margin + y * (d - beta), 0)
    ),
    "margin's sign": pairs_loss(
      lambda d, y, beta, margin: _margin(d, y, beta=beta, margin=-margin)
    ),
    "no hinge": pairs_loss(
      lambda d, y, beta, margin: margin + (2 * y - 1) * (d - beta)
    ),
    "squared distances": pairs_loss(
      lambda d, y, beta, margin: _margin(d**2, y, beta=beta, margin=margin)
    ),
    "beta of the first row": _changed("margin_loss", beta=lambda b: b[0]),
    "beta and margin swapped": pairs_loss(
      lambda d, y, beta, margin: _margin(d, y, beta=margin, margin=beta)
    ),
  },
}

VARIANTS = {
  f"losses.{name}": Variants(
    right=getattr(losses, name),
    check=functools.partial(check, name),
    wrong={**common(name), **wrong},
  )
  for name, wrong in _WRONG.items()
}
