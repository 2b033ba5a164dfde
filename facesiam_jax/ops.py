"""Distances, similarities, safe norms and masked means.

Pure functions of arrays. Everything is computed in float32 whatever comes in,
matrix products with `precision=HIGHEST`, and every value and gradient is
finite where two rows coincide or a row is zero. A `distance` grows with
difference, a `similarity` with likeness, and `_sq` says squared.
"""

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

_HIGHEST = lax.Precision.HIGHEST


def _as_float32(name: str, x: ArrayLike, rank: int) -> jax.Array:
  x = jnp.asarray(x)
  if x.ndim != rank:
    raise ValueError(f"{name} must have rank {rank}, got shape {x.shape}.")
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{name} must be floating point, got dtype {x.dtype}.")
  return x.astype(jnp.float32)


def _as_rows(
  x: ArrayLike, y: ArrayLike, names: tuple[str, str]
) -> tuple[jax.Array, jax.Array]:
  x = _as_float32(names[0], x, 2)
  y = _as_float32(names[1], y, 2)
  if x.shape != y.shape:
    raise ValueError(
      f"{names[0]} and {names[1]} must have the same shape, got {x.shape} "
      f"and {y.shape}."
    )
  return x, y


def safe_sqrt(x: ArrayLike) -> jax.Array:
  """Returns the square root with gradient 0, not infinity, at 0.

  Args:
    x: non-negative values, float, any shape; negative ones count as 0.

  Returns:
    Square roots, float32, same shape.

  Degenerate input: x <= 0 gives value 0 and gradient 0 (a double `where`,
  since a single one multiplies infinity by zero in the backward pass).
  """
  x = jnp.asarray(x).astype(jnp.float32)
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), 0.0)


def l2_normalize(x: ArrayLike) -> jax.Array:
  """Scales each row to unit Euclidean length.

  Args:
    x: embeddings, float [..., D], any magnitude from 1e-30 to 1e30.

  Returns:
    Unit-norm rows, float32 [..., D].

  Degenerate input: a zero row stays zero, with gradient zero.
  Example:
    >>> import numpy as np
    >>> np.round(np.asarray(l2_normalize(np.array([[3.0, 4.0]]))), 3).tolist()
    [[0.6000000238418579, 0.800000011920929]]
  """
  x = jnp.asarray(x).astype(jnp.float32)
  # Dividing by the largest entry first keeps the squares inside float32; its
  # gradient is irrelevant because the result does not depend on the scale.
  largest = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
  x = x / jnp.where(largest > 0, largest, 1.0)
  norm_sq = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  nonzero = norm_sq > 0
  return jnp.where(
    nonzero, x * lax.rsqrt(jnp.where(nonzero, norm_sq, 1.0)), 0.0
  )


def squared_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_i|^2 for each row, by direct difference.

  Args:
    x: embeddings, float [B, D], |x| <= 1e18.
    y: embeddings, float [B, D].

  Returns:
    Squared Euclidean distances, float32 [B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if the ranks or shapes differ or a dtype is not floating.
  """
  x, y = _as_rows(x, y, ("x", "y"))
  return jnp.sum(jnp.square(x - y), axis=-1)


def euclidean_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_i| for each row; gradient 0 where the rows coincide.

  Args:
    x: embeddings, float [B, D].
    y: embeddings, float [B, D].

  Returns:
    Euclidean distances, float32 [B], >= 0.

  Raises:
    ValueError: if the ranks or shapes differ or a dtype is not floating.
  """
  return safe_sqrt(squared_distance(x, y))


def cosine_similarity(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the cosine of the angle between x_i and y_i for each row.

  Args:
    x: embeddings, float [B, D], any length.
    y: embeddings, float [B, D].

  Returns:
    Cosines, float32 [B], in [-1, 1] up to rounding; 0 where a row is zero.

  Raises:
    ValueError: if the ranks or shapes differ or a dtype is not floating.
  """
  x, y = _as_rows(x, y, ("x", "y"))
  return jnp.sum(l2_normalize(x) * l2_normalize(y), axis=-1)


def pairwise_dot(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the inner products of all rows of x with all rows of y.

  Args:
    x: embeddings, float [A, D].
    y: embeddings, float [B, D].

  Returns:
    Inner products, float32 [A, B].

  Raises:
    ValueError: if a rank is not 2, a dtype not floating or D differs.
  """
  x = _as_float32("x", x, 2)
  y = _as_float32("y", y, 2)
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f"x and y must have the same width, got {x.shape} and {y.shape}."
    )
  return jnp.matmul(x, y.T, precision=_HIGHEST)


def pairwise_cosine_similarity(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the cosines between all rows of x and all rows of y.

  Args:
    x: embeddings, float [A, D], any length.
    y: embeddings, float [B, D].

  Returns:
    Cosines, float32 [A, B], in [-1, 1] up to rounding; 0 for a zero row.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating or D differs.
  """
  return pairwise_dot(l2_normalize(x), l2_normalize(y))


def pairwise_squared_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_j|^2 for all pairs of rows, by one matrix product.

  |x|^2 + |y|^2 - 2 x.y loses digits for near-duplicates (relative error of
  the result about 1e-7 |x|^2 / d^2); use `squared_distance` for given pairs.

  Args:
    x: embeddings, float [A, D], |x| <= 1e18.
    y: embeddings, float [B, D].

  Returns:
    Squared Euclidean distances, float32 [A, B], clamped at 0.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating or D differs.
  """
  products = pairwise_dot(x, y)
  x_sq = jnp.sum(jnp.square(jnp.asarray(x).astype(jnp.float32)), axis=-1)
  y_sq = jnp.sum(jnp.square(jnp.asarray(y).astype(jnp.float32)), axis=-1)
  distances_sq = x_sq[:, None] + y_sq[None, :] - 2.0 * products
  return jnp.maximum(distances_sq, 0.0)


def masked_mean(values: ArrayLike, weights: ArrayLike) -> jax.Array:
  """Returns sum(v w) / max(sum(w), 1), the mean of the weighted values.

  Args:
    values: float, any shape; may hold anything, NaN too, where weight is 0.
    weights: float, same shape, >= 0; usually 0 or 1.

  Returns:
    The mean, float32 scalar; 0 when all weights are 0.

  Raises:
    AssertionError: if the shapes differ.
  """
  values = jnp.asarray(values).astype(jnp.float32)
  weights = jnp.asarray(weights).astype(jnp.float32)
  chex.assert_equal_shape([values, weights])
  values = jnp.where(weights > 0, values, 0.0)
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
