"""Plausible mistakes in the losses of triplets."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from reference import losses as reference
from variants import Variants

from facesiam_jax import losses

_RNG = np.random.default_rng(1)
NEAR = _RNG.uniform(0.05, 2.0, 11).astype(np.float32)
FAR = _RNG.uniform(0.05, 2.0, 11).astype(np.float32)
EMBEDDINGS = _RNG.normal(0, 0.8, size=(3, 11, 5)).astype(np.float32)
WEIGHTS = np.array([1, 0, 2, 1, 0.5, 1, 0, 1, 1, 1, 1], np.float32)
INPUTS = {
  "triplet_margin": np.stack([NEAR, FAR]),
  "soft_margin_triplet": np.stack([NEAR, FAR]),
  "csc413_as_written": EMBEDDINGS,
  "csc413_as_run": EMBEDDINGS,
}
SETTINGS = {
  "triplet_margin": {"margin": 0.3},
  "soft_margin_triplet": {},
  "csc413_as_written": {"margin": 0.6},
  "csc413_as_run": {"margin": 0.6},
}


@functools.cache
def expected(name):
  """Values of all rows, masked ones too, and the gradient of the mean."""
  function = lambda x: getattr(reference, name)(*x, **SETTINGS[name])
  mean = lambda x: np.sum(function(x) * WEIGHTS) / np.sum(WEIGHTS)
  return function(INPUTS[name]), numeric.gradient(mean, INPUTS[name])


def dirty(name):
  """The inputs with NaN in masked rows."""
  shape = (1, 11) + (1,) * (INPUTS[name].ndim - 2)
  return jnp.where(WEIGHTS.reshape(shape) > 0, INPUTS[name], jnp.nan)


def check(name, loss):
  """Every row without weights; masked NaN; the gradient of the mean."""
  settings = SETTINGS[name]
  values, gradient = expected(name)
  # Some triplets cost something and some do not (or are rewarded).
  assert name[0] == "s" or ((values > 0).any() and (values <= 0).any())
  actual = loss(*jnp.asarray(INPUTS[name]), **settings)
  np.testing.assert_allclose(actual[0], values, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(actual[1], np.ones(11))
  actual = loss(*dirty(name), WEIGHTS, **settings)
  wanted = np.where(WEIGHTS > 0, values, 0.0)
  np.testing.assert_allclose(actual[0], wanted, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(actual[1], WEIGHTS)
  mean = lambda x: numeric.mean(loss(*x, WEIGHTS, **settings))
  numeric.assert_gradients_close(jax.grad(mean)(dirty(name)), gradient)


def _masked(formula):
  """A loss of formula(arrays..., settings...), rightly masked."""
  count = formula.__code__.co_argcount

  def loss(*args, **settings):
    weights = jnp.asarray(args[count]) if len(args) > count else jnp.ones(11)
    shape = (11,) + (1,) * (args[0].ndim - 1)
    valid = (weights > 0).reshape(shape)
    # Different constants: the square root has no gradient at 0.
    rows = [jnp.where(valid, x, 0.5 + k) for k, x in enumerate(args[:count])]
    return jnp.where(weights > 0, formula(*rows, **settings), 0.0), weights

  return loss


def _margin(p, n, *, margin):
  return jnp.maximum(p - n + margin, 0)


def _soft(p, n):
  return jnp.log(1 + jnp.exp(p - n))


def _unit(x):
  return x / jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True))


def _sq(x, y, axis=1):
  return jnp.sum((x - y) ** 2, axis=axis)


def _written(a, p, n, *, margin):
  a, p, n = _unit(a), _unit(p), _unit(n)
  return _sq(a, p) - _sq(a, n) + margin


def _run(a, p, n, *, margin):
  return _margin(jnp.sqrt(_sq(a, p)), jnp.sqrt(_sq(a, n)), margin=margin)


def _unscaled(a, p, n, *, margin):
  return _sq(a, p) - _sq(a, n) + margin


def _hinged(a, p, n, *, margin):
  return jnp.maximum(_written(a, p, n, margin=margin), 0)


def _plain(a, p, n, *, margin):
  a, p, n = _unit(a), _unit(p), _unit(n)
  return jnp.sqrt(_sq(a, p)) - jnp.sqrt(_sq(a, n)) + margin


def _scaled(a, p, n, *, margin):
  return _run(_unit(a), _unit(p), _unit(n), margin=margin)


def _squared(a, p, n, *, margin):
  return _margin(_sq(a, p), _sq(a, n), margin=margin)


def _unhinged(a, p, n, *, margin):
  return jnp.sqrt(_sq(a, p)) - jnp.sqrt(_sq(a, n)) + margin


def _manhattan(a, p, n, *, margin):
  far = jnp.sum(jnp.abs(a - n), axis=1)
  return _margin(jnp.sum(jnp.abs(a - p), axis=1), far, margin=margin)


def _mean_axis(a, p, n, *, margin):
  near, far = jnp.mean((a - p) ** 2, 1), jnp.mean((a - n) ** 2, 1)
  return _margin(jnp.sqrt(near), jnp.sqrt(far), margin=margin)


def _from_positive(formula):
  """The negative's distance from the positive, not from the anchor."""

  def wrong(a, p, n, *, margin):
    return formula(p, a, n, margin=margin)

  return wrong


def common(name, count):
  right, settings = getattr(losses, name), SETTINGS[name]

  def swapped(*args, **kwargs):
    return right(*args[: count - 2], args[count - 1], args[count - 2],
                 *args[count:], **kwargs)  # fmt: skip

  def not_masked(*args, **kwargs):
    weights = jnp.ones(11) if len(args) == count else args[count]
    return right(*args[:count], **kwargs)[0], weights

  def masked_late(*args, **kwargs):
    values, weights = not_masked(*args, **kwargs)
    return jnp.where(jnp.asarray(weights) > 0, values, 0.0), weights

  def active_only(*args, **kwargs):
    values, weights = right(*args, **kwargs)
    return values, weights * (values > 0.5)

  def sum_for_values(*args, **kwargs):
    values, weights = right(*args, **kwargs)
    return jnp.full(11, jnp.sum(values)), weights

  def constant(*args, **kwargs):
    values, weights = right(*args, **kwargs)
    return jnp.full(11, settings.get("margin", 0.6931)), weights

  return {
    "swapped roles": swapped,
    "padding not masked": not_masked,
    # A hinge passes no gradient back to NaN: for it this is no mistake.
    **(
      {} if name == "triplet_margin" else {"masked in the result": masked_late}
    ),
    "weights of active triplets only": active_only,
    "sum over the batch": sum_for_values,
    "a constant": constant,
  }


HONEST = {
  "triplet_margin": _masked(_margin),
  "soft_margin_triplet": _masked(_soft),
  "csc413_as_written": _masked(_written),
  "csc413_as_run": _masked(_run),
}
_WRONG = {
  "triplet_margin": {
    "squared": _masked(
      lambda p, n, *, margin: _margin(p**2, n**2, margin=margin)
    ),
    "margin's sign": _masked(
      lambda p, n, *, margin: _margin(p, n, margin=-margin)
    ),
    "no hinge": _masked(lambda p, n, *, margin: p - n + margin),
    "hinge before the margin": _masked(
      lambda p, n, *, margin: jnp.maximum(p - n, 0) + margin
    ),
    "margin forgotten": _masked(lambda p, n, *, margin: jnp.maximum(p - n, 0)),
    "soft": _masked(lambda p, n, *, margin: _soft(p, n)),
  },
  "soft_margin_triplet": {
    "squared": _masked(lambda p, n: _soft(p**2, n**2)),
    "hinge": _masked(lambda p, n: jnp.maximum(p - n, 0)),
    "1 missing": _masked(lambda p, n: p - n),
    "bits for nats": _masked(lambda p, n: _soft(p, n) / jnp.log(2)),
    "with a margin": _masked(lambda p, n: _soft(p + 0.2, n)),
  },
  "csc413_as_written": {
    "not scaled to 1": _masked(_unscaled),
    "hinge": _masked(_hinged),
    "not squared": _masked(_plain),
    "margin's sign": _masked(
      lambda a, p, n, *, margin: _written(a, p, n, margin=-margin)
    ),
    "negative from the positive": _masked(_from_positive(_written)),
    "as run": _masked(_run),
  },
  "csc413_as_run": {
    "scaled to 1": _masked(_scaled),
    "squared": _masked(_squared),
    "no hinge": _masked(_unhinged),
    "city block": _masked(_manhattan),
    "mean over the width": _masked(_mean_axis),
    "negative from the positive": _masked(_from_positive(_run)),
    "as written": _masked(_written),
  },
}

VARIANTS = {
  f"losses.{name}": Variants(
    right=getattr(losses, name),
    check=functools.partial(check, name),
    wrong={**common(name, 3 if name.startswith("csc") else 2), **wrong},
  )
  for name, wrong in _WRONG.items()
}
