"""Plausible mistakes in the losses whose margin depends on the example."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from reference import margin_batch as batch
from reference import margin_softmax as reference
from variants import Variants

from facesiam_jax import losses
from wrong.margin_softmax import angle, arc, naive

STATISTICS = losses.NormStatistics(np.float32(20.0), np.float32(15.0))
# Large enough that z reaches both of its ends.
CONCENTRATION = 0.9


def ada(cosines, norms, *, limit=1.0, clip=True, sign=1.0, stop=True, **given):
  """AdaFace's margin by arccos; flaws on request."""
  mean, std = given.get("statistics", STATISTICS)
  norms = lax.stop_gradient(norms) if stop else norms
  norms = jnp.clip(norms, 0.001, 100.0)
  z = CONCENTRATION * (norms - mean) / (std + 1e-3)
  z = sign * jnp.clip(z, -limit, limit)
  turned = angle(cosines) - 0.4 * z
  turned = jnp.clip(turned, 1e-3, np.pi - 1e-3) if clip else turned
  return jnp.cos(turned) - (0.4 + 0.4 * z)


def of_the_batch(cosines, norms, **given):
  norms = jnp.clip(lax.stop_gradient(norms), 0.001, 100.0)
  return ada(cosines, norms, statistics=(jnp.mean(norms), jnp.std(norms)))


def _ada(**flaws):
  return naive(lambda c, n, **given: ada(c, n, **flaws))


def mag(cosines, norms, *, low=0.45, high=0.8, stop=False, clip=True):
  """MagFace's margin; flaws on request."""
  norms = lax.stop_gradient(norms) if stop else norms
  sizes = jnp.clip(norms, 10.0, 110.0) if clip else norms
  return arc(cosines, norms, low + (high - low) * (sizes - 10) / 100)


def _mag(penalty, **flaws):
  plain = naive(functools.partial(mag, **flaws))

  def loss(x, w, labels, weights, **settings):
    values, weights = plain(x, w, labels, weights, **settings)
    x = jnp.where(weights[:, None] > 0, x, 1.0)
    sizes = jnp.clip(jnp.linalg.norm(x, axis=1), 10.0, 110.0)
    return jnp.where(weights > 0, values + penalty(sizes), 0.0), weights

  return loss


def arc_array(cosines, margin):
  past = cosines - margin * jnp.sin(margin)
  turned = jnp.cos(angle(cosines) + margin)
  return jnp.where(angle(cosines) <= np.pi - margin, turned, past)


KEY = jax.random.key(4)
ROWS = np.arange(8, dtype=np.int32) + 16
STD = 0.2


@functools.cache
def drawn(mean):
  """The margins that rows ROWS draw."""
  draw = lambda row: jax.random.normal(jax.random.fold_in(KEY, row))
  normal = [float(draw(row)) for row in ROWS]
  return [max(0.0, mean + STD * z) for z in normal]


@functools.cache
def answers():
  """The float64 values and gradients, by loss."""
  lengths = batch.LENGTHS
  ada_psi = lambda c, length, row: reference.adaface(
    c, lengths[row], 20.0, 15.0, concentration=CONCENTRATION
  )
  mag_psi = lambda c, length, row: reference.magface(c, length)
  arcs, cosines = drawn(0.5), drawn(0.35)
  dealt = reference.deal_by_difficulty(
    cosines, batch.own_cosines(), batch.WEIGHTS
  )
  return {
    "adaface": batch.answer(ada_psi),
    "magface": batch.answer(mag_psi, penalty=reference.magface_penalty),
    "elastic": batch.answer(
      lambda c, length, row: reference.arcface(c, arcs[row])
    ),
    "plus": batch.answer(lambda c, length, row: c - dealt[row]),
  }


def check_adaface(loss):
  batch.assert_agrees(
    loss,
    answers()["adaface"],
    statistics=STATISTICS,
    concentration=CONCENTRATION,
  )


def check_magface(loss):
  batch.assert_agrees(loss, answers()["magface"])


def check_elasticface(loss):
  settings = {"key": KEY, "rows": ROWS, "std": STD}
  batch.assert_agrees(loss, answers()["elastic"], **settings)
  batch.assert_agrees(
    loss, answers()["plus"], kind="cos", plus=True, **settings
  )


def _elastic(draw, deal=reference.deal_by_difficulty, spread=STD):
  """ElasticFace with its own draw (key, rows) and its own dealing."""

  def loss(
    x,
    w,
    labels,
    weights,
    *,
    key,
    rows,
    std,
    kind="arc",
    plus=False,
    scale=batch.SCALE,
  ):
    mean = 0.5 if kind == "arc" else 0.35
    margins = np.maximum(0.0, mean + spread * np.asarray(draw(key, rows)))
    if plus:
      margins = deal(margins, batch.own_cosines(), weights)
    margins = jnp.asarray(margins, jnp.float32)[:, None]
    psi = lambda c, n: arc_array(c, margins) if kind == "arc" else c - margins
    return naive(psi)(x, w, labels, weights, scale=scale)

  return loss


def _by_row(key, rows):
  return [jax.random.normal(jax.random.fold_in(key, row)) for row in rows]


def _authors_dealing(margins, cosines, weights):
  """Indexes by the sorting permutation where its inverse is wanted."""
  valid = np.flatnonzero(weights)
  order = valid[np.argsort(-np.asarray(cosines)[valid])]
  dealt = np.array(margins)
  ranks = np.searchsorted(valid, order)
  dealt[valid] = np.sort(dealt[valid])[ranks]
  return dealt


def _with_padding(margins, cosines, weights):
  return reference.deal_by_difficulty(margins, cosines, np.ones(8))


def _easy_first(margins, cosines, weights):
  return reference.deal_by_difficulty(margins, [-c for c in cosines], weights)


def check_update_norm_statistics(update):
  """Padding, clipping, one row, none; and again from what it returned."""
  lone = np.eye(8, dtype=np.float32)[0]
  for weights in (batch.WEIGHTS, lone, np.zeros(8, np.float32)):
    state, expected = losses.NormStatistics(), (20.0, 100.0)
    for rate in (0.01, 0.5, 1.0):
      state = update(state, batch.dirty(), weights, rate=rate)
      expected = reference.norm_statistics(
        *expected, batch.EMBEDDINGS, weights, rate
      )
      np.testing.assert_allclose(state, expected, rtol=1e-5)


def _statistics(
  formula=lambda old, new, rate: old + rate * (new - old),
  ddof=1,
  largest=100.0,
  masked=True,
  spread=np.std,
  lone=True,
):
  """The update in NumPy; flaws on request."""

  def update(state, embeddings, weights, *, rate):
    x = np.float64(embeddings)
    x = x[weights > 0] if masked else np.nan_to_num(x)
    norms = np.clip(np.linalg.norm(x, axis=1), 0.001, largest)
    if not len(norms):
      return state
    mean = formula(float(state.mean), norms.mean(), rate)
    if lone and len(norms) < 2:
      return losses.NormStatistics(mean, state.std)
    with np.errstate(all="ignore"):
      # NumPy warns of n - 1 = 0, which is the mistake.
      std = spread(norms, ddof=ddof) if len(norms) > 1 else np.nan
    return losses.NormStatistics(mean, formula(float(state.std), std, rate))

  return update


_PENALTY = lambda a: 35.0 * (1 / a + a / 110.0**2)

VARIANTS = {
  "losses.adaface": Variants(
    losses.adaface,
    check_adaface,
    {
      "z the other way": _ada(sign=-1.0),
      "z not clipped": _ada(limit=np.inf),
      "angle not clipped": _ada(clip=False),
      "gradient through the norm": _ada(stop=False),
      "statistics of the batch": naive(of_the_batch),
      "statistics that start": naive(
        lambda c, n, **given: ada(c, n, statistics=(20.0, 100.0))
      ),
      "no margin on the cosine": naive(lambda c, n, **given: ada(c, n) + 0.4),
    },
  ),
  "losses.magface": Variants(
    losses.magface,
    check_magface,
    {
      "no regularizer": _mag(lambda a: 0.0),
      "regularizer without its weight": _mag(lambda a: _PENALTY(a) / 35.0),
      "regularizer that shortens": _mag(lambda a: 35.0 * (a / 110.0**2 + a)),
      "margin that shrinks": _mag(_PENALTY, low=0.8, high=0.45),
      "no gradient through the norm": _mag(_PENALTY, stop=True),
      "norm not clipped": _mag(_PENALTY, clip=False),
      "one margin": _mag(_PENALTY, high=0.45),
    },
  ),
  "losses.elasticface": Variants(
    losses.elasticface,
    check_elasticface,
    {
      "one margin for all": _elastic(
        lambda key, rows: [_by_row(key, rows[:1])[0]] * 8
      ),
      "drawn by place on the device": _elastic(
        lambda key, rows: _by_row(key, range(8))
      ),
      "drawn by array": _elastic(
        lambda key, rows: jax.random.normal(key, (8,))
      ),
      "variance for deviation": _elastic(_by_row, spread=STD**2),
      "no deviation": _elastic(_by_row, spread=0.0),
      "not sorted": _elastic(_by_row, lambda m, c, w: m),
      "largest margin to the easiest": _elastic(_by_row, _easy_first),
      "the authors' dealing": _elastic(_by_row, _authors_dealing),
      "padding is dealt to": _elastic(_by_row, _with_padding),
    },
  ),
  "losses.update_norm_statistics": Variants(
    losses.update_norm_statistics,
    check_update_norm_statistics,
    {
      "n in the denominator": _statistics(ddof=0),
      "norm not clipped": _statistics(largest=np.inf),
      "padding counted": _statistics(masked=False),
      "rate of the old": _statistics(
        lambda old, new, rate: new + rate * (old - new)
      ),
      "variance": _statistics(spread=np.var),
      "no care of a lone row": _statistics(lone=False),
      "batch alone": _statistics(lambda old, new, rate: new),
    },
  ),
}
