"""Batch-wise losses that weigh each pair by how hard it is.

Multi-similarity and circle loss. Anchors are a device's own rows, columns the
whole global batch, as in `batchwise`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _batch, _checks


def _keep(
  pairs: _batch.Pairs, pair_mask: ArrayLike | None
) -> tuple[jax.Array, jax.Array]:
  """Returns the positives and negatives that a miner has left."""
  if pair_mask is None:
    return pairs.positives, pairs.negatives
  kept = jnp.asarray(pair_mask)
  if kept.shape != pairs.positives.shape:
    raise ValueError(
      f"pair_mask must be [anchors, columns], got {kept.shape} for "
      f"{pairs.anchors.shape} anchors and {pairs.columns.shape} columns."
    )
  return pairs.positives & (kept > 0), pairs.negatives & (kept > 0)


def multi_similarity(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  alpha: float = 2.0,
  beta: float = 50.0,
  base: float = 0.5,
  pair_mask: ArrayLike | None = None,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the multi-similarity loss of each anchor.

    1/alpha log(1 + sum_{p in P(a)} exp(-alpha (s_ap - base)))
    + 1/beta log(1 + sum_{n in N(a)} exp(beta (s_an - base)))
  with cosines s, P(a) the other columns of the anchor's person and N(a) those
  of other people. The 1 stands inside the logarithm.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchors: embeddings, float [b, D], any length (the cosine is taken).
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; that
      column is the anchor itself and is left out. -1 = not among them.
    alpha: sharpness for positives, > 0.
    beta: sharpness for negatives, > 0.
    base: cosine around which pairs are weighed, lambda in the paper, -1 to 1.
    pair_mask: 0 = leave this pair out, bool or float [b, B], such as
      `positives | negatives` of `mining.multi_similarity`; None keeps all.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses, float32 [b], >= 0, and weights, float32 [b]: 1
    for anchors that have any other column to be compared with, mined or not
    (the paper divides by the batch, not by the anchors a miner has left).

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are not int32, alpha or beta is not positive or base is no cosine.

  Degenerate input: the term of positives is 0 without one, that of negatives
  likewise; an anchor without any pair, or whose own column is padding, has
  value 0, weight 0 and no gradient.
  Example:
    >>> x, ids = jnp.array([[1.0, 0], [1, 0], [0, 1]]), jnp.array([5, 5, 8])
    >>> values, _ = multi_similarity(x, ids, x, ids, anchor_rows=jnp.arange(3))
    >>> [round(float(v), 4) for v in values]
    [0.1566, 0.1566, 0.0]

  References: Wang et al. 2019, Multi-Similarity Loss with General Pair
    Weighting.
  """
  _checks.above("alpha", alpha, 0)
  _checks.above("beta", beta, 0)
  _checks.within("base", base, -1.0, 1.0)
  pairs = _batch.make_pairs(
    anchors, anchor_ids, columns, column_ids, anchor_rows, column_weights
  )
  positives, negatives = _keep(pairs, pair_mask)
  excess = ops.pairwise_cosine_similarity(pairs.anchors, pairs.columns) - base
  pull = _batch.log1p_sum_exp(-alpha * excess, positives) / alpha
  push = _batch.log1p_sum_exp(beta * excess, negatives) / beta
  present = jnp.any(pairs.positives | pairs.negatives, axis=1)
  return _batch.terms(pull + push, present)


def circle(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  margin: float = 0.25,
  scale: float = 256.0,
  pair_mask: ArrayLike | None = None,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the circle loss of each anchor, from pairwise labels.

    log(1 + sum_{n in N(a)} exp(g w_n (s_an - m))
            sum_{p in P(a)} exp(-g w_p (s_ap - (1 - m))))
    w_n = max(s_an + m, 0), w_p = max(1 + m - s_ap, 0), both held constant
  with cosines s, P(a) the other columns of the anchor's person and N(a) those
  of other people. The weights let a pair count by how far it is from its
  goal; no gradient passes through them.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchors: embeddings, float [b, D], any length (the cosine is taken).
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; that
      column is the anchor itself and is left out. -1 = not among them.
    margin: m, a cosine, 0 to 1; 0.25 is the paper's for faces.
    scale: g, gamma in the paper, > 0; 256 is the paper's for faces.
    pair_mask: 0 = leave this pair out, bool or float [b, B], such as
      `positives | negatives` of `mining.multi_similarity`; None keeps all.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses, float32 [b], >= 0, and weights, float32 [b]: 1
    for anchors with a positive and a negative in the batch, mined or not.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are not int32, the margin is not from 0 to 1 or the scale not positive.

  Degenerate input: an anchor without a positive or without a negative, or
  whose own column is padding, has value 0, weight 0 and no gradient.
  Example:
    >>> x, ids = jnp.array([[3.0, 4], [1, 0], [0, 1]]), jnp.array([5, 5, 8])
    >>> values, weights = circle(
    ...   x, ids, x, ids, anchor_rows=jnp.arange(3), scale=10.0
    ... )
    >>> [round(float(v), 4) for v in values], weights.tolist()
    ([6.7512, 0.8834, 0.0], [1.0, 1.0, 0.0])

  References: Sun et al. 2020, Circle Loss: A Unified Perspective of Pair
    Similarity Optimization.
  """
  _checks.within("margin", margin, 0.0, 1.0)
  _checks.above("scale", scale, 0)
  pairs = _batch.make_pairs(
    anchors, anchor_ids, columns, column_ids, anchor_rows, column_weights
  )
  positives, negatives = _keep(pairs, pair_mask)
  s = ops.pairwise_cosine_similarity(pairs.anchors, pairs.columns)
  held = lax.stop_gradient(s)
  pull = jnp.maximum(1.0 + margin - held, 0.0) * (s - (1.0 - margin))
  push = jnp.maximum(held + margin, 0.0) * (s - margin)
  values = jax.nn.softplus(
    _batch.log_sum_exp(scale * push, negatives)
    + _batch.log_sum_exp(-scale * pull, positives)
  )
  present = jnp.any(pairs.positives, axis=1) & jnp.any(pairs.negatives, axis=1)
  return _batch.terms(values, present)
