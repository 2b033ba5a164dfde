"""Approximate search: only the lists of templates that lie near the query.

k-means puts the templates into lists, each with a centre, and a query looks
through the lists of the nearest centres. What lies in another list is missed:
the share that is found (the recall) depends on the gallery and has to be
measured on it. Lists are cut into pieces of 64 rows. Where the queries of a
batch look through few, each goes through its own; where they look through many,
the pieces that any of them wants are gone through once for all of them, in
products, so that a batch never costs much more than the exact search.

References: Sivic and Zisserman 2003, Video Google; Jegou, Douze and Schmid
2011, Product quantization for nearest neighbor search (IVF).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.gallery.search import rows as rows_lib
from facesiam_jax.gallery.search import scores as scores_lib
from facesiam_jax.gallery.search.ordering import Found
from facesiam_jax.gallery.search.rows import LAST, NO_MATCH
from facesiam_jax.gallery.search.scan import (
  Best,
  join,
  masked,
  nothing_yet,
  take_in,
)
from facesiam_jax.gallery.search.scores import BlockScore
from facesiam_jax.gallery.search.templates import (
  SLACK,
  Gallery,
  by_eights,
  rescore,
)

# Rows that k-means learns from, a list, and rows assigned at a time.
_SAMPLE = 64
_CHUNK = 1024
_ITERATIONS = 10
# Rows of a piece, and pieces that are scored at a time.
_PIECE = 64
_AT_ONCE = 32


class Inverted(NamedTuple):
  """Lists of rows of a gallery.

  Attributes:
    centres: float32 [L, D].
    members: places in the gallery by pieces of lists, int32 [P, 64]; NO_MATCH
      fills up.
    of_list: the list that a piece is of, int32 [P].
  """

  centres: jax.Array
  members: jax.Array
  of_list: jax.Array


def num_lists_for(size: int) -> int:
  """Returns how many lists suit a gallery: the power of two near 4 sqrt(G)."""
  return 1 << max(0, round(np.log2(4 * max(1, size) ** 0.5)))


def _nearest(centres: jax.Array, rows: jax.Array, metric: str) -> jax.Array:
  """Returns the place of the centre nearest to each row, int32 [N]."""
  # The longest centre has the largest product with most rows.
  score = scores_lib.products
  if metric != "cosine":
    score = scores_lib.product_distances
  size = rows.shape[0]
  padded = rows_lib.pad(rows, rows_lib.round_up(size, _CHUNK))
  parts = padded.reshape(-1, _CHUNK, rows.shape[1])
  best = lax.map(lambda part: jnp.argmax(score(part, centres), axis=0), parts)
  return best.reshape(-1)[:size].astype(jnp.int32)


_assign = jax.jit(_nearest, static_argnames="metric")


def _centred(totals: jax.Array, counts: jax.Array, old: jax.Array,
             metric: str) -> jax.Array:  # fmt: skip
  centres = totals / jnp.maximum(counts, 1.0)[:, None]
  if metric == "cosine":
    norms = jnp.linalg.norm(centres, axis=1, keepdims=True)
    centres = centres / jnp.maximum(norms, jnp.finfo(jnp.float32).tiny)
  # A list that is empty keeps its centre.
  return jnp.where(counts[:, None] > 0, centres, old)


@functools.partial(jax.jit, static_argnames="metric")
def k_means(rows: jax.Array, start: jax.Array, *, metric: str) -> jax.Array:
  """Moves centres to the means of the rows that are nearest to them.

  Args:
    rows: float32 [N, D].
    start: the first centres, float32 [L, D].
    metric: one of METRICS.

  Returns:
    The centres after ten rounds, float32 [L, D].
  """

  def turn(_: int, centres: jax.Array) -> jax.Array:
    nearest = _nearest(centres, rows, metric)
    add = lambda x: jax.ops.segment_sum(x, nearest, centres.shape[0])
    counts = add(jnp.ones(rows.shape[0]))
    return _centred(add(rows), counts, centres, metric)

  return lax.fori_loop(0, _ITERATIONS, turn, start)


def _pieces(
  nearest: np.ndarray, places: np.ndarray, num_lists: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (members [P, 64], list of each piece [P]), P >= 1."""
  order = np.argsort(nearest, kind="stable")
  lists = nearest[order]
  sizes = np.bincount(nearest, minlength=num_lists)
  counts = -(-sizes // _PIECE)
  first_piece, first_row = np.cumsum(counts) - counts, np.cumsum(sizes) - sizes
  rank = np.arange(len(order)) - first_row[lists]
  members = np.full((max(1, counts.sum()), _PIECE), NO_MATCH, np.int32)
  members[first_piece[lists] + rank // _PIECE, rank % _PIECE] = places[order]
  of_list = np.repeat(np.arange(num_lists, dtype=np.int32), counts)
  return members, np.resize(of_list, len(members))


def build(
  gallery: ArrayLike,
  valid: ArrayLike,
  *,
  metric: str,
  num_lists: int | None = None,
  seed: int = 0,
) -> Inverted:
  """Puts the rows of a gallery into lists.

  Jits by itself; not for use inside jit.

  Args:
    gallery: templates, finite, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    metric: one of METRICS.
    num_lists: how many centres; None takes `num_lists_for`.
    seed: of the sample and of the first centres.

  Returns:
    The lists; every valid row is in just one.

  Raises:
    ValueError: for an unknown metric, a head, or a number below 1.

  Degenerate input: an empty gallery has one empty list.
  """
  if metric not in scores_lib.METRICS:
    raise ValueError(
      f"metric must be one of {scores_lib.METRICS}, got {metric!r}."
    )
  if num_lists is not None and num_lists < 1:
    raise ValueError(f"num_lists must be at least 1, got {num_lists}.")
  rows, usable = jnp.asarray(gallery), np.asarray(valid, bool)
  places = np.flatnonzero(usable)
  if not len(places):
    empty = jnp.full((1, _PIECE), NO_MATCH, jnp.int32)
    centre = jnp.zeros((1, rows.shape[1]))
    return Inverted(centre, empty, jnp.zeros(1, jnp.int32))
  number = min(num_lists or num_lists_for(len(places)), len(places))
  rng = np.random.default_rng(seed)
  sample = rng.choice(places, min(len(places), _SAMPLE * number), replace=False)
  learnt = rows[np.sort(sample)].astype(jnp.float32)
  centres = k_means(learnt, rows[sample[:number]], metric=metric)
  nearest = np.asarray(_assign(centres, rows, metric=metric))
  pieces = _pieces(nearest[places], places, number)
  return Inverted(centres, *map(jnp.asarray, pieces))


class _Case(NamedTuple):
  """A gallery, padded queries, and how they are compared."""

  inverted: Inverted
  gallery: jax.Array
  valid: jax.Array
  queries: jax.Array
  score: BlockScore

  def rows_at(self, places: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the embeddings at places, and whether they can match."""
    taken = jnp.maximum(places, 0)
    return self.gallery[taken], (places != NO_MATCH) & self.valid[taken]


class _Probes(NamedTuple):
  """What each query looks through.

  Attributes:
    lists: int32 [Q, L'], the nearest first.
    upto: pieces in these lists and those before, int32 [Q, L'].
    chosen: whether a query looks through a list, bool [Q, L].
    active: whether any query looks through a piece, bool [P].
  """

  lists: jax.Array
  upto: jax.Array
  chosen: jax.Array
  active: jax.Array


def _probes(
  inverted: Inverted, queries: jax.Array, number: int, score: BlockScore
) -> _Probes:
  scores = score(queries, inverted.centres).T
  _, lists = lax.top_k(scores, number)
  pieces = jnp.zeros(scores.shape[1], jnp.int32).at[inverted.of_list].add(1)
  rows = jnp.arange(len(queries))[:, None]
  chosen = jnp.zeros(scores.shape, bool).at[rows, lists].set(True)
  upto = jnp.cumsum(pieces[lists], axis=1)
  active = jnp.any(chosen, axis=0)[inverted.of_list]
  return _Probes(lists, upto, chosen, active)


def _each_its_own(
  case: _Case, probes: _Probes, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, places in the gallery), query by query."""
  inverted, queries = case.inverted, case.queries
  first_piece = jnp.searchsorted(inverted.of_list, probes.lists)
  before = jnp.pad(probes.upto, ((0, 0), (1, 0)))[:, :-1]
  alone = jax.vmap(lambda query, rows: case.score(query[None], rows)[:, 0])

  def step(state: tuple[jax.Array, Best]) -> tuple[jax.Array, Best]:
    number, best = state
    at = jnp.sum(probes.upto <= number, axis=1, keepdims=True)
    at = jnp.minimum(at, probes.lists.shape[1] - 1)
    take = lambda x: jnp.take_along_axis(x, at, axis=1)[:, 0]
    pieces = take(first_piece) + number - take(before)
    places = jnp.where(
      (number < probes.upto[:, -1])[:, None],
      inverted.members[pieces % len(inverted.members)],
      NO_MATCH,
    )
    rows, usable = case.rows_at(places)
    scores = masked(alone(queries, rows), usable)
    return number + 1, join(best, scores, places)

  state = jnp.int32(0), nothing_yet(len(queries), k)
  steps = jnp.max(probes.upto)
  return lax.while_loop(lambda s: s[0] < steps, step, state)[1]


def _all_together(
  case: _Case, probes: _Probes, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, places), piece by piece for all queries."""
  members, of_list = case.inverted.members, case.inverted.of_list
  size = rows_lib.round_up(len(of_list), _AT_ONCE)
  (active,) = jnp.nonzero(probes.active, size=size, fill_value=-1)

  def step(state: tuple[jax.Array, Best]) -> tuple[jax.Array, Best]:
    number, best = state
    start = number * _AT_ONCE
    pieces = lax.dynamic_slice_in_dim(active, start, _AT_ONCE)
    places = jnp.where(pieces[:, None] < 0, NO_MATCH, members[pieces])
    rows, usable = case.rows_at(places.reshape(-1))
    scores = case.score(case.queries, rows)
    asked = jnp.repeat(probes.chosen.T[of_list[pieces]], _PIECE, axis=0)
    scores = jnp.where(asked, scores, -jnp.inf)
    return number + 1, take_in(best, scores, usable, start * _PIECE)

  steps = -(-jnp.sum(probes.active) // _AT_ONCE)
  state = jnp.int32(0), nothing_yet(len(case.queries), k)
  _, (scores, found) = lax.while_loop(lambda s: s[0] < steps, step, state)
  known = jnp.minimum(found, active.size * _PIECE - 1)
  return scores, members[active[known // _PIECE], known % _PIECE]


def _look(
  case: _Case, probes: _Probes, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the k best (scores, places in the gallery), LAST for none."""
  alone = jnp.max(probes.upto) * len(case.queries)
  # A row costs about twice as much where it meets all queries.
  scores, places = lax.cond(
    alone <= 2 * jnp.sum(probes.active),
    lambda: _each_its_own(case, probes, k=k),
    lambda: _all_together(case, probes, k=k),
  )
  return scores, jnp.where(scores == -jnp.inf, LAST, places)


def top_k_inverted(
  inverted: Inverted,
  gallery: ArrayLike,
  valid: ArrayLike,
  template_ids: ArrayLike,
  queries: ArrayLike,
  *,
  k: int,
  num_probes: int,
  metric: str,
) -> Found:
  """Finds the k best templates in the lists nearest to each query.

  Approximate: `top_k` of the whole gallery may find others. With all lists the
  ids are those of `top_k`, up to rounding of the scores.
  Batch meaning: rows of `queries` are independent.

  Args:
    inverted: from `build` of this gallery.
    gallery: templates, float [G, D]; unit rows for "cosine".
    valid: 1 = a template, 0 = padding, bool or int [G].
    template_ids: distinct and >= 0 in valid rows, int32 [G].
    queries: float [Q, D]; unit rows for "cosine".
    k: how many templates, >= 1.
    num_probes: lists to look through, >= 1; may exceed L.
    metric: the one that the lists were made by.

  Returns:
    Found(scores float32 [Q, k], ids int32 [Q, k]), padded with -inf and
    NO_MATCH.

  Raises:
    ValueError: as `top_k`, and for a number of probes below 1.
  """
  gallery, valid, template_ids, queries = rows_lib.checked(
    gallery, valid, template_ids, queries, k=k, block=1
  )
  if num_probes < 1 or metric not in scores_lib.METRICS:
    raise ValueError(
      f"num_probes must be at least 1 and metric one of {scores_lib.METRICS}, "
      f"got {num_probes} and {metric!r}."
    )
  padded = rows_lib.in_eights(queries)
  score = scores_lib.rough_score(metric)
  number = min(num_probes, inverted.centres.shape[0])
  probes = _probes(inverted, padded, number, score)
  case = _Case(inverted, gallery, valid, padded, score)
  # The winners are scored as in the exact search.
  _, places = _look(case, probes, k=k + SLACK)
  whole = Gallery(gallery, valid, template_ids)
  find = functools.partial(rescore, whole, k=k, metric=metric)
  scores, ids = by_eights(find, padded, places)
  ids = jnp.where(scores == -jnp.inf, NO_MATCH, ids)
  return Found(scores[: len(queries)], ids[: len(queries)])
