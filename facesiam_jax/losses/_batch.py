"""What the batch-wise losses share: who is compared with whom, and sums."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.losses import _checks


class Pairs(NamedTuple):
  """Anchors against columns, with padding taken out.

  Attributes:
    anchors: float32 [b, D]; rows of padding are zero.
    columns: float32 [B, D]; rows of padding are zero.
    positives: pairs of one person, bool [b, B], without the anchor itself.
    negatives: pairs of two people, bool [b, B].
  """

  anchors: jax.Array
  columns: jax.Array
  positives: jax.Array
  negatives: jax.Array


def as_embeddings(
  name: str, x: ArrayLike, other: str, y: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Returns two sets of embeddings of one width, float32."""
  rows, columns = _checks.floats(name, x, 2), _checks.floats(other, y, 2)
  if rows.shape[1] != columns.shape[1]:
    raise ValueError(
      f"{name} and {other} must have the same width, got {rows.shape} and "
      f"{columns.shape}."
    )
  return rows, columns


def make_pairs(
  anchors: ArrayLike,
  anchor_ids: ArrayLike,
  columns: ArrayLike,
  column_ids: ArrayLike,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None,
) -> Pairs:
  """Checks the arguments of a batch-wise loss and pairs them up.

  An anchor whose own column is padding has neither positives nor negatives.
  """
  rows, gathered = as_embeddings("anchors", anchors, "columns", columns)
  row_ids = _checks.labels("anchor_ids", anchor_ids, "anchors", rows)
  ids = _checks.labels("column_ids", column_ids, "columns", gathered)
  weights = _checks.weights(
    "column_weights", column_weights, "columns", gathered
  )
  last = gathered.shape[0] - 1
  places = _checks.labels(
    "anchor_rows", anchor_rows, "anchors", rows, low=-1, high=last
  )
  valid = weights > 0
  own = (places < 0) | valid[jnp.maximum(places, 0)]
  # Both sides are replaced before the arithmetic: a NaN of padding would
  # otherwise come back in the gradient as 0 * NaN.
  rows = jnp.where(own[:, None], rows, 0.0)
  gathered = jnp.where(valid[:, None], gathered, 0.0)
  itself = places[:, None] == jnp.arange(last + 1)[None, :]
  compared = own[:, None] & valid[None, :] & ~itself
  same = row_ids[:, None] == ids[None, :]
  return Pairs(rows, gathered, compared & same, compared & ~same)


def log_sum_exp(x: jax.Array, where: jax.Array) -> jax.Array:
  """Returns log sum exp of each row's marked entries, float32 [b].

  Degenerate input: a row without any gives -inf, as log 0 does, with gradient
  0, so that `softplus` of it is 0 and its gradient too.
  """
  exists = jnp.any(where, axis=1)
  # An empty row sums all its entries instead, and the result is dropped: the
  # gradient of an empty sum would be 0 / 0.
  sums = jax.nn.logsumexp(x, axis=1, where=where | ~exists[:, None])
  return jnp.where(exists, sums, -jnp.inf)


def log1p_sum_exp(x: jax.Array, where: jax.Array) -> jax.Array:
  """Returns log(1 + sum exp) of each row's marked entries, float32 [b].

  softplus(log_sum_exp) has the 1 inside the logarithm and keeps the digits of
  a sum far below 1. A row without any entry gives 0.
  """
  return jax.nn.softplus(log_sum_exp(x, where))


def row_means(x: jax.Array, where: jax.Array) -> jax.Array:
  """Returns the mean of each row's marked entries, float32 [b]; 0 if none."""
  count = jnp.maximum(jnp.sum(where, axis=1), 1)
  return jnp.sum(jnp.where(where, x, 0.0), axis=1) / count


def terms(values: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns (values, weights), both 0 where the row is not present."""
  return jnp.where(present, values, 0.0), present.astype(jnp.float32)


def positive_against_negatives(logits: jax.Array, pairs: Pairs) -> jax.Array:
  """Returns mean_p log(1 + sum_n exp(z_n - z_p)) of each anchor, float32 [b].

  This is -log of the softmax share of each positive among itself and all
  negatives, other positives left out.
  """
  total = log_sum_exp(logits, pairs.negatives)
  return row_means(jax.nn.softplus(total[:, None] - logits), pairs.positives)
