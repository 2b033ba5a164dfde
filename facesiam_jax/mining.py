"""Mining: which positives and negatives of a batch matter, inside jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Triplets(NamedTuple):
  """One triplet for each anchor, as indices into the columns.

  Attributes:
    positives: index of the chosen positive, int32 [b].
    negatives: index of the chosen negative, int32 [b].
    weights: 1 where the anchor has both, else 0, float32 [b].
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
) -> Triplets:
  """Picks each anchor's farthest positive and nearest negative.

  Batch meaning: uses all pairs of anchors and columns of the *global* batch.

  Args:
    distances: from anchors to columns, float [b, B]; squared or plain.
    anchor_ids: identity of each anchor, int32 [b].
    column_ids: identity of each column, int32 [B].
    anchor_rows: index of each anchor among the columns, int32 [b]; it is no
      positive of itself.

  Returns:
    Triplets of shape [b]. Ties go to the lowest index.

  Raises:
    ValueError: if the shapes do not fit.

  Degenerate input: an anchor without a positive or without a negative gets
  weight 0 and index 0 for what it lacks.
  References: Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5.
  """
  distances = jnp.asarray(distances)
  anchor_ids, column_ids = jnp.asarray(anchor_ids), jnp.asarray(column_ids)
  if distances.shape != anchor_ids.shape + column_ids.shape:
    raise ValueError(
      f"distances must be [anchors, columns], got {distances.shape} for "
      f"{anchor_ids.shape} anchors and {column_ids.shape} columns."
    )
  same = anchor_ids[:, None] == column_ids[None, :]
  columns = jnp.arange(column_ids.shape[0])
  positive = same & (jnp.asarray(anchor_rows)[:, None] != columns[None, :])
  hardest_positive = jnp.where(positive, distances, -jnp.inf)
  hardest_negative = jnp.where(same, jnp.inf, distances)
  exists = jnp.any(positive, axis=1) & jnp.any(~same, axis=1)
  return Triplets(
    positives=jnp.argmax(hardest_positive, axis=1),
    negatives=jnp.argmin(hardest_negative, axis=1),
    weights=exists.astype(jnp.float32),
  )
