"""Mining and losses block by block, without a B x B matrix."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.mining import _batch


def _embeddings(name: str, x: ArrayLike, ids: jax.Array) -> jax.Array:
  x = jnp.asarray(x)
  if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f"{name} must be floating point [n, D], got {x.dtype} {x.shape}."
    )
  if x.shape[:1] != ids.shape or not x.shape[1]:
    raise ValueError(
      f"{name} must hold one embedding for each id, got {x.shape} for "
      f"{ids.shape}."
    )
  return x.astype(jnp.float32)


def by_blocks(
  function: Callable[..., Any],
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
  compare: Callable[..., jax.Array] = ops.pairwise_squared_distance,
  block_rows: int = 256,
) -> Any:
  """Applies a miner or a loss to blocks of anchors, one after the other.

  Only `block_rows` rows of the b x B matrix exist at a time, in the backward
  pass too, where each block is computed anew. The result is that of the whole
  matrix: a row has all its columns, so nothing is lost at the seams. Where
  indices alone are wanted, pass `lax.stop_gradient` of the embeddings.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    function: called as the miners are: (matrix [k, B], anchor ids [k], column
      ids [B], anchor_rows=[k], column_weights=[B]); returns arrays whose
      first axis is k. A miner, with `functools.partial` for its options, or
      a function that mines and returns each anchor's loss.
    anchors: embeddings, float [b, D].
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; -1 for an
      anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.
    compare: (rows [k, D], columns [B, D]) -> distances or similarities
      [k, B].
    block_rows: k, anchors a block, >= 1; the last block is padded with zeros.

  Returns:
    What `function` returns, with first axis b.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids or
      rows are not integers or out of range, there is no row, block_rows < 1,
      or `function` returns something whose first axis is not k.

  Degenerate input: padding is replaced by zeros before it is compared, so a
  NaN in it has no influence and its gradient is exactly 0.
  Example:
    >>> from facesiam_jax.mining import batch_hard
    >>> x = jnp.array([[0.0], [1.0], [3.0], [5.0]])
    >>> ids = jnp.array([7, 7, 8, 8])
    >>> chosen = by_blocks(
    ...   batch_hard, x, ids, x, ids, anchor_rows=jnp.arange(4), block_rows=3
    ... )
    >>> chosen.negatives.tolist()
    [2, 2, 1, 1]
  """
  if block_rows < 1:
    raise ValueError(f"block_rows must be at least 1, got {block_rows}.")
  ids, others, rows, valid = _batch.labels(
    anchor_ids, column_ids, anchor_rows, column_weights
  )
  x = _embeddings("anchors", anchors, ids)
  y = _embeddings("columns", columns, others)
  if x.shape[1] != y.shape[1]:
    raise ValueError(
      f"anchors and columns must have the same width, got {x.shape} and "
      f"{y.shape}."
    )
  x = jnp.where(_batch.own_valid(rows, valid)[:, None], x, 0.0)
  y = jnp.where(valid[:, None], y, 0.0)
  weights = valid.astype(jnp.float32)

  # Recomputed in the backward pass: its matrices would add up to B x B.
  @functools.partial(jax.checkpoint, prevent_cse=False)
  def block(part: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
    x, ids, rows = part
    return function(
      compare(x, y), ids, others, anchor_rows=rows, column_weights=weights
    )

  size = min(block_rows, x.shape[0])
  parts = tuple(
    _split(a, size, fill) for a, fill in ((x, 0), (ids, 0), (rows, -1))
  )
  return _join(lax.map(block, parts), x.shape[0], size)


def _split(x: jax.Array, size: int, fill: int) -> jax.Array:
  """Cuts the first axis into blocks of one size, the last one filled up."""
  padding = ((0, -x.shape[0] % size), *((0, 0),) * (x.ndim - 1))
  padded = jnp.pad(x, padding, constant_values=fill)
  return padded.reshape(-1, size, *x.shape[1:])


def _join(tree: Any, rows: int, size: int) -> Any:
  """Undoes `_split` for every array of the tree."""

  def join(x: jax.Array) -> jax.Array:
    if x.ndim < 2 or x.shape[1] != size:
      raise ValueError(
        f"function must return arrays with first axis {size}, one entry for "
        f"each anchor of a block, got shape {x.shape[1:]}."
      )
    return x.reshape(-1, *x.shape[2:])[:rows]

  return jax.tree.map(join, tree)


def sum_over_triplets(
  function: Callable[[jax.Array, jax.Array], jax.Array],
  distances: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  max_positives: int,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Sums a function of D(a, p) and D(a, n) over all triplets of each anchor.

  The positives are gone through one after the other, each against all
  negatives at once, forwards and backwards: never more than [b, B] numbers.
  sums / counts is the mean that a "batch all" loss takes; with a function
  that is 1 where a triplet is active and 0 elsewhere, the sums count those.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    function: element by element, (positive distances, negative distances) ->
      values, all float32 [b, B]. It must be finite at (1, 1), which stands in
      for pairs that are no triplet.
    distances: from anchors to columns, float [b, B].
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    max_positives: the most positives an anchor can have, >= 1: K - 1 in a
      P x K batch. Of an anchor with more, those of lowest index count.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (sums, counts): float32 [b] each; counts is the number of triplets.

  Raises:
    ValueError: if shapes do not fit, distances are not floating point, ids or
      rows are not integers or out of range, there is no row, or max_positives
      is not from 1 to B.

  Degenerate input: an anchor without a triplet has sum 0, count 0 and no
  gradient. A NaN in a row that counts makes the sum NaN, in padding it has no
  influence.
  Example:
    >>> d = jnp.array([[0.0, 0.5, 0.6, 2.0]])
    >>> ids = jnp.array([7, 7, 8, 8])
    >>> hinge = lambda p, n: jnp.maximum(p - n + 0.2, 0.0)
    >>> sums, counts = sum_over_triplets(
    ...   hinge, d, ids[:1], ids, anchor_rows=jnp.array([0]), max_positives=1
    ... )
    >>> round(float(sums[0]), 4), int(counts[0])
    (0.1, 2)

  References: Hermans et al. 2017, In Defense of the Triplet Loss ("batch
    all").
  """
  matrix, batch = _batch.compare(
    "distances", distances, anchor_ids, column_ids, anchor_rows, column_weights
  )
  columns, exists = _batch.positive_columns(batch, max_positives)
  chosen = jnp.take_along_axis(matrix, columns, axis=1)

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def add(
    sums: jax.Array, slot: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, None]:
    positive, present = slot
    triplet = present[:, None] & batch.negatives
    # Replaced before the arithmetic: 0 * NaN would come back in the gradient.
    p = jnp.where(triplet, positive[:, None], 1.0)
    n = jnp.where(triplet, matrix, 1.0)
    values = jnp.where(triplet, function(p, n), 0.0)
    return sums + jnp.sum(values, axis=1), None

  zeros = jnp.zeros(matrix.shape[:1], jnp.float32)
  sums, _ = lax.scan(add, zeros, (chosen.T, exists.T))
  counts = jnp.sum(exists, axis=1) * jnp.sum(batch.negatives, axis=1)
  return sums, counts.astype(jnp.float32)
