"""One batch that takes every margin-softmax loss through all its branches.

Eight rows of width 5, seven classes, and the float64 answer for it. Row 5 is
padding: its label is no class and its embedding NaN where a loss sees it.
Class 5 has nobody.
"""

import jax
import jax.numpy as jnp
import numeric
import numpy as np

from reference import margin_softmax as reference

SCALE = 8.0
_RNG = np.random.default_rng(11)
# Of the embedding and its own centre: nearly 0, nearly pi, and between.
ANGLES = np.array([0.04, 2.95, 0.9, 1.7, 1.2, 0.5, 2.3, 1.0])
# Below, inside and above MagFace's limits of 10 and 110.
NORMS = np.array([60.0, 0.5, 20.0, 130.0, 12.0, 1.0, 35.0, 9.0])
LABELS = np.array([0, 1, 2, 3, 3, -1, 4, 6], np.int32)
WEIGHTS = np.array([1, 1, 2, 1, 1, 0, 1, 1], np.float32)
_LENGTHS = np.array([[1.0], [0.2], [3.0], [0.5], [2.0], [7.0], [1.0]])
CENTERS = (_LENGTHS * _RNG.normal(size=(7, 5))).astype(np.float32)
SUB_CENTERS = _RNG.normal(size=(7, 3, 5)).astype(np.float32)


def turned(center, angle, length):
  """A vector of that length at that angle from the centre."""
  towards = center / np.linalg.norm(center)
  aside = _RNG.normal(size=len(center))
  aside -= aside @ towards * towards
  aside /= np.linalg.norm(aside)
  return length * (np.cos(angle) * towards + np.sin(angle) * aside)


EMBEDDINGS = np.stack(
  [
    turned(np.float64(CENTERS[label]), angle, length)
    for label, angle, length in zip(LABELS, ANGLES, NORMS, strict=True)
  ]
).astype(np.float32)
LENGTHS = [reference.norm(row) for row in EMBEDDINGS]


def dirty(embeddings=EMBEDDINGS):
  """The embeddings with NaN in padding."""
  return jnp.where(WEIGHTS[:, None] > 0, embeddings, jnp.nan)


def own_cosines(centers=CENTERS):
  """The cosine of each row to its own class; 0 for padding."""
  return [
    reference.nearest(row, centers[label]) if label >= 0 else 0.0
    for row, label in zip(EMBEDDINGS, LABELS, strict=True)
  ]


def straight(psi, centers=CENTERS):
  """The margin whose slope is 1 and whose value is that of psi here."""
  shift = [
    psi(c, n, i) - c
    for i, (c, n) in enumerate(zip(own_cosines(centers), LENGTHS, strict=True))
  ]
  return lambda c, length, row: c + shift[row]


def answer(psi, centers=CENTERS, *, scale=SCALE, penalty=None, slope=None):
  """(values, gradient by embeddings, gradient by centres) in float64.

  Args:
    psi: (own cosine, norm, row number) -> psi.
    centers: [C, D] or [C, K, D].
    scale: s or None.
    penalty: norm -> what is added to each value, or None.
    slope: another psi to differentiate, or None for the same.
  """

  def losses(embeddings, centers, psi):
    values = reference.losses(
      embeddings, centers, LABELS, WEIGHTS, psi, scale=scale
    )
    if penalty is not None:
      extra = np.array([penalty(reference.norm(row)) for row in embeddings])
      values = np.where(WEIGHTS > 0, values + extra, 0.0)
    return values

  mean = lambda x, w: reference.mean(losses(x, w, slope or psi), WEIGHTS)
  return (
    losses(EMBEDDINGS, centers, psi),
    numeric.gradient(lambda x: mean(x, centers), EMBEDDINGS),
    numeric.gradient(lambda w: mean(EMBEDDINGS, w), centers),
  )


def assert_agrees(loss, expected, centers=CENTERS, scale=SCALE, **settings):
  """Values, weights and both gradients of a loss over class centres."""
  terms = lambda x, w: loss(x, w, LABELS, WEIGHTS, scale=scale, **settings)
  values, by_embeddings, by_centers = expected
  found, weights = terms(dirty(), centers)
  np.testing.assert_allclose(found, values, rtol=2e-5, atol=1e-6)
  np.testing.assert_array_equal(weights, WEIGHTS)
  gradients = jax.grad(lambda *x: numeric.mean(terms(*x)), argnums=(0, 1))(
    dirty(), jnp.asarray(centers)
  )
  numeric.assert_gradients_close(gradients[0], by_embeddings)
  numeric.assert_gradients_close(gradients[1], by_centers)
