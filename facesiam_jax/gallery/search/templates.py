"""The k best templates of each query."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search import rows as rows_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search.ordering import Found
from facesiam_jax.gallery.search.rows import BLOCK, LAST, NO_MATCH, TILE, Rows
from facesiam_jax.gallery.search.scan import scan

# How many more Euclidean candidates than k are kept for the exact second look.
_SLACK = 32


def _rescore(
  rows: Rows, queries: jax.Array, positions: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best of the candidates by -|q - g|^2 without cancellation.

  Args:
    rows: the padded gallery.
    queries: float32 [8 m, D].
    positions: candidates' places in the order, int32 [8 m, C], C >= k; LAST
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
    scores = scores_lib.tile_distances(
      queries, rows.embeddings[rows.order[taken]]
    )
    usable = (positions != LAST) & rows.valid[taken] & jnp.isfinite(scores)
    scores = jnp.where(usable, scores_lib.positive_zero(scores), -jnp.inf)
    scores, chosen = lax.top_k(scores, k)
    return scores, jnp.take_along_axis(positions, chosen, axis=1)

  tiles = (
    queries.reshape(-1, TILE, queries.shape[1]),
    positions.reshape(-1, TILE, positions.shape[1]),
  )
  scores, positions = lax.map(rescore_tile, tiles)
  return scores.reshape(-1, k), positions.reshape(-1, k)


def _euclidean(
  rows: Rows, queries: jax.Array, *, k: int, block: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, positions) by -|q - g|^2.

  2 q.g - |g|^2 finds the candidates, and the differences themselves score
  them. With e the largest rounding error of the product form, the candidates
  hold the k best for certain when the last of them lies more than 2 e below
  the k-th; where it does not (very many near duplicates), the differences of
  the whole gallery are formed instead.
  """
  candidates = min(k + _SLACK, max(k, rows.valid.shape[0]))
  look = functools.partial(scan, rows, queries, k=candidates, block=block)
  scores, positions = look(scores_lib.product_distances)
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
    jnp.all(certain),
    lambda: positions,
    lambda: look(scores_lib.direct_distances)[1],
  )
  return _rescore(rows, queries, positions, k=k)


def _search(
  rows: Rows,
  queries: jax.Array,
  *,
  k: int,
  metric: str | scores_lib.Head,
  block: int,
) -> Found:
  if metric == "euclidean":
    scores, places = _euclidean(rows, queries, k=k, block=block)
  else:
    score = scores_lib.block_score(metric)
    scores, places = scan(rows, queries, score, k=k, block=block)
  ids = rows.ids_at(places)
  return Found(scores, jnp.where(scores == -jnp.inf, NO_MATCH, ids))


def top_k(
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  metric: str | scores_lib.Head,
  block: int = BLOCK,
) -> Found:
  """Finds the k best templates of each query, exactly and totally ordered.

  The score is q.g for "dot" and, of unit rows, for "cosine"; -|q - g|^2 for
  "euclidean", where the winners are scored by their differences, so that a
  template equal to the query scores 0 and near duplicates keep their relative
  accuracy; and the logit for a head. Order: score descending, then template
  id ascending. Temporary memory is that of one block's scores, 4 Q `block`
  bytes.
  Batch meaning: rows of `queries` are independent, to the bit.

  Args:
    gallery: templates, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G]. Ascending ids
      save a sort.
    queries: float [Q, D]; unit rows for "cosine".
    k: how many templates, >= 1; may exceed G.
    metric: "cosine", "dot" or "euclidean"; or a head, which is any function
      of two batches of embeddings float [P, D] to logits [P]. It sees 1024
      pairs at a time and costs `pair_cost` operations a pair where a product
      costs 2 D. Pass the same function each time: a new one compiles anew.
    block: rows in a matrix product. Another block gives the same ids up to
      rounding of the scores.

  Returns:
    Found(scores float32 [Q, k], ids int32 [Q, k]), padded with -inf and
    NO_MATCH.

  Raises:
    ValueError: if the dimensions differ, for a wrong metric, k or block, and
      outside jit if a query is not finite.

  Degenerate input: an empty gallery (G = 0) gives NO_MATCH everywhere; rows
  and, inside jit, queries with a NaN or an infinity match nothing and disturb
  no other.
  Example:
    >>> found = top_k([[1.0, 0.0], [0.0, 1.0]], [1, 1], [7, 8],
    ...               [[0.0, 1.0]], k=1, metric="cosine")
    >>> found.ids.tolist()
    [[8]]
  """
  scores_lib.check_metric(metric)
  gallery, valid, template_ids, queries = rows_lib.checked(
    gallery, valid, template_ids, queries, k=k, block=block
  )
  rows = rows_lib.ordered(gallery, valid, template_ids, block)
  padded = rows_lib.padded_queries(queries)
  found = _search(rows, padded, k=k, metric=metric, block=block)
  return Found(*(x[: queries.shape[0]] for x in found))
