"""Protocols of people: one-shot, closed-set and open-set identification.

Pure functions of scores and of who is who. Intervals are of the delete-a-group
jackknife over people: ten groups of them are left out in turn, out of the
searches and of the galleries, and the whole protocol runs anew.

References: Koch et al. 2015, Siamese neural networks for one-shot image
recognition; Grother, Ngan and Hanaoka, NIST Face recognition technology
evaluation part 2: identification; Efron and Tibshirani 1993, chapter 11.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import templates
from facesiam_jax.metrics import identification, intervals, open_set
from facesiam_jax.metrics.calibration import MIN_PEOPLE

RANKS = (1, 5, 10)
FPIR_TARGETS = (0.01, 0.1)
_GROUPS = 10
# A jackknife runs a protocol so much shorter: its spread over people is wanted.
_JACKKNIFE_DRAWS = 20

Rates = Mapping[str, float | None]


def closed_set(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  *,
  draws: int = 200,
  ways: int | None = None,
  seed: int = 0,
  level: float = 0.95,
) -> dict[str, Any]:
  """Measures identification of people who are all enrolled, one photo each.

  Each draw enrols a random photo of everybody (of `ways` people drawn anew, for
  Koch's N-way one-shot); all other photos of these people are searches.
  Batch meaning: all images together make one result.

  Args:
    similarity: image against image, float [N, N]; the diagonal is not used.
    identity_ids: person of each image, int [N].
    draws: of the enrolled photos.
    ways: people in a draw; None takes everybody.
    seed: of the draws.
    level: of the intervals, inside 0..1.

  Returns:
    A dict that JSON can hold: rank_1, rank_5, rank_10 (null beyond the number
    of enrolled people), cmc, `interval` or null and `interval_reason`,
    `counts`.

  Raises:
    ValueError: as `metrics.rank_counts`.

  Degenerate input: ties count against the system.
  Example:
    >>> same = np.kron(np.eye(2), np.ones((2, 2)))
    >>> closed_set(same, [5, 5, 7, 7], draws=2)["rank_1"]
    1.0

  References: ISO/IEC 19795-1 (identification rank); Koch et al. 2015.
  """
  similarity, ids = np.asarray(similarity), np.asarray(identity_ids)

  def measured(rows: np.ndarray, num: int) -> identification.RankCounts:
    people = np.unique(ids[rows]).size
    return identification.rank_counts(
      similarity[np.ix_(rows, rows)],
      ids[rows],
      seed=seed,
      draws=num,
      ways=None if ways is None else min(ways, people),
    )

  ranks = measured(np.arange(ids.size), draws)
  result: dict[str, Any] = dict(_rank_rates(ranks))
  result["cmc"] = (np.cumsum(ranks.counts) / ranks.num_probes).tolist()
  result["counts"] = {
    "people": int(np.unique(ids).size),
    "images": int(ids.size),
    "enrolled": ranks.ways,
    "draws": ranks.draws,
    "searches": ranks.num_probes,
  }
  short = min(draws, _JACKKNIFE_DRAWS)
  return result | _jackknife(
    lambda rows: _rank_rates(measured(rows, short)), result, ids, level
  )


def _rank_rates(ranks: identification.RankCounts) -> dict[str, float | None]:
  curve = np.cumsum(ranks.counts) / ranks.num_probes
  return {
    f"rank_{k}": float(curve[k - 1]) if k <= ranks.ways else None for k in RANKS
  }


def open_set_by_size(
  embeddings: ArrayLike,
  identity_ids: ArrayLike,
  score: Callable[[np.ndarray, np.ndarray], np.ndarray],
  *,
  sizes: Sequence[int] | None = None,
  photos: int = 1,
  unit: bool = True,
  targets: Sequence[float] = FPIR_TARGETS,
  draws: int = 20,
  seed: int = 0,
  level: float = 0.95,
) -> list[dict[str, Any]]:
  """Measures FNIR at FPIR in galleries of several sizes.

  Each draw enrols `photos` random photos of everybody as one template; the
  first n people in a random order are the gallery. All their other photos are
  mated searches, all photos of the other people are searches without a mate.
  A draw's threshold is the lowest whose FPIR in that draw is at most the
  target, the right person must come first and at or above it; means over draws.

  Args:
    embeddings: of images, float [N, D].
    identity_ids: person of each image, int [N].
    score: (float [Q, D], float [G, D]) -> similarity [Q, G].
    sizes: numbers of people in a gallery, each 1..people - 1; None takes
      10, 20, 50, ... below half of the people, and half of them.
    photos: that make a template; who has no more than these is a stranger only.
    unit: whether templates are means of unit rows.
    targets: FPIR, each inside 0..1.
    draws: of photos and of the order.
    seed: of the draws.
    level: of the intervals, inside 0..1.

  Returns:
    For each size a dict that JSON can hold: size, fnir_at_fpir_T for each
    target T (null where so few searches without a mate cannot show it),
    `interval`, `interval_reason`, `counts`.

  Raises:
    ValueError: if a size is out of range, or nobody has a photo to spare.

  Degenerate input: ties count against the system.
  Example:
    >>> cosine = lambda a, b: a @ b.T
    >>> rows = np.repeat(np.eye(4), 2, axis=0)
    >>> found = open_set_by_size(rows, np.repeat(np.arange(4), 2), cosine,
    ...                          sizes=[2], targets=[0.5])
    >>> found[0]["fnir_at_fpir_0.5"]
    0.0

  References: Grother, Ngan and Hanaoka, part 2.
  """
  rows, ids = np.asarray(embeddings), np.asarray(identity_ids)
  people, counts = np.unique(ids, return_counts=True)
  able = int((counts > photos).sum())
  if not able:
    raise ValueError(
      f"somebody must have more than {photos} photos, to be enrolled with "
      f"{photos} and looked for with another; nobody of {people.size} people "
      "has"
    )
  sizes = _sizes(able, people.size) if sizes is None else sizes
  if not sizes or not 1 <= min(sizes) <= max(sizes) <= min(
    able, people.size - 1
  ):
    raise ValueError(
      f"gallery sizes must lie in 1..{min(able, people.size - 1)}, with "
      f"{people.size} people of whom {able} have more than {photos} photos; "
      f"got {list(sizes)}"
    )

  def run(kept: np.ndarray, sizes: Sequence[int], num: int) -> list[Any]:
    return _searches(
      rows[kept], ids[kept], score, sizes, photos, unit, targets, num, seed
    )

  everything = np.arange(ids.size)
  found = run(everything, sizes, draws)
  short = min(draws, _JACKKNIFE_DRAWS)
  without = [run(kept, _fit(sizes, ids[kept], photos), short)
             for kept in _left_out(ids)]  # fmt: skip
  return [
    rates | _interval_of(rates, [one[n] for one in without], ids, level)
    for n, rates in enumerate(found)
  ]


def with_failures(result: Mapping[str, Any], num_failed: int) -> dict[str, Any]:
  """Adds what the rates are where a photo without a face is a search missed.

  Such photos cannot be enrolled, and what they are searched for is not found:
  they are spread over the people alike.

  Args:
    result: of `closed_set`, or {"sizes": `open_set_by_size`'s, "counts": ...}.
    num_failed: photos of these people in which no face was found, >= 0.

  Returns:
    The result with rank_K_with_failures and fnir_at_fpir_T_with_failures
    beside each rate, and failed_photos among its counts.

  Example:
    >>> found = {"rank_1": 0.9, "counts": {"people": 2, "enrolled": 2,
    ...                                    "draws": 5, "searches": 40}}
    >>> round(with_failures(found, 1)["rank_1_with_failures"], 3)
    0.8
  """
  counts = dict(result["counts"])
  each = num_failed / counts["people"]

  def rates(one: Mapping[str, Any], searches: float, failed: float) -> Any:
    share = searches / (searches + failed) if failed else 1.0
    found = {}
    for name, rate in one.items():
      if name.startswith("rank_") and rate is not None:
        found[f"{name}_with_failures"] = rate * share
      if name.startswith("fnir_") and rate is not None:
        found[f"{name}_with_failures"] = 1.0 - (1.0 - rate) * share
    return {**one, **found}

  counts["failed_photos"] = num_failed
  if "sizes" in result:
    sizes = [
      rates(one, one["counts"]["mated_a_draw"], each * one["size"])
      for one in result["sizes"]
    ]
    return {**result, "sizes": sizes, "counts": counts}
  failed = each * counts["enrolled"] * counts["draws"]
  return {**rates(result, counts["searches"], failed), "counts": counts}


def _sizes(able: int, people: int) -> list[int]:
  half = min(able, people // 2)
  steps = [m * 10**e for e in range(1, 7) for m in (1, 2, 5)]
  return [size for size in steps if size < half] + ([half] if half else [])


def _fit(sizes: Sequence[int], ids: np.ndarray, photos: int) -> list[int]:
  """The sizes, no larger than the people that are left allow."""
  _, counts = np.unique(ids, return_counts=True)
  most = min(int((counts > photos).sum()), counts.size - 1)
  return [max(1, min(size, most)) for size in sizes]


def _searches(
  rows: np.ndarray,
  ids: np.ndarray,
  score: Callable[[np.ndarray, np.ndarray], np.ndarray],
  sizes: Sequence[int],
  photos: int,
  unit: bool,
  targets: Sequence[float],
  draws: int,
  seed: int,
) -> list[dict[str, Any]]:
  """The rates of each size, means over draws."""
  rng = np.random.default_rng(seed)
  sums = np.zeros((len(sizes), len(targets)))
  searches = np.zeros((len(sizes), 2), np.int64)
  for _ in range(draws):
    order = rng.permutation(ids.size)
    place = np.empty(ids.size, np.int64)  # of an image among its person's own
    for person in np.unique(ids):
      own = order[ids[order] == person]
      place[own] = np.arange(own.size)
    people, counts = np.unique(ids, return_counts=True)
    enrolled = rng.permutation(people[counts > photos])
    used = (place < photos) & np.isin(ids, enrolled)
    gallery, known = templates.pool(rows[used], ids[used], unit=unit)
    scores = np.asarray(score(rows, gallery))
    for n, size in enumerate(sizes):
      chosen = enrolled[:size]
      probe = ~(used & np.isin(ids, chosen))
      columns = np.isin(known, chosen)
      for t, target in enumerate(targets):
        sums[n, t] += open_set.fnir_at_fpir(
          scores[np.ix_(probe, columns)], ids[probe], known[columns], target
        ).fnir
      mated = np.isin(ids[probe], chosen)
      searches[n] += mated.sum(), (~mated).sum()
  return [
    _size_report(size, targets, sums[n] / draws, searches[n], draws)
    for n, size in enumerate(sizes)
  ]


def _size_report(
  size: int,
  targets: Sequence[float],
  fnir: np.ndarray,
  searches: np.ndarray,
  draws: int,
) -> dict[str, Any]:
  mated, strangers = (searches / draws).tolist()
  rates = {
    # Fewer strangers than 1 / target show no FPIR as low as that.
    f"fnir_at_fpir_{t:g}": float(value) if t * strangers >= 1 else None
    for t, value in zip(targets, fnir, strict=True)
  }
  counts = {"mated_a_draw": mated, "unmated_a_draw": strangers, "draws": draws}
  return {"size": int(size), **rates, "counts": counts}


def _left_out(ids: np.ndarray) -> list[np.ndarray]:
  """Rows that are left without each group of people; none for few people."""
  people, index = np.unique(ids, return_inverse=True)
  if people.size < MIN_PEOPLE:
    return []
  group = np.random.default_rng(0).permutation(people.size) % _GROUPS
  return [np.flatnonzero(group[index] != out) for out in range(_GROUPS)]


def _jackknife(
  measure: Callable[[np.ndarray], Rates],
  rates: Rates,
  ids: np.ndarray,
  level: float,
) -> dict[str, Any]:
  return _interval_of(
    rates, [measure(rows) for rows in _left_out(ids)], ids, level
  )


def _interval_of(
  rates: Rates, without: Sequence[Rates], ids: np.ndarray, level: float
) -> dict[str, Any]:
  """Wilson's interval for the jackknife's variance of each rate."""
  people = np.unique(ids).size
  if not without:
    reason = (
      f"an interval needs at least {MIN_PEOPLE} people, these are {people}"
    )
    return {"interval": None, "interval_reason": reason}
  found: dict[str, Any] = {"level": level}
  for name in without[0]:
    values = [one.get(name) for one in without]
    rate = rates[name]
    if name.startswith(("rank_", "fnir_")) and rate is not None:
      spread = [value for value in values if value is not None]
      variance = (_GROUPS - 1) * float(np.var(spread)) if spread else 0.0
      found[name] = _ends(rate, variance, people, level)
  return {"interval": found, "interval_reason": None}


def _ends(
  rate: float, variance: float, people: int, level: float
) -> list[float]:
  bound = intervals.rule_of_three(people, level=level)
  if rate in (0.0, 1.0):
    return [0.0, bound] if rate == 0 else [1.0 - bound, 1.0]
  least = rate * (1 - rate) / people
  return list(
    intervals.rate_interval(
      rate, max(variance, least), _GROUPS - 1, level=level
    )
  )
