"""Plausible mistakes in the proxy-anchor and centre losses."""

import functools

import jax
import jax.numpy as jnp
import numeric
import numpy as np
from reference import batch_losses, loss_batches
from reference import losses as reference
from variants import Variants

from facesiam_jax import losses
from wrong.losses_batchwise import cosines, dots, sums

_RNG = np.random.default_rng(3)
# Nobody of the batch is person 6.
PROXIES = _RNG.normal(size=(7, 5)).astype(np.float32)
PROXY_IDS = np.array([2, 0, 1, 5, 6, 4, 3], np.int32)
SETTINGS = {"scale": 3.0, "margin": 0.15}
COLUMNS, IDS, WEIGHTS = (
  loss_batches.COLUMNS,
  loss_batches.IDS,
  loss_batches.WEIGHTS,
)
RATE = 0.3
# The last person has a row, and person 5 a row of padding only.
CENTER_IDS = np.where(np.arange(16) == 13, 6, IDS).astype(np.int32)


def dirty(columns=COLUMNS):
  """The columns with NaN in padding."""
  return jnp.where(jnp.asarray(WEIGHTS)[:, None] > 0, columns, jnp.nan)


@functools.cache
def _expected_proxy_anchor():
  def loss(proxies, columns):
    return batch_losses.proxy_anchor(
      proxies, PROXY_IDS, columns, IDS, WEIGHTS, **SETTINGS
    )

  return (
    *loss(PROXIES, COLUMNS),
    numeric.gradient(lambda x: loss(x, COLUMNS)[0], PROXIES),
    numeric.gradient(lambda x: loss(PROXIES, x)[0], COLUMNS),
  )


def check_proxy_anchor(loss):
  """Values, the paper's mean, and both gradients."""

  def terms(proxies, columns, ids=PROXY_IDS, column_ids=IDS, weights=WEIGHTS):
    return loss(
      proxies, ids, columns, column_ids, column_weights=weights, **SETTINGS
    )

  total, values, wrt_proxies, wrt_columns = _expected_proxy_anchor()
  actual = terms(PROXIES, dirty())
  np.testing.assert_allclose(actual[0], values, rtol=2e-5, atol=2e-6)
  np.testing.assert_array_equal(actual[1], np.ones(7))
  np.testing.assert_allclose(numeric.mean(actual), total, rtol=2e-5)
  empty = terms(PROXIES, dirty() * jnp.nan, weights=np.zeros(16))
  np.testing.assert_array_equal(empty[0], np.zeros(7))
  gradients = jax.grad(lambda *x: numeric.mean(terms(*x)), argnums=(0, 1))(
    jnp.asarray(PROXIES), dirty()
  )
  numeric.assert_gradients_close(gradients[0], wrt_proxies)
  numeric.assert_gradients_close(gradients[1], wrt_columns)


def check_center(loss):
  expected = reference.center(COLUMNS, CENTER_IDS, PROXIES) * WEIGHTS
  values, weights = loss(dirty(), CENTER_IDS, PROXIES, WEIGHTS)
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  np.testing.assert_array_equal(weights, WEIGHTS)
  total = lambda x, c: numeric.mean(loss(x, CENTER_IDS, c, WEIGHTS))
  found = jax.grad(total, argnums=(0, 1))(dirty(), jnp.asarray(PROXIES))
  wanted = numeric.gradient(
    lambda x: np.sum(reference.center(x, CENTER_IDS, PROXIES) * WEIGHTS) / 14,
    COLUMNS,
  )
  numeric.assert_gradients_close(found[0], wanted)
  np.testing.assert_array_equal(found[1], np.zeros((7, 5)))


def check_update_centers(update):
  expected = reference.update_centers(
    PROXIES, COLUMNS, CENTER_IDS, WEIGHTS, RATE
  )
  actual = update(PROXIES, dirty(), CENTER_IDS, WEIGHTS, rate=RATE)
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
  moved = lambda x: jnp.sum(update(PROXIES, x, CENTER_IDS, WEIGHTS, rate=RATE))
  np.testing.assert_array_equal(jax.grad(moved)(dirty()), np.zeros((16, 5)))


def _proxy_anchor(
  proxies,
  proxy_ids,
  columns,
  column_ids,
  *,
  column_weights,
  scale,
  margin,
  scores=cosines,
  one=1.0,
  margins=(1.0, 1.0),
  present=True,
  clean=True,
):
  valid = jnp.asarray(column_weights) > 0
  x = jnp.where(valid[:, None], columns, 1.0) if clean else columns
  s = jnp.where(valid[None, :], scores(jnp.asarray(proxies), x), 0.0)
  same = jnp.asarray(proxy_ids)[:, None] == jnp.asarray(column_ids)[None, :]
  p, n = same & valid[None, :], ~same & valid[None, :]
  pull = one + sums(jnp.exp(-scale * (s - margins[0] * margin)), p)
  push = one + sums(jnp.exp(scale * (s + margins[1] * margin)), n)
  pull, push = (jnp.log(jnp.where(x > 0, x, 1.0)) for x in (pull, push))
  share = 1.0
  if present:
    share = 7 / jnp.maximum(jnp.sum(jnp.any(p, axis=1)), 1)
  return share * pull + push, jnp.ones(7)


def _present_proxies_only(*args, **kwargs):
  values, _ = losses.proxy_anchor(*args, **kwargs)
  seen = np.isin(PROXY_IDS, IDS[WEIGHTS > 0]).astype(np.float32)
  return values * seen, seen


def _both_divided_by_present(*args, **kwargs):
  values, weights = _proxy_anchor(*args, **kwargs, present=False)
  return values * 7 / 6, weights


def _nothing_present_divides_by_zero(*args, column_weights, **kwargs):
  values, weights = losses.proxy_anchor(
    *args, column_weights=column_weights, **kwargs
  )
  seen = jnp.sum(jnp.asarray(column_weights) > 0)
  return values + 0.0 / seen, weights


def _center(x, ids, centers, weights, *, square=True, half=True, stop=True):
  x = jnp.where(jnp.asarray(weights)[:, None] > 0, x, 0.0)
  c = jax.lax.stop_gradient(centers) if stop else jnp.asarray(centers)
  values = jnp.sum((x - c[ids]) ** 2, axis=1)
  values = values if square else jnp.sqrt(values)
  return weights * values * (0.5 if half else 1.0), jnp.asarray(weights)


def _update(
  centers, x, ids, weights, *, rate, sign=1.0, one=1.0, add=True, late=False
):
  x = jax.lax.stop_gradient(x)
  if not late:
    x = jnp.where(
      jnp.asarray(weights)[:, None] > 0, x, jnp.asarray(centers)[ids]
    )
  difference = x - jnp.asarray(centers)[ids]
  counts = jnp.zeros(7).at[ids].add(weights)
  steps = difference / (one + counts)[ids][:, None]
  total = jnp.zeros((7, 5)).at[ids]
  steps = total.add(steps) if add else total.set(steps)
  return centers + sign * rate * steps


def _not_divided(centers, x, ids, weights, *, rate):
  moved = losses.update_centers(centers, x, ids, weights, rate=rate)
  counts = jnp.zeros(7).at[ids].add(weights)
  return centers + (moved - centers) * (1 + counts)[:, None]


def _means(centers, x, ids, weights, *, rate):
  """An average that starts from zero: c (1 - rate) + rate sum / (1 + n)."""
  moved = losses.update_centers(
    jnp.zeros_like(centers), x, ids, weights, rate=rate
  )
  return (1 - rate) * centers + moved


def _with(function, **options):
  return functools.partial(function, **options)


HONEST = {
  "proxy_anchor": _proxy_anchor,
  "center": _center,
  "update_centers": _update,
}
_CHECKS = {
  "proxy_anchor": check_proxy_anchor,
  "center": check_center,
  "update_centers": check_update_centers,
}
_WRONG = {
  "proxy_anchor": {
    "both terms divided by all proxies": _with(_proxy_anchor, present=False),
    "both terms divided by those present": _both_divided_by_present,
    "absent proxies left out": _present_proxies_only,
    "division by no present proxy": _nothing_present_divides_by_zero,
    "1 missing in the logarithm": _with(_proxy_anchor, one=0.0),
    "not normalised": _with(_proxy_anchor, scores=dots),
    "margin's sign for positives": _with(_proxy_anchor, margins=(-1.0, 1.0)),
    "margin's sign for negatives": _with(_proxy_anchor, margins=(1.0, -1.0)),
    "padding masked in the scores": _with(_proxy_anchor, clean=False),
    "ids taken for places": lambda proxies, ids, *args, **kwargs: (
      losses.proxy_anchor(proxies, np.arange(7), *args, **kwargs)
    ),
  },
  "center": {
    "not squared": _with(_center, square=False),
    "half missing": _with(_center, half=False),
    "gradient to the centres": _with(_center, stop=False),
    "ids taken for rows": lambda x, ids, centers, weights: _center(
      x, np.arange(16) % 7, centers, weights
    ),
    "padding not masked": lambda x, ids, centers, weights: losses.center(
      x, ids, centers
    ),
    "masked in the result": lambda x, ids, centers, weights: (
      jnp.where(weights > 0, jnp.sum((x - centers[ids]) ** 2, 1) / 2, 0.0),
      weights,
    ),
  },
  "update_centers": {
    "away from the rows": _with(_update, sign=-1.0),
    "divided by n": _with(_update, one=0.0),
    "last duplicate wins": _with(_update, add=False),
    "padding not masked": _with(_update, late=True),
    "not divided": _not_divided,
    "forgets the old centres": _means,
    "rate ignored": lambda *args, rate: losses.update_centers(*args, rate=0.5),
  },
}

VARIANTS = {
  f"losses.{name}": Variants(
    right=getattr(losses, name), check=_CHECKS[name], wrong=wrong
  )
  for name, wrong in _WRONG.items()
}
