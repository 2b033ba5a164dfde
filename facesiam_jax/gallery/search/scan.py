"""One pass over the gallery, block by block, that keeps the k best.

After the first blocks few rows beat what has been found. The largest score of
each group of columns says which groups can, and only those are sorted; how
many groups that is decides, so the result is exact whatever the data.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from facesiam_jax.gallery.search.rows import LAST, Rows
from facesiam_jax.gallery.search.scores import BlockScore, positive_zero

# Columns in a group, and how many groups a query may look at.
_GROUP = 64
_FEW = (4, 16)

Best = tuple[jax.Array, jax.Array]
# (carried, scores [Q, B], usable [B], start) -> (carried, scores [Q, B]); what
# it returns as -inf does not match.
Fold = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, jax.Array]]


def _join(best: Best, scores: jax.Array, places: jax.Array) -> Best:
  k = best[0].shape[1]
  # Old entries first: among equals top_k takes the one that comes first.
  scores = jnp.concatenate([best[0], scores], axis=1)
  places = jnp.concatenate([best[1], places], axis=1)
  scores, chosen = lax.top_k(scores, k)
  return scores, jnp.take_along_axis(places, chosen, axis=1)


def _look_at_all(best: Best, scores: jax.Array, start: jax.Array) -> Best:
  k = min(best[0].shape[1], scores.shape[1])
  scores, places = lax.top_k(scores, k)
  return _join(best, scores, places + start)


def _look_at_few(
  best: Best,
  scores: jax.Array,
  maxima: jax.Array,
  usable: jax.Array,
  start: jax.Array,
  few: int,
) -> Best:
  _, groups = lax.top_k(maxima, few)
  groups = lax.sort(groups, dimension=1)
  num_queries, num_groups = maxima.shape
  columns = groups[:, :, None] * _GROUP + jnp.arange(_GROUP)[None, None]
  columns = columns.reshape(num_queries, -1)
  shaped = scores.reshape(num_queries, num_groups, _GROUP)
  taken = jnp.take_along_axis(shaped, groups[:, :, None], axis=1)
  taken = _masked(taken.reshape(num_queries, -1), usable[columns])
  values, chosen = lax.top_k(taken, min(best[0].shape[1], few * _GROUP))
  places = jnp.take_along_axis(columns, chosen, axis=1)
  return _join(best, values, places + start)


def _masked(scores: jax.Array, usable: jax.Array) -> jax.Array:
  usable = usable & jnp.isfinite(scores)
  return jnp.where(usable, positive_zero(scores), -jnp.inf)


def _take_in(
  best: Best, scores: jax.Array, usable: jax.Array, start: jax.Array
) -> Best:
  """Returns the k best of those so far and of a block's scores [Q, B]."""
  num_queries, size = scores.shape
  everything = lambda: _look_at_all(best, _masked(scores, usable[None]), start)
  if size % _GROUP or size // _GROUP <= _FEW[-1]:
    return everything()
  # Unmasked, which is five times faster: rows that cannot match only make
  # their groups be looked at. So does NaN.
  maxima = jnp.max(scores.reshape(num_queries, -1, _GROUP), axis=-1)
  maxima = jnp.where(jnp.isnan(maxima), jnp.inf, maxima)
  beating = jnp.sum(maxima > best[0][:, -1:], axis=1)
  most = jnp.max(beating, initial=0)
  level = sum(jnp.int32(most > few) for few in (0, *_FEW))
  look = lambda few: (
    lambda: _look_at_few(best, scores, maxima, usable, start, few)
  )
  return lax.switch(level, [lambda: best, *map(look, _FEW), everything])


def scan(
  rows: Rows,
  queries: jax.Array,
  score: BlockScore,
  *,
  k: int,
  block: int,
  fold: Fold | None = None,
  carried: Any = None,
) -> Best:
  """Returns the k best (scores, places in the order); ties go to the lower.

  Args:
    rows: the gallery.
    queries: float32 [8 m, D].
    score: of queries and a block.
    k: how many to keep.
    block: rows of a block.
    fold: what makes other scores of a block's, in the order of the rows.
    carried: what it starts with.

  Returns:
    (scores float32 [8 m, k], places int32 [8 m, k]): -inf and LAST where
    fewer than k can match.
  """

  def step(
    state: tuple[Best, Any], start: jax.Array
  ) -> tuple[tuple[Best, Any], None]:
    best, carried = state
    scores = score(queries, rows.block(start, block))
    usable = lax.dynamic_slice_in_dim(rows.valid, start, block)
    if fold is not None:
      carried, scores = fold(carried, scores, usable, start)
      usable = jnp.ones(block, bool)
    return (_take_in(best, scores, usable, start), carried), None

  nothing = (
    jnp.full((queries.shape[0], k), -jnp.inf, jnp.float32),
    jnp.full((queries.shape[0], k), LAST, jnp.int32),
  )
  starts = jnp.arange(0, rows.valid.shape[0], block, dtype=jnp.int32)
  (best, _), _ = lax.scan(step, (nothing, carried), starts)
  scores, places = best
  return scores, jnp.where(scores == -jnp.inf, LAST, places)
