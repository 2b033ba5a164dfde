"""Plausible mistakes in the softmax losses with a fixed margin."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from reference import margin_batch as batch
from reference import margin_softmax as reference
from variants import Variants

from facesiam_jax import losses


def angle(cosines):
  return jnp.arccos(jnp.clip(cosines, -1 + 1e-7, 1 - 1e-7))


def naive(
  psi,
  *,
  unit_rows=True,
  unit_centers=True,
  everywhere=False,
  scaled=True,
  masked=True,
  axis=1,
  inner=jnp.max,
  own_in_sum=True,
  obeys=True,
):
  """A margin softmax by log_softmax of the whole matrix; flaws on request."""

  def loss(
    x, w, labels, weights, *, scale=batch.SCALE, gradient="exact", **settings
  ):
    valid = jnp.asarray(weights) > 0
    x = jnp.where(valid[:, None], x, 0.0) if masked else jnp.asarray(x)
    norms = jnp.sqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-12)
    lengths = jnp.sqrt(jnp.sum(jnp.square(w), axis=-1, keepdims=True))
    x = x / norms if unit_rows else x
    w = w / lengths if unit_centers else jnp.asarray(w)
    cosines = jnp.einsum("bd,c...d->bc...", x, w, precision="highest")
    cosines = inner(cosines, axis=2) if cosines.ndim == 3 else cosines
    own = jax.nn.one_hot(labels, len(w), dtype=bool)
    changed = psi(cosines, norms, **settings)
    if obeys and gradient == "straight_through":
      changed = cosines + lax.stop_gradient(changed - cosines)
    factors = (norms if scale is None else scale) if scaled else 1.0
    logits = factors * jnp.where(own | everywhere, changed, cosines)
    shares = jax.nn.log_softmax(logits, axis=axis)
    if not own_in_sum:
      rest = jnp.where(own, -jnp.inf, logits)
      shares = logits - jax.nn.logsumexp(rest, axis=1, keepdims=True)
    values = -jnp.sum(jnp.where(own, shares, 0.0), axis=1)
    return jnp.where(valid, values, 0.0), jnp.asarray(weights)

  return loss


def plain(cosines, norms):
  return cosines - 0.35


def arc(cosines, norms, margin=0.5):
  angles = angle(cosines)
  past = cosines - margin * np.sin(margin)
  return jnp.where(angles <= np.pi - margin, jnp.cos(angles + margin), past)


def mixed(cosines, norms, m1=1.35, m2=0.3, m3=0.2):
  bend = (np.pi - m2) / m1
  drop = max(m2 * np.sin(m2), 1 + np.cos(bend))
  turned = jnp.cos(m1 * angle(cosines) + m2)
  return jnp.where(angle(cosines) <= bend, turned, cosines - drop) - m3


def sphere(cosines, norms, margin=4, annealing=0.5, *, sign=True, step=2.0):
  k = jnp.floor(lax.stop_gradient(angle(cosines)) * margin / np.pi)
  turned = jnp.cos(margin * angle(cosines))
  turned = (-1.0) ** k * turned if sign else turned
  return (annealing * cosines + turned - step * k) / (1 + annealing)


@functools.cache
def answers():
  """The float64 values and gradients, by loss."""
  by_cosine = lambda function: lambda c, length, row: function(c)
  exact = by_cosine(reference.arcface)
  mix = lambda c, length, row: reference.combined(c, 1.35, 0.3, 0.2)
  piece = lambda c, length, row: reference.sphereface(c, 4, 0.5)
  return {
    "cosface": batch.answer(by_cosine(reference.cosface)),
    "arcface": batch.answer(exact),
    "straight": batch.answer(exact, slope=batch.straight(exact)),
    "combined": batch.answer(mix),
    "sphereface": batch.answer(piece, scale=None),
    "sub": batch.answer(exact, batch.SUB_CENTERS),
  }


def check_cosface(loss):
  batch.assert_agrees(loss, answers()["cosface"])


def check_arcface(loss):
  batch.assert_agrees(loss, answers()["arcface"])
  batch.assert_agrees(loss, answers()["straight"], gradient="straight_through")


def check_combined(loss):
  settings = {"m1": 1.35, "m2": 0.3, "m3": 0.2}
  batch.assert_agrees(loss, answers()["combined"], **settings)


def check_sphereface(loss):
  batch.assert_agrees(
    loss, answers()["sphereface"], scale=None, margin=4, annealing=0.5
  )


def check_sub_center(loss):
  batch.assert_agrees(loss, answers()["sub"], batch.SUB_CENTERS)


# One logit is so large that e^z overflows; row 5 is padding.
LOGITS = np.random.default_rng(5).normal(size=(8, 7)).astype(np.float32)
LOGITS[2, 4] = 200.0
LOGITS[3, 3] = 60.0


def check_softmax_cross_entropy(loss):
  """Values (also of an easy row, 1e-25) and the gradient p - onehot."""
  dirty = batch.dirty(LOGITS)
  expected = reference.softmax_cross_entropy(
    LOGITS, batch.LABELS, batch.WEIGHTS
  )
  assert 0 < expected[3] < 1e-20
  values, weights = loss(dirty, batch.LABELS, batch.WEIGHTS)
  np.testing.assert_allclose(values, expected, rtol=2e-5)
  np.testing.assert_array_equal(weights, batch.WEIGHTS)
  found = jax.grad(lambda z: jnp.sum(loss(z, batch.LABELS, batch.WEIGHTS)[0]))(
    dirty
  )
  shares = np.exp(np.float64(LOGITS) - LOGITS.max(axis=1, keepdims=True))
  wanted = shares / shares.sum(axis=1, keepdims=True) - np.eye(7)[batch.LABELS]
  wanted = np.where(batch.WEIGHTS[:, None] > 0, wanted, 0.0)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def _cross_entropy(flaw):
  """The cross-entropy as log_softmax, with one flaw."""

  def loss(logits, labels, weights):
    valid = jnp.asarray(weights) > 0
    if flaw != "no mask":
      logits = jnp.where(valid[:, None], logits, 0.0)
    labels = labels - 1 if flaw == "labels from 1" else labels
    own = jax.nn.one_hot(labels, logits.shape[1], dtype=bool)
    axis = 0 if flaw == "over the batch" else 1
    shares = jax.nn.log_softmax(logits, axis=axis)
    if flaw == "softmax twice":
      shares = jax.nn.log_softmax(jnp.exp(shares), axis=1)
    if flaw == "no largest taken out":
      shares = logits - jnp.log(jnp.sum(jnp.exp(logits), 1, keepdims=True))
    values = -jnp.sum(jnp.where(own, shares, 0.0), axis=1)
    values = values / np.log(2) if flaw == "bits" else values
    return jnp.where(valid, values, 0.0), jnp.asarray(weights)

  return loss


STEPS = np.array([0.0, 1.0, 7.5, 100.0, 1e4, 1e9], np.float32)


def check_sphereface_annealing(schedule):
  for settings in (
    {},
    {"start": 50.0, "rate": 0.5, "power": 2.0, "least": 0.1},
  ):
    expected = [reference.annealing(float(s), **settings) for s in STEPS]
    np.testing.assert_allclose(schedule(STEPS, **settings), expected, rtol=1e-5)


def _schedule(formula):
  def schedule(step, start=1000.0, rate=0.12, power=1.0, least=5.0):
    return formula(step, start, rate, power, least)

  return schedule


_MANY = {
  "margin at every class": {"everywhere": True},
  "embeddings not normalised": {"unit_rows": False},
  "centres not normalised": {"unit_centers": False},
  "no scale": {"scaled": False},
  "padding not masked": {"masked": False},
  "softmax over the batch": {"axis": 0},
  "own class not in the sum": {"own_in_sum": False},
}


def _flawed(psi, *names):
  return {name: naive(psi, **_MANY[name]) for name in names or _MANY}


VARIANTS = {
  "losses.softmax_cross_entropy": Variants(
    losses.softmax_cross_entropy,
    check_softmax_cross_entropy,
    {
      flaw: _cross_entropy(flaw)
      for flaw in (
        "no mask",
        "labels from 1",
        "over the batch",
        "softmax twice",
        "no largest taken out",
        "bits",
        "digits lost where the loss is small",
      )
    },
  ),
  "losses.cosface": Variants(
    losses.cosface,
    check_cosface,
    {
      **_flawed(plain),
      "margin added": naive(lambda c, n: c + 0.35),
      "margin not scaled": naive(lambda c, n: c - 0.35 / batch.SCALE),
    },
  ),
  "losses.arcface": Variants(
    losses.arcface,
    check_arcface,
    {
      **_flawed(arc, "margin at every class", "padding not masked"),
      "margin subtracted": naive(lambda c, n: arc(c, n, -0.5)),
      "margin in degrees": naive(lambda c, n: arc(c, n, 0.5 * np.pi / 180)),
      "margin on the cosine": naive(lambda c, n: c - 0.5),
      "no bend": naive(lambda c, n: jnp.cos(angle(c) + 0.5)),
      "bend at 90 degrees": naive(lambda c, n: jnp.where(c > 0, arc(c, n), c)),
      "never straight through": naive(arc, obeys=False),
      "always straight through": naive(
        lambda c, n: c + lax.stop_gradient(arc(c, n) - c)
      ),
    },
  ),
  "losses.combined_margin": Variants(
    losses.combined_margin,
    check_combined,
    {
      **_flawed(mixed, "no scale", "centres not normalised"),
      "m1 left out": naive(lambda c, n, m1, **m: mixed(c, n, 1.0, **m)),
      "m3 added": naive(lambda c, n, m3, **m: mixed(c, n, **m, m3=-m3)),
      "m1 on the sum": naive(
        lambda c, n, m1, m2, m3: mixed(c, n, m1, m1 * m2, m3)
      ),
      "no bend": naive(
        lambda c, n, m1, m2, m3: jnp.cos(m1 * angle(c) + m2) - m3
      ),
      "rises at the bend": naive(
        lambda c, n, m1, m2, m3: jnp.where(
          m1 * angle(c) + m2 <= np.pi,
          jnp.cos(m1 * angle(c) + m2) - m3,
          c - m2 * np.sin(m2) - m3,
        )
      ),
    },
  ),
  "losses.sphereface": Variants(
    losses.sphereface,
    check_sphereface,
    {
      **_flawed(sphere, "margin at every class", "no scale"),
      "k left out": naive(functools.partial(sphere, sign=False, step=0.0)),
      "no sign": naive(functools.partial(sphere, sign=False)),
      "k once": naive(functools.partial(sphere, step=1.0)),
      "annealing the other way": naive(
        lambda c, n, margin, annealing: sphere(c, n, margin, 1 / annealing)
      ),
      "never annealed": naive(
        lambda c, n, margin, **a: sphere(c, n, margin, 0)
      ),
    },
  ),
  "losses.sphereface_annealing": Variants(
    losses.sphereface_annealing,
    check_sphereface_annealing,
    {
      "least for most": _schedule(
        lambda s, a, r, p, least: np.minimum(least, a * (1 + r * s) ** -p)
      ),
      "no least": _schedule(lambda s, a, r, p, least: a * (1 + r * s) ** -p),
      "rises": _schedule(
        lambda s, a, r, p, least: np.maximum(least, a * (1 + r * s) ** p)
      ),
      "no power": _schedule(
        lambda s, a, r, p, least: np.maximum(least, a / (1 + r * s))
      ),
      "exponential": _schedule(
        lambda s, a, r, p, least: np.maximum(least, a * np.exp(-r * s * p))
      ),
    },
  ),
  "losses.sub_center": Variants(
    losses.sub_center,
    check_sub_center,
    {
      **_flawed(arc, "margin at every class", "centres not normalised"),
      "mean of the centres": naive(arc, inner=jnp.mean),
      "farthest centre": naive(arc, inner=jnp.min),
      "first centre": naive(arc, inner=lambda c, axis: c[..., 0]),
      "no margin": naive(lambda c, n: c),
    },
  ),
}
