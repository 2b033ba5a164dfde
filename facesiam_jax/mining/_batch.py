"""What the miners share: checks, who is whose positive, first of the best."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Positive = Literal["every", "hardest", "easiest"]
_POSITIVE = ("every", "hardest", "easiest")
_INT32 = np.iinfo(np.int32)
# Stands for infinite distances, so that they still sort before "no such pair".
_LARGEST = float(np.finfo(np.float32).max)


class Batch(NamedTuple):
  """Anchors against columns, with padding and the anchors themselves out.

  Attributes:
    anchor_ids: int32 [b].
    column_ids: int32 [B].
    anchor_rows: index of each anchor among the columns or -1, int32 [b].
    valid: columns that are no padding, bool [B].
    positives: pairs of one person, bool [b, B].
    negatives: pairs of two people, bool [b, B].
  """

  anchor_ids: jax.Array
  column_ids: jax.Array
  anchor_rows: jax.Array
  valid: jax.Array
  positives: jax.Array
  negatives: jax.Array


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  """Raises ValueError unless the value is one of the choices."""
  if value not in choices:
    raise ValueError(f"{name} must be one of {choices}, got {value!r}.")


def check_positive_choice(positive: str, max_positives: int | None) -> None:
  """Raises ValueError unless `positive` and `max_positives` fit together."""
  check_choice("positive", positive, _POSITIVE)
  if positive == "every" and max_positives is None:
    raise ValueError(
      "positive='every' needs max_positives, the most positives an anchor can "
      "have: K - 1 in a P x K batch."
    )
  if positive != "every" and max_positives is not None:
    raise ValueError(
      f"max_positives belongs to positive='every', got {max_positives} with "
      f"positive={positive!r}."
    )


def check_above(name: str, value: float, low: float) -> None:
  """Raises ValueError unless value > low; NaN is refused too."""
  if not value > low:
    raise ValueError(f"{name} must be above {low}, got {value}.")


def _known(x: ArrayLike) -> np.ndarray | None:
  """Returns the values, or None where they are not known (inside jit)."""
  if isinstance(x, jax.core.Tracer):
    return None
  if isinstance(x, jax.Array) and not x.is_fully_addressable:
    return None
  # An explicit transfer: the training loop forbids implicit ones.
  return np.asarray(jax.device_get(x))


def integers(
  name: str, x: ArrayLike, low: int = _INT32.min, high: int = _INT32.max
) -> jax.Array:
  """Returns integers [n] as int32, refusing what does not fit."""
  values, array = _known(x), jnp.asarray(x)
  if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(
      f"{name} must be integers [n], got {array.dtype} {array.shape}."
    )
  if not array.size:
    raise ValueError(f"{name} is empty, got shape {array.shape}.")
  if values is not None and not (low <= values.min() and values.max() <= high):
    raise ValueError(
      f"{name} must be from {low} to {high}, got {values.min()} to "
      f"{values.max()}."
    )
  return array.astype(jnp.int32)


def labels(
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns checked (anchor ids, column ids, anchor rows, valid columns)."""
  ids = integers("anchor_ids", anchor_ids)
  others = integers("column_ids", column_ids)
  rows = integers("anchor_rows", anchor_rows, -1, others.shape[0] - 1)
  if rows.shape != ids.shape:
    raise ValueError(
      f"anchor_rows and anchor_ids must have the same shape, got {rows.shape} "
      f"and {ids.shape}."
    )
  if column_weights is None:
    return ids, others, rows, jnp.ones(others.shape, bool)
  weights = jnp.asarray(column_weights)
  if weights.shape != others.shape:
    raise ValueError(
      f"column_weights and column_ids must have the same shape, got "
      f"{weights.shape} and {others.shape}."
    )
  return ids, others, rows, weights > 0


def own_valid(rows: jax.Array, valid: jax.Array) -> jax.Array:
  """Returns which anchors count, bool [b]: their own column is no padding."""
  return (rows < 0) | valid[jnp.maximum(rows, 0)]


def pair_up(
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None,
) -> Batch:
  """Checks the labels and says who is whose positive and negative."""
  ids, others, rows, valid = labels(
    anchor_ids, column_ids, anchor_rows, column_weights
  )
  columns = jnp.arange(others.shape[0], dtype=jnp.int32)
  same = ids[:, None] == others[None, :]
  counts = own_valid(rows, valid)[:, None] & valid[None, :]
  itself = rows[:, None] == columns[None, :]
  return Batch(
    anchor_ids=ids,
    column_ids=others,
    anchor_rows=rows,
    valid=valid,
    positives=counts & same & ~itself,
    negatives=counts & ~same & ~itself,
  )


def compare(
  name: str,
  matrix: ArrayLike,
  anchor_ids: ArrayLike,
  column_ids: ArrayLike,
  anchor_rows: ArrayLike,
  column_weights: ArrayLike | None,
) -> tuple[jax.Array, Batch]:
  """Checks a matrix of distances or similarities along with its labels."""
  matrix = jnp.asarray(matrix)
  shape = (*jnp.shape(anchor_ids), *jnp.shape(column_ids))
  if matrix.ndim != 2 or matrix.shape != shape:
    raise ValueError(
      f"{name} must be [anchors, columns], got {matrix.shape} for "
      f"{jnp.shape(anchor_ids)} anchors and {jnp.shape(column_ids)} columns."
    )
  if not jnp.issubdtype(matrix.dtype, jnp.floating):
    raise ValueError(
      f"{name} must be floating point, got dtype {matrix.dtype}."
    )
  batch = pair_up(anchor_ids, column_ids, anchor_rows, column_weights)
  return matrix.astype(jnp.float32), batch


def first_smallest(values: jax.Array, where: jax.Array) -> jax.Array:
  """Returns the lowest index of each row's smallest marked entry, int32 [b].

  A marked NaN comes first; a row without a marked entry gives 0.
  """
  finite = jnp.minimum(values, _LARGEST)
  return jnp.argmin(jnp.where(where, finite, jnp.inf), axis=1).astype(jnp.int32)


def first_largest(values: jax.Array, where: jax.Array) -> jax.Array:
  """Returns the lowest index of each row's largest marked entry, int32 [b].

  A marked NaN comes first; a row without a marked entry gives 0.
  """
  finite = jnp.maximum(values, -_LARGEST)
  return jnp.argmax(jnp.where(where, finite, -jnp.inf), axis=1).astype(
    jnp.int32
  )


def positive_columns(
  batch: Batch, max_positives: int
) -> tuple[jax.Array, jax.Array]:
  """Lists each anchor's positives by rising column, in fixed-size rows.

  With the columns sorted by identity a person's columns are neighbours, so
  this looks at b * max_positives numbers, not at b * B.

  Args:
    batch: who is whose positive.
    max_positives: M, >= 1; of an anchor with more, the first M are listed.

  Returns:
    (columns, exists): int32 [b, M], 0 where there is none, and bool [b, M].

  Raises:
    ValueError: if max_positives is not from 1 to B.
  """
  size = batch.column_ids.shape[0]
  if not 1 <= max_positives <= size:
    raise ValueError(
      f"max_positives must be from 1 to {size}, the number of columns; got "
      f"{max_positives}."
    )
  padding = (~batch.valid).astype(jnp.int32)
  columns = jnp.arange(size, dtype=jnp.int32)
  # Padding goes last, whatever its ids are.
  padding, ids, order = jax.lax.sort(
    (padding, batch.column_ids, columns), num_keys=3
  )
  ids = jnp.where(padding > 0, _INT32.max, ids)
  start = jnp.searchsorted(ids, batch.anchor_ids).astype(jnp.int32)
  # The anchor itself is one of its person's columns: look one place further.
  places = start[:, None] + jnp.arange(max_positives + 1, dtype=jnp.int32)[None]
  inside = jnp.minimum(places, size - 1)
  found = order[inside]
  person = (places < size) & (ids[inside] == batch.anchor_ids[:, None])
  person &= batch.valid[found]
  person &= own_valid(batch.anchor_rows, batch.valid)[:, None]
  before_itself = jnp.cumsum(found == batch.anchor_rows[:, None], axis=1) == 0
  # From the anchor itself on, every entry moves up by one place.
  columns = jnp.where(before_itself[:, :-1], found[:, :-1], found[:, 1:])
  exists = jnp.where(before_itself[:, :-1], person[:, :-1], person[:, 1:])
  return jnp.where(exists, columns, 0), exists


def choose_positives(
  matrix: jax.Array,
  batch: Batch,
  positive: Positive,
  max_positives: int | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns (columns [b, M], exists [b, M]) as `positive` says; M may be 1."""
  if positive == "every":
    assert max_positives is not None, "check_positive_choice comes first"
    return positive_columns(batch, max_positives)
  pick = first_largest if positive == "hardest" else first_smallest
  columns = pick(matrix, batch.positives)
  exists = jnp.any(batch.positives, axis=1)
  return columns[:, None], exists[:, None]
