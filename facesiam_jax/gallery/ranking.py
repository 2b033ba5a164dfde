"""The k best people of each query, by whatever way is quickest and exact."""

import functools
from typing import Any

import jax
import numpy as np

from facesiam_jax.gallery import search
from facesiam_jax.gallery import slots as slots_lib
from facesiam_jax.gallery.index import Index

# Templates looked at first, where a person's score is their best template's.
_FIRST_LOOK = 64
_FIRST_COMPACT_LOOK = 16

_top_k = jax.jit(search.top_k, static_argnames=("k", "metric"))
_top_k_people = jax.jit(
  search.top_k_people, static_argnames=("k", "metric", "rule")
)
_top_k_inverted = jax.jit(
  search.top_k_inverted, static_argnames=("k", "num_probes", "metric")
)
_searcher = functools.lru_cache(search.searcher)
_people_searcher = functools.lru_cache(search.people_searcher)


def _power_of_two(number: int) -> int:
  return 1 << max(0, number - 1).bit_length()


@functools.partial(jax.jit, static_argnames="k")
def _people(
  scores: jax.Array, ids: jax.Array, owners: jax.Array, *, k: int
) -> search.Found:
  best = search.best_per_person(scores, ids, owners, k=scores.shape[1])
  # Among equals the one of the lower person id, not of the lower template id.
  return search.merge(best.scores, best.people, k=k)


def _templates(
  index: Index, queries: np.ndarray, k: int, metric: str | search.Head
) -> Any:
  """Returns the k best templates, as `search.top_k`."""
  slots, mesh = index.slots, slots_lib.mesh_of(index.slots)
  if slots.compact is not None and not callable(metric):
    return search.top_k_compact(
      slots.compact,
      index.rows,
      np.asarray(slots.valid),
      np.asarray(slots.template_ids),
      queries,
      k=k,
      metric=metric,
    )
  if mesh is not None:
    assert slots.embeddings is not None
    shards = search.Shards(slots.embeddings, slots.valid, slots.template_ids)
    return _searcher(mesh, k=k, metric=metric)(shards, queries)
  return _top_k(
    _embeddings(index), slots.valid, slots.template_ids, queries, k=k,
    metric=metric,
  )  # fmt: skip


def _embeddings(index: Index) -> Any:
  slots = index.slots
  return index.rows if slots.embeddings is None else slots.embeddings


def _all_templates(
  index: Index,
  queries: np.ndarray,
  k: int,
  metric: str | search.Head,
  rule: str,
) -> Any:
  """Returns the k best people, each scored by all of their templates."""
  slots, mesh = index.slots, slots_lib.mesh_of(index.slots)
  quality = slots.quality if rule == "weighted_mean" else None
  if mesh is not None:
    assert slots.embeddings is not None
    shards = search.Shards(slots.embeddings, slots.valid, slots.template_ids)
    find = _people_searcher(mesh, k=k, metric=metric, rule=rule)
    return find(shards, slots.people, slots.quality, queries)
  return _top_k_people(
    _embeddings(index), slots.valid, slots.template_ids, slots.people, queries,
    k=k, metric=metric, rule=rule, quality=quality,
  )  # fmt: skip


def _by_best_template(
  index: Index, queries: np.ndarray, k: int, metric: str | search.Head
) -> Any:
  """Returns the k best people by their best templates.

  The best templates hold the k best people for certain once k people are among
  them and the k-th is better than the last of them. Where one person's fill
  the first places, all templates are looked at.
  """
  compact = index.slots.compact is not None and not callable(metric)
  first = _FIRST_COMPACT_LOOK if compact else _FIRST_LOOK
  look = max(first, _power_of_two(2 * k))
  while True:
    found = jax.device_get(_templates(index, queries, look, metric))
    owners = index.owners_of(found.ids)
    best = _people(found.scores, found.ids, owners, k=k)
    last = found.ids[:, -1] == search.NO_MATCH
    seen = last | (np.asarray(best.scores)[:, -1] > found.scores[:, -1])
    if seen.all() or look >= index.num_templates:
      return best
    if not compact:
      return _all_templates(index, queries, k, metric, "max")
    look *= 4


def _by_lists(
  index: Index, queries: np.ndarray, k: int, metric: str, lists: int
) -> Any:
  """Returns the k best people by the best templates of a few lists."""
  slots = index.slots
  found = _top_k_inverted(
    index.inverted(metric), _embeddings(index), slots.valid,
    slots.template_ids, queries, k=max(_FIRST_LOOK, _power_of_two(2 * k)),
    num_probes=lists, metric=metric,
  )  # fmt: skip
  owners = index.owners_of(np.asarray(found.ids))
  return _people(found.scores, found.ids, owners, k=k)


def best_people(
  index: Index,
  queries: np.ndarray,
  k: int,
  *,
  metric: str | search.Head,
  rule: str = "max",
  lists: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k best people of each query, exactly unless `lists` is given.

  Order: score descending, then person id ascending.

  Args:
    index: the gallery.
    queries: finite, float32 [Q, D]; unit rows for "cosine".
    k: 1..number of people.
    metric: see `search.top_k`.
    rule: see `search.top_k_people`.
    lists: look through so many lists of `search.build_inverted` only, for the
      rule "max" and a metric that is no head.

  Returns:
    (scores float32 [Q, k], people int32 [Q, k]), padded with -inf and
    NO_MATCH where scores overflow.
  """
  count = len(queries)
  # Few sizes, hence few compilations.
  padding = max(8, _power_of_two(count)) - count
  queries = np.pad(queries, ((0, padding), (0, 0)), mode="edge")
  if lists is not None:
    assert rule == "max" and not callable(metric)
    found = _by_lists(index, queries, k, metric, lists)
  elif rule == "max":
    found = _by_best_template(index, queries, k, metric)
  else:
    found = _all_templates(index, queries, k, metric, rule)
  scores, people = map(np.asarray, found)
  return scores[:count], people[:count]
