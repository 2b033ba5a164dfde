"""Mining by drawing: negatives in inverse proportion to how usual they are."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.mining import _batch
from facesiam_jax.mining.triplets import Triplets

_BLOCK = 128


def _check_range(dimension: int, cutoff: float, max_distance: float) -> None:
  if dimension < 2:
    raise ValueError(f"dimension must be at least 2, got {dimension}.")
  if not 0 < cutoff < max_distance < 2:
    raise ValueError(
      "cutoff and max_distance must keep 0 < cutoff < max_distance < 2, got "
      f"{cutoff} and {max_distance}."
    )


def _shares(
  matrix: jax.Array,
  negatives: jax.Array,
  dimension: int,
  cutoff: float,
  max_distance: float,
) -> jax.Array:
  """Returns weights of the columns, float32 [b, B], 0 for what is not drawn.

  They are shares of each anchor's largest weight, which at 512 dimensions may
  be exp(370).
  """
  near = negatives & ~(matrix >= max_distance)
  # What may not be drawn is replaced before the logarithm of 1 - d^2 / 4.
  distance = jnp.maximum(jnp.where(near, matrix, cutoff), cutoff)
  log_weights = (2.0 - dimension) * jnp.log(distance) - (
    (dimension - 3.0) / 2.0
  ) * jnp.log1p(-0.25 * jnp.square(distance))
  log_weights = jnp.where(near, log_weights, -jnp.inf)
  any_near = jnp.any(near, axis=1, keepdims=True)
  largest = jnp.max(log_weights, axis=1, keepdims=True)
  shares = jnp.exp(log_weights - jnp.where(any_near, largest, 0.0))
  shares = jnp.where(any_near, shares, negatives.astype(jnp.float32))
  unknown = negatives & jnp.isnan(matrix)
  any_unknown = jnp.any(unknown, axis=1, keepdims=True)
  return jnp.where(any_unknown, unknown.astype(jnp.float32), shares)


def _pick(shares: jax.Array, points: jax.Array) -> jax.Array:
  """Returns the entry of the last axis in which a point of 0..1 falls.

  An entry with share 0 is never picked, whatever the rounding of the sums.
  """
  running = jnp.cumsum(shares, axis=-1)
  passed = (shares > 0) & (running > (points * running[..., -1])[..., None])
  last = shares.shape[-1] - 1 - jnp.argmax(shares[..., ::-1] > 0, axis=-1)
  first = jnp.argmax(passed, axis=-1)
  return jnp.where(jnp.any(passed, axis=-1), first, last)


def _pick_twice(shares: jax.Array, points: jax.Array) -> jax.Array:
  """Draws columns, int32 [b, M]: first a block of columns, then one of it.

  A running sum over B columns is slow where B is large; sums of blocks are
  not.

  Args:
    shares: float32 [b, B].
    points: uniform, float32 [2, b, M].
  """
  padding = ((0, 0), (0, -shares.shape[1] % _BLOCK))
  blocks = jnp.pad(shares, padding).reshape(shares.shape[0], -1, _BLOCK)
  totals = jnp.sum(blocks, axis=-1)[:, None, :]
  shape = (*points.shape[1:], totals.shape[-1])
  block = _pick(jnp.broadcast_to(totals, shape), points[0])
  within = jnp.take_along_axis(blocks, block[:, :, None], axis=1)
  return (block * _BLOCK + _pick(within, points[1])).astype(jnp.int32)


def distance_weighted(
  distances: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  key: jax.Array,
  dimension: int,
  column_weights: ArrayLike | None = None,
  cutoff: float = 0.5,
  max_distance: float = 1.4,
  positive: _batch.Positive = "every",
  max_positives: int | None = None,
) -> Triplets:
  """Draws negatives evenly over distances rather than over images.

    P(n | a) ~ 1 / q(max(d_an, cutoff)) where d_an < max_distance
    q(d) = d^(n - 2) (1 - d^2 / 4)^((n - 3) / 2)
  q is the density of the distance between random points of the unit sphere in
  n dimensions: nearly all are sqrt(2) apart, and an even draw of images shows
  no others. The logarithms are taken relative to each anchor's largest one.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.
  A draw is a function of the key, the anchor's row and its distances, not of
  the number of devices.

  Args:
    distances: plain Euclidean distances of unit vectors from anchors to
      columns, float [b, B], 0..2.
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    key: a JAX random key, the same on every device.
    dimension: n, width of the embeddings, >= 2.
    column_weights: 0 = padding column, float [B]; None means all ones.
    cutoff: distance below which all are alike likely, > 0: without it the
      few nearest would be drawn all the time.
    max_distance: distance from which none is drawn, below 2. The default is
      where the margin loss with beta 1.2 and margin 0.2 has no gradient left.
    positive: "every" draws a negative for each (anchor, positive) pair;
      "hardest" and "easiest" one for each anchor's farthest or nearest
      positive.
    max_positives: M, the most positives an anchor can have, with
      positive="every": K - 1 in a P x K batch. Of an anchor with more, the M
      of lowest index count.

  Returns:
    Triplets of shape [b, M] for positive="every", else [b].

  Raises:
    ValueError: if shapes do not fit, distances are not floating point, ids or
      rows are not integers or out of range, there is no row, cutoff,
      max_distance or dimension is out of range, a choice is unknown, or
      max_positives is missing, out of range or out of place.

  Degenerate input: an anchor with no negative below max_distance draws from
  all its negatives evenly. Where there is no positive or no negative, or the
  anchor's own column is padding, weight 0 and index 0 for what is lacking. A
  negative at distance NaN is drawn for certain.
  Example:
    >>> d = jnp.array([[0.0, 0.7, 0.9, 1.41]])
    >>> ids = jnp.array([7, 7, 8, 8])
    >>> mined = distance_weighted(
    ...   d, ids[:1], ids, anchor_rows=jnp.array([0]), key=jax.random.key(0),
    ...   dimension=128, positive="hardest",
    ... )
    >>> [int(x[0]) for x in mined]
    [1, 2, 1]

  References: Wu et al. 2017, Sampling Matters in Deep Embedding Learning,
    section 4.
  """
  _check_range(dimension, cutoff, max_distance)
  _batch.check_positive_choice(positive, max_positives)
  matrix, batch = _batch.compare(
    "distances", distances, anchor_ids, column_ids, anchor_rows, column_weights
  )
  columns, exists = _batch.choose_positives(
    matrix, batch, positive, max_positives
  )
  shares = _shares(matrix, batch.negatives, dimension, cutoff, max_distance)
  draw = lambda row: jax.random.uniform(
    jax.random.fold_in(key, row), (2 * columns.shape[1],)
  )
  points = jax.vmap(draw)(batch.anchor_rows).reshape(-1, 2, columns.shape[1])
  negatives = _pick_twice(shares, points.swapaxes(0, 1))
  exists &= jnp.any(batch.negatives, axis=1, keepdims=True)
  negatives = jnp.where(exists, negatives, 0)
  triplets = Triplets(columns, negatives, exists.astype(jnp.float32))
  if positive == "every":
    return triplets
  return Triplets(*(x[:, 0] for x in triplets))
