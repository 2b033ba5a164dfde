"""Mining of triplets: batch-hard, semi-hard and batch-easy-positive."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.mining import _batch

Fallback = Literal["farthest", "none"]


class Triplets(NamedTuple):
  """Triplets of each anchor, as indices into the columns.

  One triplet an anchor has shape [b], one for each of its positives [b, M].

  Attributes:
    positives: index of the chosen positive, int32 [b] or [b, M].
    negatives: index of the chosen negative, int32 [b] or [b, M].
    weights: 1 where there is such a triplet, else 0, float32, same shape.
  """

  positives: jax.Array
  negatives: jax.Array
  weights: jax.Array


def batch_hard(
  distances: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
) -> Triplets:
  """Picks each anchor's farthest positive and nearest negative.

  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    distances: from anchors to columns, float [b, B]; squared or plain.
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    Triplets of shape [b]. Ties go to the lowest index.

  Raises:
    ValueError: if shapes do not fit, distances are not floating point, ids or
      rows are not integers or out of range, or there is no row.

  Degenerate input: an anchor without a positive or without a negative, or
  whose own column is padding, gets weight 0 and index 0 for what it lacks.
  Example:
    >>> d = jnp.array([[0.0, 2.0, 3.0, 1.0, 4.0]])
    >>> ids = jnp.array([7, 7, 7, 8, 8])
    >>> mined = batch_hard(d, ids[:1], ids, anchor_rows=jnp.array([0]))
    >>> [int(x[0]) for x in mined]
    [2, 3, 1]

  References: Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5.
  """
  matrix, batch = _batch.compare(
    "distances", distances, anchor_ids, column_ids, anchor_rows, column_weights
  )
  positives, negatives = batch.positives, batch.negatives
  exists = jnp.any(positives, axis=1) & jnp.any(negatives, axis=1)
  return Triplets(
    positives=_batch.first_largest(matrix, positives),
    negatives=_batch.first_smallest(matrix, negatives),
    weights=exists.astype(jnp.float32),
  )


def _nearest_beyond(
  matrix: jax.Array,
  negatives: jax.Array,
  positive_distances: jax.Array,
  margin: float | None,
) -> tuple[jax.Array, jax.Array]:
  """Picks the nearest negative that is farther than each anchor's positive.

  Returns:
    (index, found): int32 [b], the farthest negative where none is farther than
    the positive; and bool [b], False where the nearest one that is lies at
    the margin or beyond it.
  """
  # Written so that NaN counts as farther and within the margin: it is mined.
  farther = negatives & ~(matrix <= positive_distances[:, None])
  exists = jnp.any(farther, axis=1)
  index = jnp.where(
    exists,
    _batch.first_smallest(matrix, farther),
    _batch.first_largest(matrix, negatives),
  )
  if margin is None:
    return index, jnp.any(negatives, axis=1)
  nearest = jnp.take_along_axis(matrix, index[:, None], axis=1)[:, 0]
  return index, exists & ~(nearest >= positive_distances + margin)


def semi_hard(
  distances: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
  margin: float = 0.2,
  positive: _batch.Positive = "every",
  max_positives: int | None = None,
  fallback: Fallback = "farthest",
) -> Triplets:
  """Picks for a positive the nearest negative that is farther than it.

    D(a, p) < D(a, n) < D(a, p) + margin
  Such a negative is on the right side of the positive, but too near: it has a
  gradient and does not pull the batch together as the hardest one can.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    distances: from anchors to columns, float [b, B]; FaceNet takes squared
      Euclidean distances of unit vectors.
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.
    margin: width of the window, > 0, in the unit of `distances`. It matters
      under fallback="none" only, see there.
    positive: "every" gives a triplet to each (anchor, positive) pair, as
      FaceNet does; "hardest" and "easiest" give each anchor one, with its
      farthest or its nearest positive.
    max_positives: M, the most positives an anchor can have, with
      positive="every": K - 1 in a P x K batch. Of an anchor with more, the M
      of lowest index count.
    fallback: what becomes of a pair with no negative in the window.
      "farthest": the nearest negative beyond the window, which costs a hinge
      nothing; if there is none, the farthest negative, which is the easiest
      of the hard ones. "none": weight 0.

  Returns:
    Triplets of shape [b, M] for positive="every", else [b]. Ties go to the
    lowest index.

  Raises:
    ValueError: if shapes do not fit, distances are not floating point, ids or
      rows are not integers or out of range, there is no row, the margin is
      not positive, a choice is unknown, or max_positives is missing, out of
      range or out of place.

  Degenerate input: where there is no positive or no negative, or the anchor's
  own column is padding, weight 0 and index 0 for what is lacking.
  Example:
    >>> d = jnp.array([[0.0, 2.0, 3.0, 1.0, 4.0, 2.5]])
    >>> ids = jnp.array([7, 7, 7, 8, 8, 8])
    >>> mined = semi_hard(
    ...   d, ids[:1], ids, anchor_rows=jnp.array([0]), max_positives=2
    ... )
    >>> mined.positives.tolist(), mined.negatives.tolist()
    ([[1, 2]], [[5, 4]])

  References: Schroff et al. 2015, FaceNet, eq. 4 and section 3.2.
  """
  _batch.check_above("margin", margin, 0)
  _batch.check_positive_choice(positive, max_positives)
  _batch.check_choice("fallback", fallback, ("farthest", "none"))
  matrix, batch = _batch.compare(
    "distances", distances, anchor_ids, column_ids, anchor_rows, column_weights
  )
  columns, exists = _batch.choose_positives(
    matrix, batch, positive, max_positives
  )
  window = margin if fallback == "none" else None
  # One positive after the other, so that nothing is [b, M, B].
  negatives, found = lax.map(
    lambda column: _nearest_beyond(matrix, batch.negatives, column, window),
    jnp.take_along_axis(matrix, columns, axis=1).T,
  )
  weights = (exists & found.T).astype(jnp.float32)
  triplets = Triplets(columns, negatives.T, weights)
  if positive == "every":
    return triplets
  return Triplets(*(x[:, 0] for x in triplets))


def batch_easy_positive(
  distances: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
  negative: Literal["hard", "semi_hard"] = "semi_hard",
  margin: float = 0.2,
  fallback: Fallback = "farthest",
) -> Triplets:
  """Picks each anchor's nearest positive and a hard or semi-hard negative.

  An anchor need only be near one image of its person, so that a person may
  keep several clusters (frontal, profile) instead of being forced into one.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    distances: from anchors to columns, float [b, B]; squared or plain.
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.
    negative: "hard" takes the nearest negative, "semi_hard" the nearest that
      is farther than the positive.
    margin: as in `semi_hard`, with negative="semi_hard".
    fallback: as in `semi_hard`, with negative="semi_hard".

  Returns:
    Triplets of shape [b]. Ties go to the lowest index.

  Raises:
    ValueError: if shapes do not fit, distances are not floating point, ids or
      rows are not integers or out of range, there is no row, the margin is
      not positive or a choice is unknown.

  Degenerate input: an anchor without a positive or without a negative, or
  whose own column is padding, gets weight 0 and index 0 for what it lacks.
  Example:
    >>> d = jnp.array([[0.0, 2.0, 3.0, 1.0, 4.0]])
    >>> ids = jnp.array([7, 7, 7, 8, 8])
    >>> mined = batch_easy_positive(d, ids[:1], ids, anchor_rows=jnp.array([0]))
    >>> [int(x[0]) for x in mined]
    [1, 4, 1]

  References: Xuan et al. 2020, Improved Embeddings with Easy Positive Triplet
    Mining.
  """
  _batch.check_above("margin", margin, 0)
  _batch.check_choice("negative", negative, ("hard", "semi_hard"))
  if negative == "semi_hard":
    return semi_hard(
      distances,
      anchor_ids,
      column_ids,
      anchor_rows=anchor_rows,
      column_weights=column_weights,
      margin=margin,
      positive="easiest",
      fallback=fallback,
    )
  _batch.check_choice("fallback", fallback, ("farthest", "none"))
  matrix, batch = _batch.compare(
    "distances", distances, anchor_ids, column_ids, anchor_rows, column_weights
  )
  positives, negatives = batch.positives, batch.negatives
  exists = jnp.any(positives, axis=1) & jnp.any(negatives, axis=1)
  return Triplets(
    positives=_batch.first_smallest(matrix, positives),
    negatives=_batch.first_smallest(matrix, negatives),
    weights=exists.astype(jnp.float32),
  )
