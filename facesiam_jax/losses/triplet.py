"""Losses of triplets (anchor, positive, negative)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def triplet_margin(
  positive_distances: ArrayLike,
  negative_distances: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
  """Computes the triplet margin loss from distances.

    max(D(a, p) - D(a, n) + margin, 0)
  FaceNet takes D = squared Euclidean distance of unit vectors and margin 0.2;
  PyTorch takes the plain distance. The margin is in the unit of D.
  Batch meaning: rows are independent.

  Args:
    positive_distances: D(anchor, positive), float [B], >= 0.
    negative_distances: D(anchor, negative), float [B], >= 0.
    weights: weight of each triplet, 0 = no such triplet, float [B]; None
      means all ones.
    margin: required gap, > 0.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if the shapes differ or the margin is not positive.

  Degenerate input: where all embeddings coincide the loss is `margin`; a row
  of weight 0 has value 0 and no gradient, whatever it holds.
  Example:
    >>> v, _ = triplet_margin(jnp.array([0.5]), jnp.array([0.6]), margin=0.2)
    >>> round(float(v[0]), 4)
    0.1
  References: Schroff et al. 2015, FaceNet, eq. 3.
  """
  if margin <= 0:
    raise ValueError(f"margin must be positive, got {margin}.")
  positive = jnp.asarray(positive_distances)
  negative = jnp.asarray(negative_distances)
  if positive.shape != negative.shape or positive.ndim != 1:
    raise ValueError(
      "positive_distances and negative_distances must both have shape [B], "
      f"got {positive.shape} and {negative.shape}."
    )
  positive = positive.astype(jnp.float32)
  negative = negative.astype(jnp.float32)
  if weights is None:
    weights = jnp.ones_like(positive)
  weights = jnp.asarray(weights).astype(jnp.float32)
  if weights.shape != positive.shape:
    raise ValueError(
      f"weights must have shape {positive.shape}, got {weights.shape}."
    )
  # Replaced before the arithmetic, so that a masked NaN has no gradient.
  gap = jnp.where(weights > 0, positive - negative + margin, 0.0)
  return jnp.maximum(gap, 0.0), weights
