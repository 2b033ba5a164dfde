"""Whether two systems differ, measured on the same pairs of the same people.

Two intervals that overlap say little: both systems find the same photos hard,
so their error rates rise and fall together, and the difference between them is
far surer than either. Here people are drawn once for all systems, and the
difference is taken in each draw.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import calibration, checks, resampling
from facesiam_jax.metrics.tally import Tally, tally

Statistics = Callable[[Tally, np.ndarray], Mapping[str, float]]

_MAX_DROPPED_SHARE = 0.1


class Difference(NamedTuple):
  """A metric of one system minus that of another.

  Attributes:
    value: the difference on all pairs.
    low: lower end of its interval, None if refused.
    high: upper end, None if refused.
    p_value: two-sided, of no difference; None if refused.
  """

  value: float
  low: float | None
  high: float | None
  p_value: float | None

  @property
  def clear(self) -> bool:
    """Whether there is an interval that leaves 0 out."""
    if self.low is None or self.high is None:
      return False
    return not self.low <= 0 <= self.high


class Paired(NamedTuple):
  """Systems side by side.

  Attributes:
    values: of each system, name -> metric on all pairs.
    intervals: of each system, name -> (low, high); None if refused.
    differences: (a, b) -> name -> the Difference of system a minus system b,
      a < b, of the metrics that both have.
    reason: one sentence if intervals are refused, else None.
  """

  values: list[dict[str, float]]
  intervals: list[dict[str, tuple[float, float]]] | None
  differences: dict[tuple[int, int], dict[str, Difference]]
  reason: str | None


def paired_bootstrap(
  statistics: Sequence[Statistics],
  score_sets: Sequence[ArrayLike],
  people_a: ArrayLike,
  people_b: ArrayLike,
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
  min_people: int = calibration.MIN_PEOPLE,
  cuts: Sequence[Sequence[float] | None] | None = None,
) -> Paired:
  """Computes differences between systems by drawing people with replacement.

  The interval of a difference is that of its resamples' percentiles; the
  p-value is twice the share of resamples on the far side of 0 (those at 0
  count), with one added to both numbers, so that it is never 0.
  Batch meaning: all pairs together make one result.

  Args:
    statistics: of each system, (counts of a resample, how many times each
      person was drawn, in the order of their sorted ids) -> metrics by name.
    score_sets: of each system, similarity of each pair, float [P], finite;
      bigger is closer. Units may differ between systems.
    people_a: person at one end of each pair, int [P].
    people_b: person at the other end, int [P]; a pair is genuine if the same.
    resamples: number of resamples, >= 1.
    level: share of resamples inside an interval, 0..1.
    seed: of the draws; each system's own intervals are then those that
      `person_bootstrap` gives with the same seed.
    min_people: with fewer people there is no interval and no p-value.
    cuts: of each system, as in `person_bootstrap`.

  Returns:
    The Paired. Its p-values are not adjusted for their number; see `holm`.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      only one kind of pair, numbers of systems that differ, or `level` or
      `resamples` out of range.

  Degenerate input: a system beside itself differs by 0, from 0 to 0, with a
  p-value of 1. A single system has no differences. More than a tenth of the
  resamples without a genuine or an impostor pair is a reason to refuse.
  Example:
    >>> both = [lambda counts, copies: {"genuine": counts.num_genuine}] * 2
    >>> found = paired_bootstrap(both, [[0.9, 0.1]] * 2, [1, 1], [1, 2])
    >>> found.differences[0, 1]["genuine"].value, found.reason
    (0, 'an interval needs at least 30 people, these pairs have 2')

  References: Efron and Tibshirani 1993, An introduction to the bootstrap,
  chapter 16; Davison and Hinkley 1997 (the added one).
  """
  sets, labels, ends, num_people = _check(
    statistics, score_sets, people_a, people_b
  )
  checks.check_inside("level", level)
  if resamples < 1:
    raise ValueError(f"resamples must be at least 1, got {resamples}")
  cuts = [None] * len(sets) if cuts is None else cuts
  draw = lambda some: _results(statistics, some)
  (whole,) = draw([_whole(sets, labels, num_people)])
  if num_people < min_people:
    reason = (
      f"an interval needs at least {min_people} people, these pairs have "
      f"{num_people}"
    )
    return Paired(whole, None, _differences(whole, None, level), reason)
  results = draw(
    resampling.resamples_of(
      sets, labels, ends, num_people, resamples=resamples, seed=seed, cuts=cuts
    )
  )
  dropped = resamples - len(results)
  if dropped > _MAX_DROPPED_SHARE * resamples:
    reason = (
      f"{dropped} of {resamples} resamples lacked genuine or impostor pairs"
    )
    return Paired(whole, None, _differences(whole, None, level), reason)
  intervals = [
    calibration.percentiles([one[n] for one in results], level)
    for n in range(len(sets))
  ]
  return Paired(whole, intervals, _differences(whole, results, level), None)


def holm(p_values: ArrayLike) -> np.ndarray:
  """Adjusts p-values for their number: the chance of any false alarm.

  The i-th smallest of m is multiplied by m - i + 1, and never less than the
  one before it; what exceeds 1 is 1.

  Args:
    p_values: of tests of one family, float [m], each in 0..1.

  Returns:
    The adjusted p-values, float64 [m].

  Raises:
    ValueError: for another rank, NaN, or a value out of range.

  Degenerate input: of no test there is none; of one it stays as it is.
  Example:
    >>> holm([0.04, 0.01, 0.03]).tolist()
    [0.06, 0.03, 0.06]

  References: Holm 1979, A simple sequentially rejective multiple test
  procedure.
  """
  values = np.asarray(p_values, np.float64)
  if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
    raise ValueError(f"p_values must be [m] in 0..1, got {p_values!r}")
  order = np.argsort(values, kind="stable")
  scaled = values[order] * np.arange(values.size, 0, -1)
  adjusted = np.empty_like(values)
  adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
  return adjusted


def _check(
  statistics: Sequence[Statistics],
  score_sets: Sequence[ArrayLike],
  people_a: ArrayLike,
  people_b: ArrayLike,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, int]:
  if not 0 < len(score_sets) == len(statistics):
    raise ValueError(
      f"score_sets must be as many as statistics and at least 1, got "
      f"{len(score_sets)} and {len(statistics)}"
    )
  first = np.asarray(score_sets[0])
  known, ends = checks.check_ends(people_a, people_b, first.shape)
  sets = [
    checks.check_pairs(scores, ends[0] == ends[1])[0] for scores in score_sets
  ]
  return sets, ends[0] == ends[1], ends, known.size


def _whole(
  sets: Sequence[np.ndarray], labels: np.ndarray, num_people: int
) -> resampling.Resample:
  """Everybody once."""
  tallies = tuple(tally(scores, labels) for scores in sets)
  return resampling.Resample(np.ones(num_people, np.int64), tallies)


def _results(
  statistics: Sequence[Statistics], drawn: Iterable[resampling.Resample]
) -> list[list[dict[str, float]]]:
  """Metrics of each resample and system."""
  return [
    [
      dict(one(counts, resample.copies))
      for one, counts in zip(statistics, resample.tallies, strict=True)
    ]
    for resample in drawn
  ]


def _differences(
  whole: Sequence[Mapping[str, float]],
  results: Sequence[Sequence[Mapping[str, float]]] | None,
  level: float,
) -> dict[tuple[int, int], dict[str, Difference]]:
  found: dict[tuple[int, int], dict[str, Difference]] = {}
  for a, b in itertools.combinations(range(len(whole)), 2):
    found[a, b] = {}
    for name in whole[a]:
      if name not in whole[b]:
        continue
      value = whole[a][name] - whole[b][name]
      if results is None:
        found[a, b][name] = Difference(value, None, None, None)
        continue
      drawn = np.array([one[a][name] - one[b][name] for one in results])
      found[a, b][name] = _difference(value, drawn, level)
  return found


def _difference(value: float, drawn: np.ndarray, level: float) -> Difference:
  tail = (1 - level) / 2
  low, high = np.quantile(drawn, [tail, 1 - tail])
  least = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
  p_value = min(1.0, 2 * (least + 1) / (drawn.size + 1))
  return Difference(value, float(low), float(high), p_value)
