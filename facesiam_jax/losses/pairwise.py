"""Losses of single pairs: binary cross-entropy and contrastive.

Label convention, here and everywhere: `same` = 1 for two images of the same
person, 0 for two people. (Hadsell et al. 2006 have it the other way round.)
"""

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def _prepare(
  name: str, x: ArrayLike, same: ArrayLike, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{name} must be floating point, got dtype {x.dtype}.")
  same = jnp.asarray(same).astype(jnp.float32)
  if x.shape != same.shape or x.ndim != 1:
    raise ValueError(
      f"{name} and same must both have shape [B], got {x.shape} and "
      f"{same.shape}."
    )
  x = x.astype(jnp.float32)
  if weights is None:
    return x, same, jnp.ones_like(x)
  weights = jnp.asarray(weights).astype(jnp.float32)
  chex.assert_equal_shape([x, weights])
  # A masked row must not leak a NaN through its gradient: replaced before
  # the arithmetic, not after it.
  return jnp.where(weights > 0, x, 0.0), same, weights


def binary_cross_entropy(
  logits: ArrayLike, same: ArrayLike, weights: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
  """Computes the binary cross-entropy of "same person" logits.

    max(z, 0) - z y + log(1 + exp(-|z|))
  which equals -[y log s(z) + (1 - y) log(1 - s(z))] and cannot overflow.
  Batch meaning: rows are independent.

  Args:
    logits: z, float [B], any size.
    same: y, 1 = same person, 0 = two people, [B].
    weights: weight of each row, 0 = padding, float [B]; None means all ones.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if the shapes differ or the logits are not floating point.

  Degenerate input: a row of weight 0 has value log 2 and no gradient,
  whatever it holds; the weight removes it from the mean.
  Example:
    >>> values, _ = binary_cross_entropy(jnp.array([0.0]), jnp.array([1]))
    >>> round(float(values[0]), 4)
    0.6931
  """
  logits, same, weights = _prepare("logits", logits, same, weights)
  values = (
    jnp.maximum(logits, 0.0)
    - logits * same
    + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  )
  return values, weights


def contrastive(
  distances: ArrayLike,
  same: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the contrastive loss of pair distances.

    same d^2 + (1 - same) max(margin - d, 0)^2

    same  d            pulls    loss
    1     near         -        d^2, small
    1     far          together d^2, large
    0     d < margin   apart    (margin - d)^2
    0     d >= margin  -        0
  Batch meaning: rows are independent.

  Args:
    distances: plain (not squared) Euclidean distances, float [B], >= 0.
    same: 1 = same person, 0 = two people, [B].
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    margin: distance beyond which two people cost nothing, > 0; at most 2 for
      unit vectors.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if the shapes differ, distances are not floating point or the
      margin is not positive.

  Degenerate input: a row of weight 0 has no gradient, whatever it holds.
  References: Hadsell et al. 2006 (there with a factor 1/2 and Y = 0 for
    same).
  """
  if margin <= 0:
    raise ValueError(f"margin must be positive, got {margin}.")
  distances, same, weights = _prepare("distances", distances, same, weights)
  gap = jnp.maximum(margin - distances, 0.0)
  return same * distances**2 + (1.0 - same) * gap**2, weights
