"""Plausible mistakes in the metrics of retrieval."""

import functools

import numpy as np
from reference import metric_cases
from reference import metrics_search as reference
from variants import Variants

from facesiam_jax import metrics

_CLOSE = {"rtol": 0, "atol": 1e-12}
_SQUARES = [metric_cases.square(seed, ties=seed > 1) for seed in range(4)]
_SEARCHES = [metric_cases.search(seed, ties=seed > 1) for seed in range(4)]
_PLACES = {"map_at_r": 0, "r_precision": 1, "precision_at_1": 2}


def check(name, function):
  for case in (*_SQUARES, *_SEARCHES):
    expected = reference.retrieval(*case)[_PLACES[name]]
    np.testing.assert_allclose(function(*case), expected, **_CLOSE)


def _retrieve(
  name,
  similarity,
  ids,
  references=None,
  *,
  with_self=False,
  generous=False,
  singletons=False,
  cut=True,
  divide="own",
):
  """One of the three metrics with one thing wrong."""
  values = []
  for row, person in enumerate(ids):
    owners = ids if references is None else references
    keep = np.ones(owners.size, bool)
    if references is None and not with_self:
      keep[row] = False
    scores = similarity[row].copy()
    if references is None and with_self:
      scores[row] = 99.0
    own = (owners == person)[keep]
    order = np.lexsort((own if not generous else ~own, -scores[keep]))
    hits = own[order]
    number = hits.sum()
    if number == 0:
      if singletons:
        values.append(0.0)
      continue
    top = hits[:number] if cut else hits
    places = np.arange(1, top.size + 1)
    if name == "map_at_r":
      total = (np.cumsum(top) / places)[top].sum()
      values.append(total / {"own": number, "found": max(top.sum(), 1)}[divide])
    elif name == "r_precision":
      values.append(top.sum() / (number if divide == "own" else number + 1))
    else:
      values.append(float(hits[0]))
  return np.mean(values)


def _micro(name, similarity, ids, references=None):
  """Mean over people of the means over queries."""
  people = [
    person
    for person in np.unique(ids)
    if (ids if references is None else references).tolist().count(person)
    > (references is None)
  ]
  right = []
  for person in people:
    chosen = ids == person
    if references is None:
      own = np.where(np.eye(ids.size, dtype=bool), -99.0, similarity)
      values = [
        _retrieve(
          name,
          np.delete(own[[row]], row, 1),
          ids[[row]],
          np.delete(ids, row),
        )
        for row in np.flatnonzero(chosen)
      ]
      right.append(np.mean(values))
    else:
      right.append(_retrieve(name, similarity[chosen], ids[chosen], references))
  return np.mean(right)


def _mistakes(name):
  right = getattr(metrics, name)
  wrong = functools.partial(_retrieve, name)
  return {
    "the query as its own reference": functools.partial(wrong, with_self=True),
    "ties for the system": functools.partial(wrong, generous=True),
    "singletons counted as 0": functools.partial(wrong, singletons=True),
    "mean over people": functools.partial(_micro, name),
    "distances for similarities": lambda s, *ids: right(-s, *ids),
  }


VARIANTS = {
  "metrics.map_at_r": Variants(
    metrics.map_at_r,
    functools.partial(check, "map_at_r"),
    {
      **_mistakes("map_at_r"),
      "not cut at R": functools.partial(_retrieve, "map_at_r", cut=False),
      "divided by the found": functools.partial(
        _retrieve, "map_at_r", divide="found"
      ),
      "R-precision": metrics.r_precision,
    },
  ),
  "metrics.r_precision": Variants(
    metrics.r_precision,
    functools.partial(check, "r_precision"),
    {
      **_mistakes("r_precision"),
      "R counts the query": functools.partial(
        _retrieve, "r_precision", divide="found"
      ),
      "MAP@R": metrics.map_at_r,
    },
  ),
  "metrics.precision_at_1": Variants(
    metrics.precision_at_1,
    functools.partial(check, "precision_at_1"),
    {
      **_mistakes("precision_at_1"),
      "R-precision": metrics.r_precision,
    },
  ),
}
