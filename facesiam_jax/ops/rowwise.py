"""Distances and similarities of given pairs of rows, by direct difference."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.ops import checks, norms

__all__ = [
  "chi_square_distance",
  "chi_square_terms",
  "cosine_similarity",
  "euclidean_distance",
  "l1_distance",
  "squared_distance",
]


def squared_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_i|^2 for each row, by direct difference.

  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [B, D], |x| <= 1e18.
    y: embeddings, float [B, D], |y| <= 1e18.

  Returns:
    Squared Euclidean distances, float32 [B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: gradient 0 for equal rows. Differences below 1e-19 have a
  square below the range of float32, which is 0.
  Example:
    >>> squared_distance(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2))).tolist()
    [25.0]
  """
  x, y = checks.rows(x, y)
  return jnp.sum(jnp.square(x - y), axis=-1)


def euclidean_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_i| for each row, by direct difference.

  Never forms a square that float32 cannot hold.
  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [B, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.

  Returns:
    Euclidean distances, float32 [B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: gradient 0 for equal rows, not NaN.
  Example:
    >>> x = jnp.array([[3e-30, 4e-30]])
    >>> round(1e30 * float(euclidean_distance(x, 0 * x)[0]), 4)
    5.0
  """
  x, y = checks.rows(x, y)
  return norms.length(x - y)


def cosine_similarity(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the cosine of the angle between x_i and y_i for each row.

    x . y / (|x| |y|)
  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [B, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.

  Returns:
    Cosines, float32 [B], in [-1, 1] up to rounding: clamp before an arccos.

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: 0 where a row is zero, with gradient 0 for that row.
  Example:
    >>> x, y = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0]])
    >>> round(float(cosine_similarity(x, y)[0]), 4)
    0.6
  """
  x, y = checks.rows(x, y)
  return jnp.sum(norms.l2_normalize(x) * norms.l2_normalize(y), axis=-1)


def l1_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the sum of |x_ik - y_ik| over k for each row.

  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [B, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.

  Returns:
    City-block distances, float32 [B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: gradient 0 for each entry in which the rows are equal.
  Example:
    >>> l1_distance(jnp.array([[3.0, -4.0]]), jnp.zeros((1, 2))).tolist()
    [7.0]
  """
  x, y = checks.rows(x, y)
  return jnp.sum(norms.absolute(x - y), axis=-1)


def _size(x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.abs(x) + jnp.abs(y)


@jax.custom_jvp
def _ratio(x: jax.Array, y: jax.Array) -> jax.Array:
  """(x - y) / (|x| + |y|), in [-1, 1]; 0 for 0 / 0, with gradient 0."""
  return (x - y) / jnp.maximum(_size(x, y), norms.SMALLEST)


@_ratio.defjvp
def _ratio_jvp(
  primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x, y), (dx, dy) = primals, tangents
  ratio, size = _ratio(x, y), _size(x, y)
  zero = size < norms.SMALLEST
  change = dx - dy - ratio * (_slope_of_size(x) * dx + _slope_of_size(y) * dy)
  return ratio, jnp.where(zero, 0.0, change) / jnp.where(zero, 1.0, size)


def _slope_of_size(x: jax.Array) -> jax.Array:
  # At 0 that from the right, since features are not negative.
  return jnp.where(x < 0, -1.0, 1.0)


@jax.custom_jvp
def chi_square(x: jax.Array, y: jax.Array) -> jax.Array:
  """(x - y)^2 / (|x| + |y|) of each element, float32, broadcast.

  As difference times ratio, since the square would leave float32 at 1e20 and
  1e-20. The rules for the gradients are ours because that of the division
  squares the denominator.
  """
  return (x - y) * _ratio(x, y)


@chi_square.defjvp
def _chi_square_jvp(
  primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x, y), (dx, dy) = primals, tangents
  ratio = _ratio(x, y)
  by_x = 2.0 - ratio * _slope_of_size(x)
  by_y = 2.0 + ratio * _slope_of_size(y)
  return (x - y) * ratio, ratio * (by_x * dx - by_y * dy)


def chi_square_terms(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the element-wise terms of the chi-square distance.

    (x_k - y_k)^2 / (x_k + y_k)
  with |x_k| + |y_k| below the line, which is the same for features >= 0 and
  cannot blow up for others.
  Batch meaning: rows are independent.

  Args:
    x: features, float [B, D], >= 0, entries from 1e-30 to 1e30 or 0.
    y: features, float [B, D], likewise.

  Returns:
    Terms, float32 [B, D], in [0, |x| + |y|].

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: 0 / 0 counts as 0, with gradient 0; where x_k = 0 < y_k
  the slope is that from the right, -3.
  Example:
    >>> x, y = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> chi_square_terms(x, y).tolist()
    [[1.0, 0.0]]

  References: Taigman et al. 2014, DeepFace, weighted chi-square similarity.
  """
  x, y = checks.rows(x, y)
  return chi_square(x, y)


def chi_square_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the chi-square distance of each row, without a factor 1/2.

    sum over k of (x_k - y_k)^2 / (x_k + y_k)
  Batch meaning: rows are independent.

  Args:
    x: features, float [B, D], >= 0, entries from 1e-30 to 1e30 or 0.
    y: features, float [B, D], likewise.

  Returns:
    Chi-square distances, float32 [B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, the shapes differ, a dtype is not floating
      or there are no rows.

  Degenerate input: as `chi_square_terms`.
  Example:
    >>> x, y = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 2.0]])
    >>> chi_square_distance(x, y).tolist()
    [3.0]
  """
  return jnp.sum(chi_square_terms(x, y), axis=-1)
