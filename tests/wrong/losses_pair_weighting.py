"""Plausible mistakes in the multi-similarity and circle losses."""

import functools

import jax
import jax.numpy as jnp
from reference import batch_losses, loss_batches
from variants import Variants

from facesiam_jax import losses
from wrong.losses_batchwise import build, changed, common, dots, sums

_SETTINGS = {
  "multi_similarity": {"alpha": 1.5, "beta": 7.0, "base": 0.3},
  "circle": {"margin": 0.2, "scale": 6.0},
}


def check(name, loss):
  reference = getattr(batch_losses, name)
  settings = _SETTINGS[name]
  loss_batches.check(loss, reference, held=name == "circle", **settings)
  mask = loss_batches.PAIR_MASK
  case = loss_batches.BATCHES["some padding, a lone image"]
  terms = case.give(loss, pair_mask=mask, **settings)
  loss_batches.assert_terms_close(
    terms, reference(*case, pair_mask=mask, **settings)
  )


def _kept(p, n, pair_mask):
  return (p, n) if pair_mask is None else (p & pair_mask, n & pair_mask)


def _log1p_sum(x, where, one=1.0):
  total = one + sums(jnp.exp(jnp.where(where, x, 0.0)), where)
  return jnp.log(jnp.where(total > 0, total, 1.0))


def _multi_similarity(
  s, p, n, *, alpha, beta, base, pair_mask=None, one=1.0, divide=True, **_
):
  p, n = _kept(p, n, pair_mask)
  pull = _log1p_sum(-alpha * (s - base), p, one)
  push = _log1p_sum(beta * (s - base), n, one)
  return pull / alpha + push / beta if divide else pull + push


def _circle(
  s,
  p,
  n,
  *,
  margin,
  scale,
  pair_mask=None,
  stop=True,
  hinge=True,
  weigh=True,
  delta=lambda margin: margin,
  product=True,
  **_,
):
  p, n = _kept(p, n, pair_mask)
  held = jax.lax.stop_gradient(s) if stop else s
  pull_weight, push_weight = 1 + margin - held, held + margin
  if hinge:
    pull_weight = jnp.maximum(pull_weight, 0.0)
    push_weight = jnp.maximum(push_weight, 0.0)
  if not weigh:
    pull_weight = push_weight = 1.0
  gap = delta(margin)
  pull = sums(jnp.exp(-scale * pull_weight * (s - (1 - gap))), p)
  push = sums(jnp.exp(scale * push_weight * (s - gap)), n)
  return jnp.log(1 + pull * push) if product else jnp.log(1 + pull + push)


def _ms(scores=None, present="any", **options):
  formula = functools.partial(_multi_similarity, **options)
  return build(formula, *([scores] if scores else []), present=present)


def _ci(scores=None, present="both", **options):
  formula = functools.partial(_circle, **options)
  return build(formula, *([scores] if scores else []), present=present)


def _outside(s, p, n, *, alpha, beta, base, pair_mask=None, **_):
  """1 + log sum exp, for log(1 + sum exp)."""
  p, n = _kept(p, n, pair_mask)
  pull = 1 + _log1p_sum(-alpha * (s - base), p, 0.0)
  push = 1 + _log1p_sum(beta * (s - base), n, 0.0)
  return pull / alpha + push / beta


def _ignoring_mask(name):
  right = getattr(losses, name)
  return lambda *args, pair_mask=None, **kwargs: right(*args, **kwargs)


def _swapped_signs(s, p, n, **settings):
  return _multi_similarity(s, n, p, **settings)


HONEST = {"multi_similarity": _ms(), "circle": _ci()}

_WRONG = {
  "multi_similarity": {
    "1 missing in the logarithm": _ms(one=0.0),
    "1 outside of the logarithm": build(_outside, present="any"),
    "not divided by alpha and beta": _ms(divide=False),
    "alpha and beta swapped": lambda *args, alpha, beta, **kwargs: (
      losses.multi_similarity(*args, alpha=beta, beta=alpha, **kwargs)
    ),
    "positives and negatives swapped": build(_swapped_signs, present="any"),
    "base forgotten": changed("multi_similarity", base=lambda _: 0.0),
    "base's sign": changed("multi_similarity", base=lambda x: -x),
    "not normalised": _ms(dots),
    "anchors without a positive left out": _ms(present="positives"),
    "mask ignored": _ignoring_mask("multi_similarity"),
  },
  "circle": {
    "gradient through the weights": _ci(stop=False),
    "weights not hinged": _ci(hinge=False),
    "weights forgotten": _ci(weigh=False),
    "margin's sign": _ci(delta=lambda margin: -margin),
    "margin of the weights forgotten": _ci(delta=lambda _: 0.0),
    "sum for product": _ci(product=False),
    "not normalised": _ci(dots),
    "anchors without a negative counted": _ci(present="positives"),
    "mask ignored": _ignoring_mask("circle"),
    "scale doubled": changed("circle", scale=lambda x: 2 * x),
  },
}
_LATE = {
  "multi_similarity": build(_multi_similarity, present="any", late=True),
  "circle": build(_circle, present="both", late=True),
}

VARIANTS = {
  f"losses.{name}": Variants(
    right=getattr(losses, name),
    check=functools.partial(check, name),
    wrong={**common(name, _LATE[name]), **wrong},
  )
  for name, wrong in _WRONG.items()
}
