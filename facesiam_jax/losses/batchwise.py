"""Losses that compare each anchor with the whole global batch.

The anchors are a device's own rows, the columns the rows of all devices
(`lax.all_gather(..., tiled=True)`), so that loss and gradient do not depend
on the number of devices. On one device both are the same array.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import ops


def _check_batch(
  anchors: jax.Array, ids: jax.Array, columns: jax.Array, column_ids: jax.Array
) -> None:
  if anchors.ndim != 2 or columns.ndim != 2:
    raise ValueError(
      f"anchors and columns must be [B, D], got {anchors.shape} and "
      f"{columns.shape}."
    )
  if anchors.shape[:1] != ids.shape or columns.shape[:1] != column_ids.shape:
    raise ValueError(
      f"each embedding needs one identity id, got {anchors.shape} with "
      f"{ids.shape} and {columns.shape} with {column_ids.shape}."
    )


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
      column is the anchor itself and is left out.
    temperature: t, > 0.
    column_weights: 0 = padding column, float [B]; None means all ones.

  Returns:
    (values, weights): losses in nats, float32 [b], >= 0, and weights, float32
    [b]: 0 for anchors without a positive.

  Raises:
    ValueError: if shapes do not fit or the temperature is not positive.

  Degenerate input: an anchor with no positive has value 0 and weight 0; with
  no negative the loss is that over the positives alone.
  References: Khosla et al. 2020, Supervised Contrastive Learning, eq. 2.
  """
  if temperature <= 0:
    raise ValueError(f"temperature must be positive, got {temperature}.")
  anchors, columns = jnp.asarray(anchors), jnp.asarray(columns)
  anchor_ids, column_ids = jnp.asarray(anchor_ids), jnp.asarray(column_ids)
  _check_batch(anchors, anchor_ids, columns, column_ids)
  valid = jnp.ones(columns.shape[:1], bool)
  if column_weights is not None:
    valid = jnp.asarray(column_weights) > 0
    columns = jnp.where(valid[:, None], columns, 0.0)
  rows = jnp.asarray(anchor_rows)[:, None]
  candidates = valid[None, :] & (rows != jnp.arange(columns.shape[0])[None, :])
  positives = candidates & (anchor_ids[:, None] == column_ids[None, :])
  logits = ops.pairwise_cosine_similarity(anchors, columns) / temperature
  log_total = jax.nn.logsumexp(logits, axis=-1, where=candidates, keepdims=True)
  num_positives = jnp.sum(positives, axis=-1)
  # Without positives log_total may be log(0); the `where` keeps it out of the
  # sum before anything is multiplied with it.
  log_shares = jnp.where(positives, logits - log_total, 0.0)
  values = -jnp.sum(log_shares, axis=-1) / jnp.maximum(num_positives, 1)
  return values, (num_positives > 0).astype(jnp.float32)
