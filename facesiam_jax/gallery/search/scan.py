"""One pass over the gallery, block by block, that keeps the k best.

After the first blocks few rows beat what has been found. The largest score of
each group of rows says which groups can, and only those are sorted; the k
groups with the largest hold the k best for certain, whatever the data.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from facesiam_jax.gallery.search.rows import LAST, Rows, filled, round_up
from facesiam_jax.gallery.search.scores import BlockScore, positive_zero

# How many groups a query may look at before it looks at k.
_FEW = (4, 16)
# The most that scores of all rows may take, what they had better take where
# queries are many, how many queries make a product worth while, and of how
# many they should be a multiple.
_AT_ONCE_BYTES, _PART_BYTES, _MANY, _VECTOR = 1 << 27, 1 << 26, 128, 16
# Groups with rows that cannot match which are put right one by one.
_MOST_ODD = 160

Best = tuple[jax.Array, jax.Array]
# (Queries, rows) -> [B, Q], each an array or several, row by row.
RoughScore = Callable[[Any, Any], jax.Array]
# (carried, scores [B, Q], usable [B], start) -> (carried, scores [B, Q]); what
# it returns as -inf does not match.
Fold = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, jax.Array]]


def top(scores: jax.Array, k: int) -> Best:
  """Returns `lax.top_k`, the k largest of each row and their places."""
  values, places = lax.top_k(scores, k)
  # XLA sorts whole rows where it sees that single columns of this are taken.
  # A barrier around both ends the compiler where there are several devices.
  return lax.optimization_barrier(values), places


def nothing_yet(num_queries: int, k: int) -> Best:
  """Returns the k best of nothing: -inf and LAST, [Q, k] each."""
  return (
    jnp.full((num_queries, k), -jnp.inf, jnp.float32),
    jnp.full((num_queries, k), LAST, jnp.int32),
  )


def join(best: Best, scores: jax.Array, places: jax.Array) -> Best:
  """Returns the k best of those so far and of scores and places [Q, B]."""
  k = best[0].shape[1]
  # Old entries first: among equals top_k takes the one that comes first.
  scores = jnp.concatenate([best[0], scores], axis=1)
  places = jnp.concatenate([best[1], places], axis=1)
  scores, chosen = top(scores, k)
  return scores, jnp.take_along_axis(places, chosen, axis=1)


def masked(scores: jax.Array, usable: jax.Array) -> jax.Array:
  """Returns the scores, -inf where they are not usable or not finite."""
  usable = usable & jnp.isfinite(scores)
  return jnp.where(usable, positive_zero(scores), -jnp.inf)


def _group_size(size: int, k: int) -> int:
  """Returns how many rows a group has, 1 where groups do not pay."""
  # About as many groups as rows of the k best groups.
  group = 1 << max(0, round(math.log2(max(1.0, size / k) ** 0.5)))
  return group if group > 2 else 1


def _maxima(scores: jax.Array, usable: jax.Array, group: int) -> jax.Array:
  """Returns the largest usable score of each group, float32 [B / group, Q]."""
  shaped = scores.reshape(-1, group, scores.shape[1])
  usable = usable.reshape(-1, group, 1)
  # Unmasked, which is eight times faster: what cannot match is put right in
  # the few groups that have it.
  maxima = jnp.max(shaped, axis=1)
  odd = jnp.any(~usable[..., 0], axis=1)
  odd |= jnp.any(~jnp.isfinite(maxima), axis=1)
  few = min(len(odd), max(_MOST_ODD, len(odd) // 8))

  def mend() -> jax.Array:
    (places,) = jnp.nonzero(odd, size=few, fill_value=len(odd))
    own = masked(shaped[places], usable[places])
    return maxima.at[places].set(jnp.max(own, axis=1), mode="drop")

  all_masked = lambda: jnp.max(masked(shaped, usable), axis=1)
  number = jnp.sum(odd)
  level = sum(jnp.int32(number > x) for x in (0, few))
  maxima = lax.switch(level, [lambda: maxima, mend, all_masked])
  return positive_zero(maxima)


def _of_groups(
  scores: jax.Array, maxima: jax.Array, usable: jax.Array, k: int, number: int
) -> Best:
  """Returns the k best (scores, rows) of the groups of largest maxima."""
  num_groups, num_queries = maxima.shape
  group = scores.shape[0] // num_groups
  _, groups = top(maxima.T, number)
  groups = lax.sort(groups, dimension=1)
  rows = groups[:, :, None] * group + jnp.arange(group)[None, None]
  rows = rows.reshape(num_queries, -1)
  taken = scores[rows, jnp.arange(num_queries)[:, None]]
  taken = masked(taken, usable[rows])
  values, chosen = top(taken, min(k, taken.shape[1]))
  return values, jnp.take_along_axis(rows, chosen, axis=1)


def _of_all(scores: jax.Array, usable: jax.Array, k: int) -> Best:
  return top(masked(scores.T, usable[None]), k)


def best_of(scores: jax.Array, usable: jax.Array, k: int) -> Best:
  """Returns the k best (scores, rows) of each query; ties go to the lower.

  Args:
    scores: float32 [B, Q].
    usable: which rows can match, bool [B].
    k: how many, 1..B.

  Returns:
    (scores float32 [Q, k], rows int32 [Q, k]), -inf where fewer than k can
    match.
  """
  group = _group_size(scores.shape[0], k)
  if group == 1:
    return _of_all(scores, usable, k)
  missing = -scores.shape[0] % group
  scores = jnp.pad(scores, ((0, missing), (0, 0)))
  usable = jnp.pad(usable, (0, missing))
  maxima = _maxima(scores, usable, group)
  return _of_groups(scores, maxima, usable, k, min(k, maxima.shape[0]))


def take_in(
  best: Best, scores: jax.Array, usable: jax.Array, start: jax.Array
) -> Best:
  """Returns the k best of those so far and of a block's scores.

  Args:
    best: scores and places of the k best so far, [Q, k] each.
    scores: float32 [B, Q]; -inf where a query does not match.
    usable: which rows can match, bool [B].
    start: place of the first row, int32; places rise from call to call where
      ties are to go to the lower.
  """
  size, k = scores.shape[0], best[0].shape[1]
  group = _group_size(size, k)
  if group == 1 or size % group:
    values, rows = _of_all(scores, usable, min(k, size))
    return join(best, values, rows + start)
  maxima = _maxima(scores, usable, group)
  enough = min(k, maxima.shape[0])
  numbers = [few for few in _FEW if few < enough] + [enough]
  most = jnp.max(jnp.sum(maxima > best[0][None, :, -1], axis=0), initial=0)
  level = sum(jnp.int32(most > few) for few in (0, *numbers[:-1]))

  def look(number: int) -> Best:
    values, rows = _of_groups(scores, maxima, usable, k, number)
    return join(best, values, rows + start)

  looks = [functools.partial(look, number) for number in numbers]
  return lax.switch(level, [lambda: best, *looks])


def block_at(
  tree: Any, valid: jax.Array, start: jax.Array, block: int
) -> tuple[Any, jax.Array, jax.Array]:
  """Returns a block of rows, which of them can match, and where it begins.

  The last block begins early enough to be a whole one; what was in the one
  before it cannot match again.

  Args:
    tree: rows [G, ...], an array or several.
    valid: bool [G].
    start: the first row that is new, int32, < G.
    block: rows of a block, <= G.

  Returns:
    (rows [block, ...], bool [block], int32).
  """
  at = jnp.minimum(start, len(valid) - block)
  rows, usable = jax.tree.map(
    lambda x: lax.dynamic_slice_in_dim(x, at, block), (tree, valid)
  )
  anew = at + jnp.arange(block, dtype=jnp.int32) >= start
  return rows, usable & anew, at


def _rough_by_block(
  gallery: Any, valid: jax.Array, queries: Any, score: RoughScore, *, k: int,
  block: int,
) -> Best:  # fmt: skip
  def step(best: Best, start: jax.Array) -> tuple[Best, None]:
    rows, usable, at = block_at(gallery, valid, start, block)
    return take_in(best, score(queries, rows), usable, at), None

  starts = jnp.arange(0, len(valid), block, dtype=jnp.int32)
  return lax.scan(step, nothing_yet(_length(queries), k), starts)[0]


def _length(tree: Any) -> int:
  return len(jax.tree.leaves(tree)[0])


def in_parts(find: Callable[[Any], Any], tree: Any, each: int) -> Any:
  """Returns what is found for so many rows of the arrays at a time."""
  cut = lambda x: filled(x, each).reshape(-1, each, *x.shape[1:])
  found = lax.map(find, jax.tree.map(cut, tree))
  count = _length(tree)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)


def rough_scan(
  gallery: Any,
  valid: jax.Array,
  queries: Any,
  score: RoughScore,
  *,
  k: int,
  block: int,
) -> Best:
  """Returns the k best (scores, places in the gallery), ties in any order.

  XLA copies a part of the gallery before it multiplies by it, which takes as
  long as the product itself where queries are few: as long as the scores of
  some queries with all rows are small enough, the queries are cut in parts
  and not the gallery.

  Args:
    gallery: rows [G, ...], an array or several, G >= 1.
    valid: bool [G].
    queries: [Q, ...], an array or several.
    score: of queries and rows.
    k: how many to keep, 1..G.
    block: rows at a time where the gallery is cut.

  Returns:
    (scores float32 [Q, k], places int32 [Q, k]), -inf where fewer than k can
    match.
  """
  number = max(_MANY, _PART_BYTES // (4 * len(valid)) // _MANY * _MANY)
  size = _length(queries)
  together = min(number, size)
  if block < len(valid) and 4 * together * len(valid) > _AT_ONCE_BYTES:
    return _rough_by_block(gallery, valid, queries, score, k=k, block=block)
  find = lambda part: best_of(score(part, gallery), valid, k)
  parts = -(-size // number)
  if parts <= 1:
    return find(queries)
  # Whole vectors of queries, which products are quicker with.
  scores, places = in_parts(find, queries, round_up(-(-size // parts), _VECTOR))
  return scores, places


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
    queries: [8 m, D].
    score: of queries and a block.
    k: how many to keep.
    block: rows of a block.
    fold: what makes other scores of a block's, in the order of the rows.
    carried: what it starts with.

  Returns:
    (scores float32 [8 m, k], places int32 [8 m, k]): -inf and LAST where
    fewer than k can match.
  """

  def take(
    state: tuple[Best, Any], start: jax.Array, embeddings: jax.Array
  ) -> tuple[tuple[Best, Any], None]:
    best, carried = state
    scores = score(queries, embeddings)
    usable = lax.dynamic_slice_in_dim(rows.valid, start, block)
    if fold is not None:
      carried, scores = fold(carried, scores, usable, start)
      usable = jnp.ones(block, bool)
    return (take_in(best, scores, usable, start), carried), None

  starts = jnp.arange(0, rows.valid.shape[0], block, dtype=jnp.int32)

  def by_block(ordered: bool) -> Best:
    def step(state: tuple[Best, Any], start: jax.Array) -> Any:
      return take(state, start, rows.block(start, block, ordered=ordered))

    nothing = nothing_yet(queries.shape[0], k), carried
    return lax.scan(step, nothing, starts)[0][0]

  scores, places = lax.cond(
    rows.is_ordered, lambda: by_block(True), lambda: by_block(False)
  )
  return scores, jnp.where(scores == -jnp.inf, LAST, places)
