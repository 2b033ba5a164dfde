"""Intervals for error rates of pairs that share people.

Pairs of one person, and pairs of the same two people, go wrong together, so the
number of pairs says little about how sure a rate is: Wilson's interval on the
number of pairs, nominally 95 %, covered a false match rate in 15 to 76 of 100
simulated experiments. Here the variance is estimated from people: how alike the
pairs of two people are, and how alike those are that share one of them. The
ends are the rates at which what was seen would lie just so many standard
deviations off, as in Wilson's interval, the variance being that of the end
itself. What this covers was measured by simulation (docs/intervals.md); where
that is not near 95 of 100, the interval comes with a caution.

References: Fogliato, Patil and Perona 2023, Confidence intervals for error
rates in 1:1 matching tasks, arXiv 2306.01198; Fleiss, Levin and Paik 2003,
Statistical methods for rates and proportions, chapter 15 (clusters).
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import cells as cells_lib
from facesiam_jax.metrics import checks
from facesiam_jax.metrics.calibration import ENOUGH_PEOPLE, MIN_PEOPLE

_QUANTILE_STEPS = 20001
_HALVINGS = 60
# How the covariance of two pairs that share a person grows with r = p (1 - p).
# Of normal scores of correlation c it goes as r^(2 / (1 + c)): 1.9 where people
# cause an eighth of the variance of impostor scores, 1.6 where they cause half.
_SHARED_POWER = 1.75
# With fewer people, or errors of fewer, the cover is not within 2 points of 95
# of 100: see docs/intervals.md.
_ENOUGH_IN_FALSE_MATCHES = 40
_ENOUGH_IN_FALSE_NON_MATCHES = 10


class RateInterval(NamedTuple):
  """An error rate and its interval, or the reason why there is none.

  Attributes:
    rate: the observed rate, 0..1.
    low: lower end, None if refused.
    high: upper end, None if refused.
    errors: number of wrong decisions.
    pairs: number of pairs of this kind.
    effective_pairs: number of independent pairs that would be as sure; None
      where no variance can be estimated (no error, or nothing but errors).
    people: number of people in these pairs.
    reason: one sentence if refused, else None.
    caution: what is known of its cover, where that is not near its level; else
      None.
  """

  rate: float
  low: float | None
  high: float | None
  errors: int
  pairs: int
  effective_pairs: float | None
  people: int
  reason: str | None
  caution: str | None = None


class ErrorRateIntervals(NamedTuple):
  """Intervals of the false match and of the false non-match rate."""

  fmr: RateInterval
  fnmr: RateInterval


def rule_of_three(num_units: int, *, level: float = 0.95) -> float:
  """Computes the upper bound of a rate of which no error was seen.

    -ln(1 - level) / n,  3 / n at a level of 95 %
  Batch meaning: takes a number, no pairs.

  Args:
    num_units: number of independent trials, >= 1. Pairs that share people are
      not: use the number of pairs of people for false matches, and of people
      for false non-matches.
    level: of confidence, inside 0..1; the bound is one-sided.

  Returns:
    The bound, at most 1.

  Raises:
    ValueError: naming the argument, if it is out of range.

  Degenerate input: three units or fewer say nothing at 95 %: the bound is
  (nearly) 1.
  Example:
    >>> round(rule_of_three(300), 4)
    0.01

  References: Hanley and Lippman-Hand 1983, If nothing goes wrong, is everything
  all right?
  """
  if num_units < 1:
    raise ValueError(f"num_units must be at least 1, got {num_units}")
  checks.check_inside("level", level)
  return min(-math.log1p(-level) / num_units, 1.0)


def rate_interval(
  rate: float, variance: float, freedom: float, *, level: float = 0.95
) -> tuple[float, float]:
  """Computes the interval of a rate whose variance was estimated.

  Wilson's interval with n_eff = p (1 - p) / V, with Student's quantile.
  Batch meaning: takes numbers, no pairs.

  Args:
    rate: p, inside 0..1.
    variance: V, > 0.
    freedom: degrees of freedom of the variance, >= 1.
    level: of confidence, inside 0..1.

  Returns:
    (low, high), in 0..1, enclosing the rate.

  Raises:
    ValueError: naming the argument, if it is out of range.

  Degenerate input: a variance of almost 0 gives the rate itself.
  Example:
    >>> low, high = rate_interval(0.1, 0.0009, 1e6)
    >>> round(low, 3), round(high, 3)
    (0.055, 0.174)
  """
  checks.check_inside("rate", rate)
  checks.check_inside("level", level)
  if not (variance > 0 and freedom >= 1):
    raise ValueError(
      f"variance must be > 0 and freedom >= 1, got {variance} and {freedom}"
    )
  spread = cells_lib.Spread(variance, 0.0, freedom)
  return _ends(rate, spread, student(freedom, level))


def error_rate_intervals(
  scores: ArrayLike,
  people_a: ArrayLike,
  people_b: ArrayLike,
  threshold: float,
  *,
  level: float = 0.95,
  min_people: int = MIN_PEOPLE,
) -> ErrorRateIntervals:
  """Computes FMR and FNMR with intervals that hold when pairs share people.

  The ends are the rates x with |x - p| = t sqrt(V(x)) for the rate p seen and
    V(x) = V_own r + V_shared r^1.75,  r = x (1 - x) / (p (1 - p))
  V_own: pairs of the same two people (of one person for FNMR). How alike they
  are is their intraclass correlation c, from e = errors - p n of each two with
  n pairs, C such, N pairs in all:
    c = (sum e^2 / n / (p (1 - p)) C / (C - 1) - C) / (N - C), in 0..1
    V_own = p (1 - p) (N + c (sum n^2 - N)) / N^2
  V_shared, for FMR alone: pairs that share one person. With h = e / sqrt(n)
  and sums over (a, b) and (a, d), pairs of people that share one,
    V_shared = max(0, sum h h') / sum sqrt(n n') sum n n' / N^2 k / (k - 2)
  where k is the number of people that would count as much if all counted alike.
  t is Student's quantile, with degrees of freedom from the kurtosis of the
  people's sums of h: errors that a few people cause say less than their number.
  Without any error the upper end is the `rule_of_three` on pairs of people (on
  people for FNMR); with nothing but errors it mirrors this.
  Batch meaning: all pairs together make one result.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    people_a: person at one end of each pair, integer or string [P].
    people_b: person at the other end, [P]; a pair is genuine if the same.
    threshold: accept at or above; chosen on other people than these.
    level: of confidence, inside 0..1.
    min_people: with fewer people in the pairs of a kind its interval is
      refused. Below 30 a nominal 95 % covers the truth much less often.

  Returns:
    The ErrorRateIntervals; the ends lie in 0..1 and enclose the rate. A caution
    comes with fewer than 100 people, or errors of fewer than 40 (FMR), and with
    errors of fewer than 10 (FNMR).

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      only one kind of pair, a NaN threshold or a level out of range.

  Degenerate input: without an error, or with nothing but errors, there is no
  variance to estimate, see above.
  Example:
    >>> ids = np.repeat(np.arange(40), 2)
    >>> i, j = np.triu_indices(80, 1)
    >>> scores = 1.0 * (ids[i] == ids[j]) * (ids[i] % 8 > 0)
    >>> fnmr = error_rate_intervals(scores, ids[i], ids[j], 0.5).fnmr
    >>> fnmr.rate, round(fnmr.low, 3), round(fnmr.high, 3)
    (0.125, 0.051, 0.275)

  References: Fogliato, Patil and Perona 2023, arXiv 2306.01198; Wilson 1927.
  """
  scores = checks.check_floats("scores", scores, 1)
  known, ends = checks.check_ends(people_a, people_b, scores.shape)
  scores, same = checks.check_pairs(scores, ends[0] == ends[1])
  checks.check_inside("level", level)
  accepted = scores >= checks.check_threshold(threshold)
  wrong = np.where(same, ~accepted, accepted)
  return ErrorRateIntervals(
    *(
      cells_interval(
        cells_lib.count(wrong[kind], ends[:, kind], known.size),
        level=level,
        min_people=min_people,
      )
      for kind in (~same, same)
    )
  )


def cells_interval(
  cells: cells_lib.Cells, *, level: float = 0.95, min_people: int = MIN_PEOPLE
) -> RateInterval:
  """Computes one rate of `error_rate_intervals` from counts.

  Batch meaning: all cells together make one result.

  Args:
    cells: all of one kind of pair, not none; each two people once.
    level: of confidence, inside 0..1.
    min_people: as there.

  Returns:
    The RateInterval.

  Degenerate input: as there.
  Example:
    >>> ids = np.arange(40)
    >>> cells = cells_lib.Cells(1 * (ids % 8 == 0), np.ones(40, int), ids, ids)
    >>> round(cells_interval(cells).high, 3)
    0.275
  """
  pairs, wrong = int(cells.pairs.sum()), int(cells.wrong.sum())
  rate = wrong / pairs
  ends = np.stack([cells.first, cells.second])
  people = np.unique(ends).size
  result = RateInterval(
    rate, None, None, wrong, pairs, None, people, None, _caution(cells, ends)
  )
  spread = None
  if 0 < wrong < pairs:
    spread = cells_lib.spread(cells, rate)
    effective = rate * (1 - rate) / (spread.own + spread.shared)
    result = result._replace(effective_pairs=effective)
  if people < min_people:
    reason = (
      f"an interval needs at least {min_people} people, these pairs have "
      f"{people}"
    )
    return result._replace(reason=reason, caution=None)
  if spread is not None:
    low, high = _ends(rate, spread, student(spread.freedom, level))
  else:
    bound = rule_of_three(cells.wrong.size, level=level)
    low, high = (0.0, bound) if wrong == 0 else (1 - bound, 1.0)
  return result._replace(low=low, high=high)


def _caution(cells: cells_lib.Cells, ends: np.ndarray) -> str | None:
  """What the simulations of benchmarks/cover.py say of so few people."""
  number = np.unique(ends[:, cells.wrong > 0]).size
  if not number:
    return "no error was seen, so that only the upper end means anything"
  if (cells.first == cells.second).all():
    if number >= _ENOUGH_IN_FALSE_NON_MATCHES:
      return None
    return (
      f"only {number} people were taken for others: intervals like this one "
      "were wider than need be in simulations"
    )
  people = np.unique(ends).size
  if people >= ENOUGH_PEOPLE and number >= _ENOUGH_IN_FALSE_MATCHES:
    return None
  return (
    f"of {people} people {number} are in false matches: intervals like this "
    "one missed the truth in up to 15 of 100 simulations, not 5"
  )


def _ends(
  rate: float, spread: cells_lib.Spread, quantile: float
) -> tuple[float, float]:
  """Rates from which the one seen is `quantile` standard deviations off.

  On either side there is one: (x - p)^2 grows quicker than r^1.75 does.
  """

  def off(end: float) -> bool:
    times = end * (1 - end) / (rate * (1 - rate))
    variance = spread.own * times + spread.shared * times**_SHARED_POWER
    return (end - rate) ** 2 > quantile**2 * variance

  found = []
  for outside in (0.0, 1.0):
    inside = rate
    for _ in range(_HALVINGS):
      middle = (inside + outside) / 2
      inside, outside = (inside, middle) if off(middle) else (middle, outside)
    found.append(outside)
  return found[0], found[1]


def student(freedom: float, level: float) -> float:
  """Returns the two-sided quantile of Student's t distribution.

  With t = sqrt(f) tan(a) the density is cos(a)^(f - 1): smooth, on a finite
  range, so a table of its integral is exact to about six digits.
  """
  normal = statistics.NormalDist().inv_cdf((1 + level) / 2)
  widest = min(math.pi / 2, 20 * normal / math.sqrt(freedom))
  angle = np.linspace(0, widest, _QUANTILE_STEPS)
  density = np.cos(angle) ** (freedom - 1)
  area = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
  found = float(np.interp(level, area / area[-1], angle))
  return math.sqrt(freedom) * math.tan(found)
