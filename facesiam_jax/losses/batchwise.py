"""Losses that compare each anchor with the whole global batch.

The anchors are a device's own rows, the columns the rows of all devices
(`lax.all_gather(..., tiled=True)`), so that loss and gradient do not depend
on the number of devices. On one device both are the same array. Here are the
softmax losses, supervised contrastive, NT-Xent and N-pair; those that weigh
pairs by their similarity are in `pair_weighting`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _batch, _checks


def supcon(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  temperature: float = 0.1,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the supervised contrastive loss of each anchor.

    -1/|P(a)| sum_{p in P(a)} log(exp(s_ap / t) / sum_{k != a} exp(s_ak / t))
  with cosines s and P(a) the other columns of the anchor's person.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchors: embeddings, float [b, D], any length (the cosine is taken).
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; that
      column is the anchor itself and is left out. -1 = not among them.
    temperature: t, > 0.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses in nats, float32 [b], >= 0, and weights, float32
    [b]: 1 for anchors with a positive, else 0.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are not int32 or the temperature is not positive.

  Degenerate input: an anchor with no positive, or whose own column is
  padding, has value 0, weight 0 and no gradient; with no negative the loss is
  that over the positives alone.
  Example:
    >>> x, ids = jnp.array([[1.0, 0], [2, 0], [0, 1]]), jnp.array([5, 5, 8])
    >>> values, weights = supcon(
    ...   x, ids, x, ids, anchor_rows=jnp.arange(3), temperature=0.5
    ... )
    >>> [round(float(v), 4) for v in values], weights.tolist()
    ([0.1269, 0.1269, 0.0], [1.0, 1.0, 0.0])

  References: Khosla et al. 2020, Supervised Contrastive Learning, eq. 2.
  """
  return nt_xent(
    anchors,
    anchor_ids,
    columns,
    column_ids,
    anchor_rows=anchor_rows,
    temperature=temperature,
    other_positives="keep",
    column_weights=column_weights,
  )


def nt_xent(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  temperature: float = 0.1,
  other_positives: str = "keep",
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the normalised temperature-scaled cross-entropy of each anchor.

    mean_{p in P(a)} -log(exp(s_ap / t) / sum_{k in K} exp(s_ak / t))
  with cosines s and P(a) the other columns of the anchor's person. K is what
  p is told apart from, p itself included:

    other_positives  K                               with 2 images a person
    "keep"           all columns but the anchor      the paper's loss
    "drop"           p and the columns of others     the paper's loss

  With more images a person the paper is silent and libraries differ: "keep"
  is SupCon, where positives push each other away a little; "drop" is what
  pytorch-metric-learning computes.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchors: embeddings, float [b, D], any length (the cosine is taken).
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; that
      column is the anchor itself and is left out. -1 = not among them.
    temperature: t, > 0; 0.07 to 0.5 are in use.
    other_positives: "keep" or "drop" the anchor's other positives in the
      denominator.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses in nats, float32 [b], >= 0, and weights, float32
    [b]: 1 for anchors with a positive, else 0.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are not int32, the temperature is not positive or `other_positives` is
      neither word.

  Degenerate input: an anchor with no positive, or whose own column is
  padding, has value 0, weight 0 and no gradient. With no negative "keep" is
  the loss over the positives alone and "drop" is 0.
  Example:
    >>> x = jnp.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    >>> ids, rows = jnp.array([5, 5, 5, 8]), jnp.arange(4)
    >>> for word in ("keep", "drop"):
    ...   values, _ = nt_xent(
    ...     x, ids, x, ids, anchor_rows=rows, other_positives=word
    ...   )
    ...   print(round(float(values[0]), 4))
    0.6932
    0.0

  References: Chen et al. 2020, A Simple Framework for Contrastive Learning
    (SimCLR), eq. 1.
  """
  _checks.above("temperature", temperature, 0)
  if other_positives not in ("keep", "drop"):
    raise ValueError(
      f'other_positives must be "keep" or "drop", got {other_positives!r}.'
    )
  pairs = _batch.make_pairs(
    anchors, anchor_ids, columns, column_ids, anchor_rows, column_weights
  )
  logits = ops.pairwise_cosine_similarity(pairs.anchors, pairs.columns)
  logits = logits / temperature
  if other_positives == "drop":
    values = _batch.positive_against_negatives(logits, pairs)
  else:
    total = _batch.log_sum_exp(logits, pairs.positives | pairs.negatives)
    # No logit exceeds the total but by rounding, which depends on how XLA
    # fuses the two; there is no gradient to lose where they are that near.
    losses = jnp.maximum(total[:, None] - logits, 0.0)
    values = _batch.row_means(losses, pairs.positives)
  return _batch.terms(values, jnp.any(pairs.positives, axis=1))


def n_pair(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  *,
  anchor_rows: ArrayLike,
  norm_penalty: float = 0.002,
  column_weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the multi-class N-pair loss of each anchor.

    mean_{p in P(a)} [log(1 + sum_{n in N(a)} exp(a.n - a.p))
                      + c/4 (|a|^2 + |p|^2)]
  with inner products of the embeddings as they come, P(a) the other columns
  of the anchor's person and N(a) the columns of other people. The penalty
  keeps the norms from growing without end.

  The paper compares one image of each person with one other of each person:
  give the former as anchors, the latter as columns, and anchor_rows = -1.
  With one array for both, the other people's anchors are negatives too.
  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    anchors: embeddings, float [b, D], not normalised.
    anchor_ids: identity of each anchor, int32 [b].
    columns: embeddings of the global batch, float [B, D].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; that
      column is the anchor itself and is left out. -1 = not among them.
    norm_penalty: c, >= 0. The paper has no number; 0.002, with the quarter,
      is TensorFlow's and Paddle's.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses, float32 [b], >= 0, and weights, float32 [b]: 1
    for anchors with a positive, else 0.

  Raises:
    ValueError: if shapes do not fit, embeddings are not floating point, ids
      are not int32 or the penalty is negative.

  Degenerate input: an anchor with no positive, or whose own column is
  padding, has value 0, weight 0 and no gradient; with no negative only the
  penalty is left.
  Example:
    >>> a, p = jnp.array([[1.0, 0], [0, 1]]), jnp.array([[2.0, 0], [0, 2]])
    >>> ids, rows = jnp.array([5, 8]), jnp.array([-1, -1])
    >>> values, _ = n_pair(
    ...   a, ids, p, ids, anchor_rows=rows, norm_penalty=0.0
    ... )
    >>> [round(float(v), 4) for v in values]
    [0.1269, 0.1269]

  References: Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair
    Loss Objective, section 3.
  """
  _checks.within("norm_penalty", norm_penalty, 0.0, float("inf"))
  pairs = _batch.make_pairs(
    anchors, anchor_ids, columns, column_ids, anchor_rows, column_weights
  )
  products = ops.pairwise_dot(pairs.anchors, pairs.columns)
  values = _batch.positive_against_negatives(products, pairs)
  anchor_sq = jnp.sum(jnp.square(pairs.anchors), axis=1)
  column_sq = jnp.sum(jnp.square(pairs.columns), axis=1)
  norms_sq = _batch.row_means(
    anchor_sq[:, None] + column_sq[None, :], pairs.positives
  )
  return _batch.terms(
    values + 0.25 * norm_penalty * norms_sq, jnp.any(pairs.positives, axis=1)
  )
