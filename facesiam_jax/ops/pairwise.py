"""Distances and similarities of all rows of x with all rows of y.

Inner products, cosines, squared and Euclidean distances are one matrix product
each. L1 and chi-square are no function of products: they are computed a block
of rows at a time, and once more in the backward pass, so that neither pass
holds an array [A, B, D].
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.ops import checks, norms, rowwise

__all__ = [
  "pairwise_chi_square_distance",
  "pairwise_cosine_similarity",
  "pairwise_dot",
  "pairwise_euclidean_distance",
  "pairwise_l1_distance",
  "pairwise_squared_distance",
]

_HIGHEST = lax.Precision.HIGHEST
# Differences held at a time where a block is no argument: 4 MB, in the cache.
_BLOCK_ENTRIES = 2**20


def _products(x: jax.Array, y: jax.Array) -> jax.Array:
  return jnp.matmul(x, y.T, precision=_HIGHEST)


def _squares(x: jax.Array) -> jax.Array:
  return jnp.sum(jnp.square(x), axis=-1, keepdims=True)


def pairwise_dot(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the inner products of all rows of x with all rows of y.

  Batch meaning: all pairs of the rows given.

  Args:
    x: embeddings, float [A, D].
    y: embeddings, float [B, D].

  Returns:
    Inner products, float32 [A, B].

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs or there
      are no rows.

  Example:
    >>> x = jnp.array([[1.0, 2.0], [0.0, 1.0]])
    >>> pairwise_dot(x, x).tolist()
    [[5.0, 2.0], [2.0, 1.0]]
  """
  return _products(*checks.columns(x, y))


def pairwise_cosine_similarity(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns the cosines between all rows of x and all rows of y.

  Batch meaning: all pairs of the rows given.

  Args:
    x: embeddings, float [A, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.

  Returns:
    Cosines, float32 [A, B], in [-1, 1] up to rounding: clamp before an arccos.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs or there
      are no rows.

  Degenerate input: 0 where a row is zero, with gradient 0 for that row.
  Example:
    >>> x, y = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
    >>> [round(float(s), 4) for s in pairwise_cosine_similarity(x, y)[0]]
    [0.6, 0.0]
  """
  x, y = checks.columns(x, y)
  return _products(norms.l2_normalize(x), norms.l2_normalize(y))


def pairwise_squared_distance(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Returns |x_i - y_j|^2 for all pairs of rows, by one matrix product.

    max(|x|^2 + |y|^2 - 2 x.y, 0)
  which loses digits for near-duplicates (relative error of the result about
  1e-7 |x|^2 / d^2); use `squared_distance` for given pairs.
  Batch meaning: all pairs of the rows given.

  Args:
    x: embeddings, float [A, D], |x| <= 1e18.
    y: embeddings, float [B, D], |y| <= 1e18.

  Returns:
    Squared Euclidean distances, float32 [A, B], >= 0.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs or there
      are no rows.

  Degenerate input: a row against its own copy gives 0 or a rounding error of
  about 1e-7 |x|^2, not exactly 0, and a gradient of about 1e-7 |x|.
  Example:
    >>> x, y = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 0.0], [3.0, 0.0]])
    >>> pairwise_squared_distance(x, y).tolist()
    [[25.0, 16.0]]
  """
  x, y = checks.columns(x, y)
  return jnp.maximum(_squares(x) + _squares(y).T - 2.0 * _products(x, y), 0.0)


def _scaled(
  x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
  """Rows and their scales as shares of the larger one of each pair."""
  x_scale, y_scale = norms.scale_of(x), norms.scale_of(y)
  scale = jnp.maximum(x_scale, y_scale.T)
  x, y = norms.scaled(x, x_scale), norms.scaled(y, y_scale)
  return x, y, x_scale / scale, y_scale.T / scale, scale


def _scaled_length(
  x: jax.Array, y: jax.Array, x_share: jax.Array, y_share: jax.Array
) -> jax.Array:
  squared = (
    x_share**2 * _squares(x)
    + y_share**2 * _squares(y).T
    - 2.0 * (x_share * y_share) * _products(x, y)
  )
  return norms.safe_sqrt(squared)


@jax.custom_jvp
def _lengths(x: jax.Array, y: jax.Array) -> jax.Array:
  *scaled, scale = _scaled(x, y)
  return scale * _scaled_length(*scaled)


@_lengths.defjvp
def _lengths_jvp(
  primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
  """(x - y).(dx - dy) / |x - y|, in which the common scale cancels."""
  (x, y), (dx, dy) = primals, tangents
  x, y, x_share, y_share, scale = _scaled(x, y)
  length = _scaled_length(x, y, x_share, y_share)
  zero = length == 0
  inverse = jnp.where(zero, 0.0, 1.0 / jnp.where(zero, 1.0, length))
  along_x = jnp.sum(x * dx, axis=-1, keepdims=True) - _products(x, dy)
  along_y = jnp.sum(y * dy, axis=-1, keepdims=True).T - _products(dx, y)
  slope = inverse * x_share * along_x + inverse * y_share * along_y
  return scale * length, slope


def pairwise_euclidean_distance(
  x: ArrayLike, y: ArrayLike, *, direct: bool = False
) -> jax.Array:
  """Returns |x_i - y_j| for all pairs of rows.

  By one matrix product, with each row scaled first, so that no square leaves
  float32. Like `pairwise_squared_distance` this loses digits for
  near-duplicates: the relative error is about 1e-7 |x|^2 / d^2. `direct`
  takes differences, a block of rows at a time: slower, right for those too.
  Batch meaning: all pairs of the rows given.

  Args:
    x: embeddings, float [A, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.
    direct: whether to take differences instead of a product.

  Returns:
    Euclidean distances, float32 [A, B], >= 0.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs or there
      are no rows.

  Degenerate input: gradient 0 where the distance is 0. A row against its own
  copy is exactly 0 with `direct`, else up to about 1e-3 |x|.
  Example:
    >>> x, y = jnp.array([[3e30, 4e30]]), jnp.array([[0.0, 0.0], [3e30, 0.0]])
    >>> distances = pairwise_euclidean_distance(x, y)[0]
    >>> [round(float(d) / 1e30, 4) for d in distances]
    [5.0, 4.0]
  """
  x, y = checks.columns(x, y)
  if direct:
    return _by_blocks(lambda x, y: norms.length(x - y), x, y, None)
  return _lengths(x, y)


def _by_blocks(
  compare: Callable[[jax.Array, jax.Array], jax.Array],
  x: jax.Array,
  y: jax.Array,
  block_rows: int | None,
) -> jax.Array:
  """compare([1, b, D], [B, 1, D]) -> [B, b], b rows of x at a time: [A, B].

  The rows of x are the middle axis: over the first one, XLA's CPU code for
  the gradient of y is fourteen times slower.
  """
  if block_rows is None:
    block_rows = max(1, _BLOCK_ENTRIES // y.size)
  if block_rows < 1:
    raise ValueError(f"block_rows must be at least 1, got {block_rows}.")
  num_rows, width = x.shape
  num_blocks = -(-num_rows // block_rows)
  block_rows = -(-num_rows // num_blocks)
  padding = num_blocks * block_rows - num_rows
  blocks = jnp.pad(x, ((0, padding), (0, 0)))
  blocks = blocks.reshape(num_blocks, block_rows, width)
  # Without the checkpoint the backward pass would keep every difference.
  one_block = jax.checkpoint(
    lambda rows: compare(rows[None, :, :], y[:, None, :]).T, prevent_cse=False
  )
  return lax.map(one_block, blocks).reshape(-1, y.shape[0])[:num_rows]


def pairwise_l1_distance(
  x: ArrayLike, y: ArrayLike, *, block_rows: int | None = None
) -> jax.Array:
  """Returns the sums of |x_ik - y_jk| over k for all pairs of rows.

  Batch meaning: all pairs of the rows given.

  Args:
    x: embeddings, float [A, D], entries of any magnitude from 1e-30 to 1e30.
    y: embeddings, float [B, D], likewise.
    block_rows: rows of x compared at a time, >= 1; an array [block_rows, B, D]
      is the largest there is. None takes about 4 MB.

  Returns:
    City-block distances, float32 [A, B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs, there are
      no rows, or block_rows < 1.

  Degenerate input: gradient 0 for each entry in which the rows are equal.
  Example:
    >>> x, y = jnp.array([[3.0, -4.0]]), jnp.array([[0.0, 0.0], [3.0, 0.0]])
    >>> pairwise_l1_distance(x, y).tolist()
    [[7.0, 4.0]]
  """
  x, y = checks.columns(x, y)
  compare = lambda x, y: jnp.sum(norms.absolute(x - y), axis=-1)
  return _by_blocks(compare, x, y, block_rows)


def pairwise_chi_square_distance(
  x: ArrayLike, y: ArrayLike, *, block_rows: int | None = None
) -> jax.Array:
  """Returns the chi-square distances of all pairs of rows.

    sum over k of (x_ik - y_jk)^2 / (x_ik + y_jk)
  without a factor 1/2. Batch meaning: all pairs of the rows given.

  Args:
    x: features, float [A, D], >= 0, entries from 1e-30 to 1e30 or 0.
    y: features, float [B, D], likewise.
    block_rows: rows of x compared at a time, >= 1; an array [block_rows, B, D]
      is the largest there is. None takes about 4 MB.

  Returns:
    Chi-square distances, float32 [A, B], >= 0; exactly 0 for equal rows.

  Raises:
    ValueError: if a rank is not 2, a dtype not floating, D differs, there are
      no rows, or block_rows < 1.

  Degenerate input: as `chi_square_terms`.
  Example:
    >>> x, y = jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 2.0], [3.0, 0.0]])
    >>> pairwise_chi_square_distance(x, y).tolist()
    [[3.0, 0.0]]
  """
  x, y = checks.columns(x, y)
  compare = lambda x, y: jnp.sum(rowwise.chi_square(x, y), axis=-1)
  return _by_blocks(compare, x, y, block_rows)
