"""The k best templates of each query."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search import rows as rows_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search.ordering import Found, merge
from facesiam_jax.gallery.search.rows import BLOCK, LAST, NO_MATCH, TILE
from facesiam_jax.gallery.search.scan import (
  block_at,
  in_parts,
  masked,
  nothing_yet,
  rough_scan,
  scan,
)

# How many more candidates than k are kept for the exact second look.
SLACK = 8


class Gallery(NamedTuple):
  """Templates as they lie: float32 [G, D], bool [G] and int32 [G]."""

  embeddings: jax.Array
  valid: jax.Array
  ids: jax.Array


def by_eights(find: Callable[..., Found], *arrays: jax.Array) -> Found:
  """Returns what `find` finds for eight rows of the arrays at a time."""
  return in_parts(lambda tile: find(*tile), arrays, TILE)


def rescore(
  gallery: Gallery,
  queries: jax.Array,
  places: jax.Array,
  *,
  k: int,
  metric: str,
) -> Found:
  """Returns the k best of the candidates by their exact scores, in order.

  Args:
    gallery: of G >= 1 templates.
    queries: float32 [8, D].
    places: of the candidates in the gallery, int32 [8, C], C >= k; LAST means
      none.
    k: how many to keep.
    metric: one of METRICS.

  Returns:
    Found(scores [8, k], ids [8, k]).
  """
  taken = jnp.minimum(places, len(gallery.valid) - 1)
  scores = scores_lib.exact_scores(metric, queries, gallery.embeddings, taken)
  scores = masked(scores, (places != LAST) & gallery.valid[taken])
  return merge(scores, gallery.ids[taken], k=k)


def _error(gallery: Gallery, queries: jax.Array, metric: str) -> jax.Array:
  """Returns how far a score may be off by rounding, either way, [Q]."""
  reach = jnp.linalg.norm(queries, axis=-1)
  # Rows of length one need no pass over the gallery.
  longest = jnp.float32(1.001)
  if metric != "cosine":
    finite = jnp.isfinite(jnp.max(jnp.abs(gallery.embeddings), axis=-1))
    norm_sq = jnp.sum(jnp.square(gallery.embeddings), axis=-1)
    norm_sq = jnp.where(gallery.valid & finite, norm_sq, 0.0)
    longest = jnp.sqrt(jnp.max(norm_sq))
  size = reach * longest
  if metric == "euclidean":
    size = jnp.square(reach + longest)
  # n u / (1 - n u) with n = D + 4 roundings, for both ways of computing.
  return (queries.shape[1] + 4) * 2.0**-23 * size


def _pair_by_pair(
  gallery: Gallery, queries: jax.Array, *, k: int, metric: str, block: int
) -> Found:
  """Returns the k best by the exact scores of all rows."""
  score = scores_lib.exact_score(metric)
  count = len(gallery.valid)
  block = min(block, count)

  def step(best: Found, start: jax.Array) -> tuple[Found, None]:
    own, usable, _ = block_at(gallery, gallery.valid, start, block)
    scores = masked(score(queries, own.embeddings).T, usable[None])
    ids = jnp.broadcast_to(own.ids, scores.shape)
    both = zip(best, (scores, ids), strict=True)
    return merge(*(jnp.concatenate(x, axis=1) for x in both), k=k), None

  nothing = Found(*nothing_yet(queries.shape[0], k))
  starts = jnp.arange(0, count, block, dtype=jnp.int32)
  return lax.scan(step, nothing, starts)[0]


def _by_candidates(
  gallery: Gallery, queries: jax.Array, *, k: int, metric: str, block: int
) -> Found:
  """Returns the k best, k <= G.

  One matrix product finds k + SLACK candidates, and one sum of fixed order
  scores each. With e the largest rounding error, the candidates hold the k
  best for certain when the last of them lies more than 2 e below the k-th;
  where it does not (many near duplicates), eight queries at a time meet the
  whole gallery pair by pair.
  """
  scores, places = rough_scan(
    gallery.embeddings,
    gallery.valid,
    queries,
    scores_lib.rough_score(metric),
    k=min(k + SLACK, len(gallery.valid)),
    block=block,
  )
  error = _error(gallery, queries, metric)
  certain = (scores[:, -1] == -jnp.inf) | (
    scores[:, k - 1] - error > scores[:, -1] + error
  )
  # Where all rows are candidates, nothing else can be better.
  certain |= places.shape[1] == len(gallery.valid)
  # What overflows in the product need not do so in the score.
  certain &= jnp.isfinite(error)
  places = jnp.where(scores == -jnp.inf, LAST, places)

  def of_tile(
    certain: jax.Array, queries: jax.Array, places: jax.Array
  ) -> Found:
    return lax.cond(
      jnp.all(certain),
      lambda: rescore(gallery, queries, places, k=k, metric=metric),
      lambda: _pair_by_pair(gallery, queries, k=k, metric=metric, block=block),
    )

  return by_eights(of_tile, certain, queries, places)


def _by_head(
  gallery: Gallery,
  queries: jax.Array,
  *,
  k: int,
  metric: scores_lib.Head,
  block: int,
) -> Found:
  rows = rows_lib.ordered(*gallery, block)
  padded = rows_lib.in_eights(queries)
  score = scores_lib.exact_score(metric)
  scores, places = scan(rows, padded, score, k=k, block=block)
  found = Found(scores, rows.ids_at(places))
  return Found(*(x[: len(queries)] for x in found))


def _search(
  gallery: Gallery,
  queries: jax.Array,
  *,
  k: int,
  metric: str | scores_lib.Head,
  block: int,
) -> Found:
  size = len(gallery.valid)
  if size == 0:
    return Found(*nothing_yet(len(queries), k))
  options = {"k": min(k, size), "block": block}
  if callable(metric):
    found = _by_head(gallery, queries, metric=metric, **options)
  else:
    found = _by_candidates(gallery, queries, metric=metric, **options)
  missing = ((0, 0), (0, k - options["k"]))
  return Found(
    jnp.pad(found.scores, missing, constant_values=-jnp.inf),
    jnp.pad(found.ids, missing),
  )


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
  "euclidean", so that a template equal to the query scores 0 and near
  duplicates keep their relative accuracy; and the logit for a head. Order:
  score descending, then template id ascending. Matrix products find more
  candidates than k, and one sum of fixed order scores each of them; a bound
  of the rounding errors says whether that is certain to be right, and where
  it is not, all rows are scored so. Temporary memory is about 130 MB at most,
  or that of one block's scores, 4 Q `block` bytes, if that is more.
  Batch meaning: rows of `queries` are independent, to the bit.

  Args:
    gallery: templates, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G]. Ascending ids
      save a head a sort.
    queries: float [Q, D]; unit rows for "cosine".
    k: how many templates, >= 1; may exceed G.
    metric: "cosine", "dot" or "euclidean"; or a head, which is any function
      of two batches of embeddings float [P, D] to logits [P]. It sees 1024
      pairs at a time and costs `pair_cost` operations a pair where a product
      costs 2 D. Pass the same function each time: a new one compiles anew.
    block: rows at a time where the gallery is cut. It changes no bit.

  Returns:
    Found(scores float32 [Q, k], ids int32 [Q, k]), padded with -inf and
    NO_MATCH.

  Raises:
    ValueError: if the dimensions differ, for a wrong metric, k or block, and
      outside jit if a query is not finite.

  Degenerate input: an empty gallery (G = 0) gives NO_MATCH everywhere; rows
  and, inside jit, queries with a NaN or an infinity match nothing and disturb
  no other. Eight more near duplicates than k make eight queries slow.
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
  whole = Gallery(gallery, valid, template_ids)
  scores, ids = _search(whole, queries, k=k, metric=metric, block=block)
  return Found(scores, jnp.where(scores == -jnp.inf, NO_MATCH, ids))
