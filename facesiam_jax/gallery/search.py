"""Exact nearest templates of a gallery: pure functions of arrays.

The results are totally ordered (score descending, then template id ascending)
and their bits do not depend on how the queries are batched, on where a row
lies in the gallery or on what other rows there are: every matrix product has
the one shape [8 m, D] x [D, BLOCK], because the number of gallery rows in it
changes its bits. Only the scores of one block are held at a time.
"""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

BLOCK = 8192
METRICS = ("cosine", "euclidean")
NO_MATCH = -1

# A single query runs another kernel than a batch, so queries come in eights.
_TILE = 8
# How many more Euclidean candidates than k are kept for the exact second look.
_SLACK = 32
_LAST = jnp.iinfo(jnp.int32).max


class Found(NamedTuple):
  """The best templates of each query, best first.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k templates can match.
    ids: template ids, int32 [Q, k]; NO_MATCH where the score is -inf.
  """

  scores: jax.Array
  ids: jax.Array


class FoundPeople(NamedTuple):
  """The best template of each person, best person first.

  Attributes:
    scores: float32 [Q, k]; -inf where fewer than k people were found.
    ids: ids of the people's best templates, int32 [Q, k] or NO_MATCH.
    people: person ids, int32 [Q, k] or NO_MATCH.
  """

  scores: jax.Array
  ids: jax.Array
  people: jax.Array


class _Rows(NamedTuple):
  """A gallery padded to whole blocks, taken in the order of its ids.

  `valid` and `ids` are in that order; the embeddings, which would cost a copy,
  are where they were: row i of the order is embeddings[order[i]].
  """

  embeddings: jax.Array
  valid: jax.Array
  ids: jax.Array
  order: jax.Array
  is_ordered: jax.Array

  def block(self, start: jax.Array, size: int) -> jax.Array:
    """Returns `size` embeddings from place `start` of the order on."""
    return lax.cond(
      self.is_ordered,
      lambda: lax.dynamic_slice_in_dim(self.embeddings, start, size),
      lambda: self.embeddings[
        lax.dynamic_slice_in_dim(self.order, start, size)
      ],
    )


def _ordered_rows(
  gallery: jax.Array, valid: jax.Array, ids: jax.Array, block: int
) -> _Rows:
  num_rows = _round_up(gallery.shape[0], block)
  ids = _pad_rows(ids, num_rows, _LAST)
  is_ordered = jnp.all(ids[1:] >= ids[:-1])
  places = jnp.arange(num_rows, dtype=jnp.int32)
  order = lax.cond(
    is_ordered,
    lambda: places,
    lambda: lax.sort((ids, places), num_keys=2)[1],
  )
  valid = _pad_rows(valid, num_rows)
  gallery = _pad_rows(gallery, num_rows)
  return _Rows(gallery, valid[order], ids[order], order, is_ordered)


def _round_up(number: int, multiple: int) -> int:
  return max(1, -(-number // multiple)) * multiple


def _pad_rows(x: jax.Array, rows: int, value: int = 0) -> jax.Array:
  padding = [(0, rows - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
  return jnp.pad(x, padding, constant_values=value)


def _pad_queries(queries: jax.Array) -> jax.Array:
  # Copies of a real query: zeros may be equally far from the whole gallery,
  # the case that the Euclidean search is slow in.
  missing = _round_up(queries.shape[0], _TILE) - queries.shape[0]
  mode = "edge" if queries.shape[0] else "constant"
  return jnp.pad(queries, ((0, missing), (0, 0)), mode=mode)


def _positive_zero(scores: jax.Array) -> jax.Array:
  # top_k orders -0.0 below 0.0 on some backends, which would break ties.
  return jnp.where(scores == 0, 0.0, scores)


def _direct_score(queries: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns -|q - g|^2, [8, D] and [8 or 1, N, D] -> [8, N], uncancelled."""
  # The barrier keeps the subtraction from being fused with whatever produced
  # the rows, so that both of its uses round alike.
  queries, rows = lax.optimization_barrier((queries, rows))
  return -jnp.sum(jnp.square(queries[:, None, :] - rows), axis=-1)


def _block_score(
  queries: jax.Array, block: jax.Array, *, metric: str, direct: bool
) -> jax.Array:
  """Returns scores float32 [Q, BLOCK] of one block, up to a query constant."""
  if direct:
    tiles = queries.reshape(-1, _TILE, queries.shape[1])
    scores = lax.map(lambda tile: _direct_score(tile, block[None]), tiles)
    return scores.reshape(queries.shape[0], block.shape[0])
  products = lax.dot_general(
    queries,
    block,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
  if metric == "cosine":
    return products
  return 2.0 * products - jnp.sum(jnp.square(block), axis=-1)[None, :]


def _scan(
  rows: _Rows,
  queries: jax.Array,
  *,
  k: int,
  metric: str,
  block: int,
  direct: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, places in the order); ties go to the lower."""
  num_queries = queries.shape[0]
  within = min(k, block)

  def step(
    best: tuple[jax.Array, jax.Array], start: jax.Array
  ) -> tuple[tuple[jax.Array, jax.Array], None]:
    embeddings = rows.block(start, block)
    valid = lax.dynamic_slice_in_dim(rows.valid, start, block)
    scores = _block_score(queries, embeddings, metric=metric, direct=direct)
    usable = valid[None, :] & jnp.isfinite(scores)
    scores = jnp.where(usable, _positive_zero(scores), -jnp.inf)
    scores, positions = lax.top_k(scores, within)
    # Old entries first: among equals top_k takes the one that comes first.
    scores = jnp.concatenate([best[0], scores], axis=1)
    positions = jnp.concatenate([best[1], positions + start], axis=1)
    scores, chosen = lax.top_k(scores, k)
    return (scores, jnp.take_along_axis(positions, chosen, axis=1)), None

  nothing = (
    jnp.full((num_queries, k), -jnp.inf, jnp.float32),
    jnp.full((num_queries, k), _LAST, jnp.int32),
  )
  starts = jnp.arange(0, rows.valid.shape[0], block, dtype=jnp.int32)
  return lax.scan(step, nothing, starts)[0]


def _rescore(
  rows: _Rows, queries: jax.Array, positions: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best of the candidates by -|q - g|^2 without cancellation.

  Args:
    rows: the padded gallery.
    queries: float32 [8 m, D].
    positions: candidates' places in the order, int32 [8 m, C], C >= k; _LAST
      means none.
    k: how many to keep.

  Returns:
    (scores float32 [8 m, k], positions int32 [8 m, k]).
  """

  def rescore_tile(
    tile: tuple[jax.Array, jax.Array],
  ) -> tuple[jax.Array, jax.Array]:
    queries, positions = tile
    positions = lax.sort(positions, dimension=1)
    taken = jnp.minimum(positions, rows.valid.shape[0] - 1)
    scores = _direct_score(queries, rows.embeddings[rows.order[taken]])
    usable = (positions != _LAST) & rows.valid[taken] & jnp.isfinite(scores)
    scores = jnp.where(usable, _positive_zero(scores), -jnp.inf)
    scores, chosen = lax.top_k(scores, k)
    return scores, jnp.take_along_axis(positions, chosen, axis=1)

  tiles = (
    queries.reshape(-1, _TILE, queries.shape[1]),
    positions.reshape(-1, _TILE, positions.shape[1]),
  )
  scores, positions = lax.map(rescore_tile, tiles)
  return scores.reshape(-1, k), positions.reshape(-1, k)


def _euclidean(
  rows: _Rows, queries: jax.Array, *, k: int, block: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, positions) by -|q - g|^2.

  2 q.g - |g|^2 finds the candidates, and the differences themselves score
  them. With e the largest rounding error of the product form, the candidates
  hold the k best for certain when the last of them lies more than 2 e below
  the k-th; where it does not (very many near duplicates), the differences of
  the whole gallery are formed instead.
  """
  candidates = min(k + _SLACK, max(k, rows.valid.shape[0]))
  scan = functools.partial(
    _scan, rows, queries, k=candidates, metric="euclidean", block=block
  )
  scores, positions = scan()
  norm_sq = jnp.sum(jnp.square(rows.embeddings), axis=-1)[rows.order]
  usable = rows.valid & jnp.isfinite(norm_sq)
  reach = jnp.sqrt(jnp.max(jnp.where(usable, norm_sq, 0.0)))
  reach = jnp.linalg.norm(queries, axis=-1) + reach
  # n u / (1 - n u) with n = D + 4 roundings, for both ways of computing.
  error = (queries.shape[1] + 4) * 2.0**-23 * jnp.square(reach)
  certain = (scores[:, -1] == -jnp.inf) | (
    scores[:, k - 1] - error > scores[:, -1] + error
  )
  positions = lax.cond(
    jnp.all(certain), lambda: positions, lambda: scan(direct=True)[1]
  )
  return _rescore(rows, queries, positions, k=k)


def _search(
  rows: _Rows, queries: jax.Array, *, k: int, metric: str, block: int
) -> Found:
  if metric == "cosine":
    scores, positions = _scan(rows, queries, k=k, metric=metric, block=block)
  else:
    scores, positions = _euclidean(rows, queries, k=k, block=block)
  ids = rows.ids[jnp.minimum(positions, rows.ids.shape[0] - 1)]
  return Found(scores, jnp.where(scores == -jnp.inf, NO_MATCH, ids))


def _check(
  gallery: jax.Array, queries: jax.Array, *, k: int, metric: str, block: int
) -> None:
  chex.assert_rank([gallery, queries], 2)
  if gallery.shape[1] != queries.shape[1]:
    raise ValueError(
      "gallery and queries must have the same number of dimensions, got "
      f"shapes {gallery.shape} and {queries.shape}."
    )
  if metric not in METRICS:
    raise ValueError(f"metric must be one of {METRICS}, got {metric!r}.")
  if k < 1 or block < 1:
    raise ValueError(f"k and block must be at least 1, got {k} and {block}.")


def top_k(
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  metric: str,
  block: int = BLOCK,
) -> Found:
  """Finds the k best templates of each query, exactly and totally ordered.

  The score is q.g for "cosine" and -|q - g|^2 for "euclidean", where the
  winners are scored by their differences, so that a template equal to the
  query scores 0 and near duplicates keep their relative accuracy. Order:
  score descending, then template id ascending.
  Batch meaning: rows of `queries` are independent, to the bit.

  Args:
    gallery: templates, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G]. Ascending ids
      save a sort.
    queries: float [Q, D]; unit rows for "cosine".
    k: how many templates, >= 1; may exceed G.
    metric: "cosine" or "euclidean".
    block: rows in a matrix product. Another block gives the same ids up to
      rounding of the scores.

  Returns:
    Found(scores float32 [Q, k], ids int32 [Q, k]), padded with -inf and
    NO_MATCH.

  Raises:
    ValueError: if the dimensions differ, or for a wrong metric, k or block.

  Degenerate input: an empty gallery (G = 0) gives NO_MATCH everywhere; rows
  and queries with a NaN or an infinity match nothing and disturb no other.
  Example:
    >>> found = top_k([[1.0, 0.0], [0.0, 1.0]], [1, 1], [7, 8],
    ...               [[0.0, 1.0]], k=1, metric="cosine")
    >>> found.ids.tolist()
    [[8]]
  """
  gallery = jnp.asarray(gallery).astype(jnp.float32)
  queries = jnp.asarray(queries).astype(jnp.float32)
  _check(gallery, queries, k=k, metric=metric, block=block)
  valid = jnp.asarray(valid).astype(bool)
  template_ids = jnp.asarray(template_ids).astype(jnp.int32)
  chex.assert_shape([valid, template_ids], (gallery.shape[0],))
  rows = _ordered_rows(gallery, valid, template_ids, block)
  found = _search(rows, _pad_queries(queries), k=k, metric=metric, block=block)
  return Found(*(x[: queries.shape[0]] for x in found))


def merge(scores: ArrayLike, ids: ArrayLike, *, k: int) -> Found:
  """Merges results of several searches, such as one a device, into one.

  Args:
    scores: float [Q, M], -inf where nothing was found.
    ids: template ids, int32 [Q, M], each at most once a row.
    k: how many to keep, 1 <= k <= M.

  Returns:
    Found(scores [Q, k], ids [Q, k]), score descending, then id ascending.

  Raises:
    ValueError: if the shapes differ or k is out of range.
  """
  scores = jnp.asarray(scores).astype(jnp.float32)
  ids = jnp.asarray(ids).astype(jnp.int32)
  if scores.shape != ids.shape or not 1 <= k <= scores.shape[1]:
    raise ValueError(
      f"scores {scores.shape} and ids {ids.shape} must have one shape [Q, M] "
      f"with 1 <= k <= M, got k = {k}."
    )
  negated, ids = lax.sort((-scores, ids), dimension=1, num_keys=2)
  return Found(-negated[:, :k], ids[:, :k])


def best_per_person(
  scores: ArrayLike, ids: ArrayLike, people: ArrayLike, *, k: int
) -> FoundPeople:
  """Keeps the best template of each person: a person's score is its maximum.

  The result holds the k best people for certain if the columns come from
  `top_k` and hold k different people or every template.

  Args:
    scores: of templates, best first, float [Q, M].
    ids: template ids, int32 [Q, M]; NO_MATCH where nothing was found.
    people: the templates' person ids, int32 [Q, M], >= 0.
    k: how many people, 1 <= k <= M.

  Returns:
    FoundPeople, float32 and int32 [Q, k], in the order of the columns.

  Raises:
    ValueError: if the shapes differ or k is out of range.
  """
  scores = jnp.asarray(scores).astype(jnp.float32)
  ids = jnp.asarray(ids).astype(jnp.int32)
  people = jnp.asarray(people).astype(jnp.int32)
  if not scores.shape == ids.shape == people.shape:
    raise ValueError(
      "scores, ids and people must have the same shape, got "
      f"{scores.shape}, {ids.shape} and {people.shape}."
    )
  columns = scores.shape[1]
  if not 1 <= k <= columns:
    raise ValueError(f"k must be in 1..{columns}, got {k}.")
  people = jnp.where(ids == NO_MATCH, NO_MATCH, people)
  place = lax.broadcasted_iota(jnp.int32, people.shape, 1)
  ordered, place = lax.sort((people, place), dimension=1, num_keys=2)
  before = jnp.pad(ordered, ((0, 0), (1, 0)), constant_values=NO_MATCH)
  first = ordered != before[:, :-1]
  place = lax.sort(jnp.where(first, place, columns), dimension=1)[:, :k]

  def take(values: jax.Array, missing: float) -> jax.Array:
    padded = jnp.pad(values, ((0, 0), (0, 1)), constant_values=missing)
    return jnp.take_along_axis(padded, place, axis=1)

  return FoundPeople(
    take(scores, -jnp.inf), take(ids, NO_MATCH), take(people, NO_MATCH)
  )
