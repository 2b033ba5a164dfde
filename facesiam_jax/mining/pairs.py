"""Mining of pairs, as masks: every pair, or those of multi-similarity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.mining import _batch


class PairMasks(NamedTuple):
  """Which columns each anchor is paired with.

  Attributes:
    positives: columns of the anchor's person, bool [b, B].
    negatives: columns of other people, bool [b, B].
  """

  positives: jax.Array
  negatives: jax.Array


def all_triplets(
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
) -> PairMasks:
  """Marks every admissible triplet of a batch.

  (a, p, n) is a triplet where positives[a, p] and negatives[a, n]: two masks
  say what one of B x B x B would, and anchor a has positives[a].sum() *
  negatives[a].sum() triplets. `sum_over_triplets` goes through them.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    Masks, bool [b, B] each.

  Raises:
    ValueError: if shapes do not fit, ids or rows are not integers or out of
      range, or there is no row.

  Degenerate input: padding is in no pair, and an anchor whose own column is
  padding has none.
  Example:
    >>> ids = jnp.array([7, 7, 8])
    >>> masks = all_triplets(ids, ids, anchor_rows=jnp.arange(3))
    >>> masks.positives.astype(int).tolist()
    [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    >>> masks.negatives.astype(int).tolist()
    [[0, 0, 1], [0, 0, 1], [1, 1, 0]]

  References: Hermans et al. 2017, In Defense of the Triplet Loss ("batch
    all").
  """
  batch = _batch.pair_up(anchor_ids, column_ids, anchor_rows, column_weights)
  return PairMasks(batch.positives, batch.negatives)


def multi_similarity(
  similarities: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None = None,
  epsilon: float = 0.1,
) -> PairMasks:
  """Keeps the pairs that are hard next to the anchor's other kind of pair.

  A negative is kept where s_an > min_p s_ap - epsilon, a positive where
  s_ap < max_n s_an + epsilon.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    similarities: cosines of anchors and columns, float [b, B].
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself. -1 for an anchor that is not among them.
    column_weights: 0 = padding column, float [B]; None means all ones.
    epsilon: how much easier than the hardest a pair may be, >= 0, in units of
      the similarity.

  Returns:
    Masks of the kept pairs, bool [b, B] each.

  Raises:
    ValueError: if shapes do not fit, similarities are not floating point, ids
      or rows are not integers or out of range, there is no row, or epsilon is
      negative.

  Degenerate input: an anchor without a positive or without a negative keeps
  nothing. Where one of an anchor's similarities is NaN, that pair and all
  pairs of the other kind are kept.
  Example:
    >>> s = jnp.array([[1.0, 0.5, 0.45, 0.3]])
    >>> ids = jnp.array([7, 7, 8, 8])
    >>> kept = multi_similarity(s, ids[:1], ids, anchor_rows=jnp.array([0]))
    >>> kept.positives.astype(int).tolist(), kept.negatives.astype(int).tolist()
    ([[0, 1, 0, 0]], [[0, 0, 1, 0]])

  References: Wang et al. 2019, Multi-Similarity Loss with General Pair
    Weighting for Deep Metric Learning.
  """
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}.")
  matrix, batch = _batch.compare(
    "similarities",
    similarities,
    anchor_ids,
    column_ids,
    anchor_rows,
    column_weights,
  )
  positives, negatives = batch.positives, batch.negatives
  least_alike = jnp.min(jnp.where(positives, matrix, jnp.inf), axis=1)
  most_alike = jnp.max(jnp.where(negatives, matrix, -jnp.inf), axis=1)
  # Written so that a comparison with NaN keeps the pair, and the loss shows it.
  easy_negative = matrix <= least_alike[:, None] - epsilon
  easy_positive = matrix >= most_alike[:, None] + epsilon
  return PairMasks(positives & ~easy_positive, negatives & ~easy_negative)
