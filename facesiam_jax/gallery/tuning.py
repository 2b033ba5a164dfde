"""How much of a gallery an approximate search finds, and how fast it is."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import search
from facesiam_jax.gallery import slots as slots_lib
from facesiam_jax.gallery.store import Store

_QUERIES = 64
_NEIGHBOURS = 10
_ROUNDS = 3
# The exact search is no slower where more of the gallery is looked at.
_MOST = 0.25

_top_k = jax.jit(search.top_k, static_argnames=("k", "metric"))
_top_k_inverted = jax.jit(
  search.top_k_inverted, static_argnames=("k", "num_probes", "metric")
)


class Trial(NamedTuple):
  """What looking through some lists finds.

  Attributes:
    lists: how many; 0 stands for the exact search.
    share: of the templates that are looked at, at most, 0..1.
    recall: share of the ten nearest other templates that are found, 0..1.
    seconds: a query, in batches of 64; median of three.
  """

  lists: int
  share: float
  recall: float
  seconds: float


def _timed(find: Callable[[], Any]) -> tuple[Any, float]:
  found, times = jax.block_until_ready(find()), []
  for _ in range(_ROUNDS):
    start = time.perf_counter()
    jax.block_until_ready(find())
    times.append(time.perf_counter() - start)
  return found, statistics.median(times)


def _others(ids: Any, own: np.ndarray) -> list[set[int]]:
  """Returns the ten best of each query but for itself."""
  rows = np.asarray(ids).tolist()
  return [
    set([i for i in row if i not in (self, search.NO_MATCH)][:_NEIGHBOURS])
    for row, self in zip(rows, own.tolist(), strict=True)
  ]


def measure(store: Store, *, seed: int = 0) -> Iterator[Trial]:
  """Searches a gallery for its own templates, exactly and approximately.

  Args:
    store: the gallery, two templates or more.
    seed: of the queries and the lists.

  Yields:
    The exact search's Trial, then those of 1, 2, 4, ... lists, until all that
    is to be found is or a quarter of the gallery is looked at.

  Raises:
    UserError: if there are too few templates, or no metric that lists are made
      by.
  """
  metric = store.meta["metric"]
  if metric not in search.METRICS:
    raise errors.UserError(
      f"{store.path} is searched by the bundle's head ({metric!r}), for which "
      "there is no approximate search."
    )
  records = store.records()
  rows, ids = records.embeddings, records.template_ids
  if len(ids) < 2:
    raise errors.UserError(
      f"{store.path} has {len(ids)} photos enrolled; tune needs two or more."
    )
  if metric == "cosine":
    rows = slots_lib.unit_rows(rows, ids)
  rng = np.random.default_rng(seed)
  own = rng.choice(len(ids), min(_QUERIES, len(ids)), replace=False)
  case = (jax.device_put(rows), np.ones(len(ids), bool), ids, rows[own])
  options = {"k": _NEIGHBOURS + 1, "metric": metric}
  exact, seconds = _timed(lambda: _top_k(*case, **options))
  wanted = _others(exact.ids, ids[own])
  yield Trial(0, 1.0, 1.0, seconds / len(own))
  inverted = search.build_inverted(*case[:2], metric=metric, seed=seed)
  lists = len(inverted.centres)
  sizes = np.zeros(lists, np.int64)
  held = (np.asarray(inverted.members) != search.NO_MATCH).sum(axis=1)
  np.add.at(sizes, np.asarray(inverted.of_list), held)
  most = np.cumsum(np.sort(sizes)[::-1])
  for probes in [1 << n for n in range((lists - 1).bit_length() + 1)]:
    probes = min(probes, lists)
    look = functools.partial(
      _top_k_inverted, inverted, *case, num_probes=probes, **options
    )
    found, seconds = _timed(look)
    pairs = zip(_others(found.ids, ids[own]), wanted, strict=True)
    recall = sum(len(f & w) for f, w in pairs) / sum(map(len, wanted))
    share = float(most[probes - 1] / len(ids))
    yield Trial(probes, share, recall, seconds / len(own))
    if recall == 1.0 or share > _MOST:
      return
