"""A gallery in the order of its ids, cut into blocks, and its queries."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

BLOCK = 8192
NO_MATCH = -1
# A single query runs another kernel than a batch, so queries come in eights.
TILE = 8
LAST = jnp.iinfo(jnp.int32).max


class Rows(NamedTuple):
  """A gallery padded to whole blocks, taken in the order of its ids.

  `valid` and `ids` are in that order; the embeddings, which would cost a copy,
  are where they were: row i of the order is embeddings[order[i]].
  """

  embeddings: jax.Array
  valid: jax.Array
  ids: jax.Array
  order: jax.Array
  is_ordered: jax.Array

  def block(self, start: jax.Array, size: int, *, ordered: bool) -> jax.Array:
    """Returns `size` embeddings from place `start` of the order on.

    Args:
      start: int32, a multiple of `size`.
      size: rows of a block.
      ordered: what `is_ordered` is: then they are read where they lie.
    """
    if ordered:
      return lax.dynamic_slice_in_dim(self.embeddings, start, size)
    return self.embeddings[lax.dynamic_slice_in_dim(self.order, start, size)]

  def ids_at(self, places: jax.Array) -> jax.Array:
    """Returns the ids at places of the order; any id where there is none."""
    return self.ids[jnp.minimum(places, self.ids.shape[0] - 1)]


def round_up(number: int, multiple: int) -> int:
  """Returns the least multiple that is >= number, and at least one."""
  return max(1, -(-number // multiple)) * multiple


def pad(x: jax.Array, rows: int, value: int = 0) -> jax.Array:
  """Returns x with so many rows, the new ones filled with the value."""
  padding = [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
  return jnp.pad(x, padding, constant_values=value)


def ordered(
  gallery: jax.Array,
  valid: jax.Array,
  ids: jax.Array,
  block: int,
  then: jax.Array | None = None,
) -> Rows:
  """Puts a gallery into the order of its ids.

  Args:
    gallery: float32 [G, D].
    valid: bool [G].
    ids: of templates or people, int32 [G].
    block: rows of a block.
    then: what decides the order of equal ids, int32 [G].

  Returns:
    The rows, padded to whole blocks.
  """
  num_rows = round_up(gallery.shape[0], block)
  given = (ids,) if then is None else (ids, then)
  keys = tuple(pad(key, num_rows, LAST) for key in given)
  rising = keys[-1][1:] >= keys[-1][:-1]
  if then is not None:
    equal = keys[0][1:] == keys[0][:-1]
    rising = (keys[0][1:] > keys[0][:-1]) | (equal & rising)
  is_ordered = jnp.all(rising)
  places = jnp.arange(num_rows, dtype=jnp.int32)
  order = lax.cond(
    is_ordered,
    lambda: places,
    lambda: lax.sort((*keys, places), num_keys=len(keys) + 1)[-1],
  )
  valid = pad(valid, num_rows)
  gallery = pad(gallery, num_rows)
  return Rows(gallery, valid[order], keys[0][order], order, is_ordered)


def filled(x: jax.Array, multiple: int) -> jax.Array:
  """Returns x with its last row again until the rows are a multiple, >= 1."""
  # Copies of a real query: zeros may be equally far from the whole gallery,
  # the case that the search is slow in.
  missing = round_up(x.shape[0], multiple) - x.shape[0]
  mode = "edge" if x.shape[0] else "constant"
  return jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1)), mode=mode)


def in_eights(x: jax.Array) -> jax.Array:
  """Returns x [8 m, ...], m >= 1: its last row again until that is so."""
  return filled(x, TILE)


def checked(
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  block: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Returns the four arrays as float32, bool, int32 and float32.

  Args:
    gallery: float [G, D].
    valid: bool or int [G].
    template_ids: int [G].
    queries: float [Q, D].
    k: how many are sought.
    block: rows of a block.

  Returns:
    (gallery, valid, template_ids, queries).

  Raises:
    ValueError: if the dimensions differ, for k or block below 1, or where a
      query that is known (not inside jit) is not finite.
  """
  check_queries(queries)
  gallery = jnp.asarray(gallery).astype(jnp.float32)
  queries = jnp.asarray(queries).astype(jnp.float32)
  chex.assert_rank([gallery, queries], 2)
  if gallery.shape[1] != queries.shape[1]:
    raise ValueError(
      "gallery and queries must have the same number of dimensions, got "
      f"shapes {gallery.shape} and {queries.shape}."
    )
  if k < 1 or block < 1:
    raise ValueError(f"k and block must be at least 1, got {k} and {block}.")
  valid = jnp.asarray(valid).astype(bool)
  template_ids = jnp.asarray(template_ids).astype(jnp.int32)
  chex.assert_shape([valid, template_ids], (gallery.shape[0],))
  return gallery, valid, template_ids, queries


def check_queries(queries: ArrayLike) -> None:
  """Raises ValueError if queries are known (not inside jit) and not finite."""
  if isinstance(queries, jax.core.Tracer):
    return
  if isinstance(queries, jax.Array) and not queries.is_fully_addressable:
    return
  values = np.asarray(jax.device_get(queries))
  finite = np.isfinite(values.astype(np.float32))
  if not finite.all():
    row = int(np.argwhere(~finite)[0][0])
    raise ValueError(
      f"queries must be finite, got NaN or infinity in row {row}; leave that "
      "face out."
    )
