"""Intervals for error rates of pairs that share people.

Pairs of one person, and pairs of the same two people, go wrong together, so the
number of pairs says little about how sure a rate is: Wilson's interval on the
number of pairs, nominally 95 %, covered a false match rate in 15 to 76 of 100
simulated experiments. Here the variance is estimated from sums over people,
turned into an effective number of pairs, and put into Wilson's formula. In the
same experiments that covered false match rates of 0.01 and 0.1 in 87 to 94 of
100 with 30 people and in 91 to 95 with 58, the lower numbers where people cause
half of the variance of the scores, and false non-match rates in 96 to 98.

References: Fogliato, Patil and Perona 2023, Confidence intervals for error
rates in 1:1 matching tasks, arXiv 2306.01198.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks
from facesiam_jax.metrics.calibration import MIN_PEOPLE

_QUANTILE_STEPS = 20001


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
  """

  rate: float
  low: float | None
  high: float | None
  errors: int
  pairs: int
  effective_pairs: float | None
  people: int
  reason: str | None


class ErrorRateIntervals(NamedTuple):
  """Intervals of the false match and of the false non-match rate."""

  fmr: RateInterval
  fnmr: RateInterval


class _Spread(NamedTuple):
  """Variance of a rate, degrees of freedom of that estimate, person units."""

  variance: float
  freedom: float
  units: int
  people: int


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
  return _wilson(rate, rate * (1 - rate) / variance, _student(freedom, level))


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

  Wilson's interval with n_eff = p (1 - p) / V for the number of pairs, where V
  is the variance of the rate p over people drawn anew:
    FNMR: V = sum_a G_aa^2 / N^2
    FMR:  V = (sum_{a<b} G_ab^2 + max(0, sum_a sum_{b != c} G_ab G_ac)) / N^2
  with G_ab the errors of people a and b minus p times the number of their
  pairs, and V never below p (1 - p) / N. To this we add what few people need: V
  is multiplied by n / (n - 1) for FNMR and n / (n - 2) for FMR, n people, and
  the quantile is Student's, with degrees of freedom from the kurtosis of the
  people's sums: errors that a few people cause say less than their number.
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
    The ErrorRateIntervals; the ends lie in 0..1 and enclose the rate.

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
    (0.125, 0.05, 0.277)

  References: Fogliato, Patil and Perona 2023, arXiv 2306.01198; Wilson 1927.
  """
  scores = checks.check_floats("scores", scores, 1)
  known, ends = checks.check_ends(people_a, people_b, scores.shape)
  scores, same = checks.check_pairs(scores, ends[0] == ends[1])
  checks.check_inside("level", level)
  accepted = scores >= checks.check_threshold(threshold)
  return ErrorRateIntervals(
    _interval(
      accepted[~same],
      _impostor_spread(accepted[~same], ends[:, ~same], known.size),
      level,
      min_people,
    ),
    _interval(
      ~accepted[same],
      _genuine_spread(~accepted[same], ends[0, same]),
      level,
      min_people,
    ),
  )


def _genuine_spread(errors: np.ndarray, people: np.ndarray) -> _Spread:
  """Spread of the share of errors, people as clusters of their pairs."""
  pairs = np.bincount(people)
  sums = np.bincount(people, errors) - errors.mean() * pairs
  sums = sums[pairs > 0]
  num = sums.size
  variance = float(sums @ sums) / errors.size**2
  # A single person has no other to differ from; n / (n - 1) is then infinite.
  variance *= num / max(num - 1, 1)
  return _Spread(variance, _freedom(sums), num, num)


def _impostor_spread(
  errors: np.ndarray, ends: np.ndarray, num_people: int
) -> _Spread:
  """Spread of the share of errors, pairs of people sharing one of them."""
  keys = ends.min(axis=0) * num_people + ends.max(axis=0)
  known, index = checks.number(keys)
  pairs = np.bincount(index)
  sums = np.bincount(index, errors) - errors.mean() * pairs
  by_person = np.bincount(known // num_people, sums, num_people)
  by_person += np.bincount(known % num_people, sums, num_people)
  present = np.bincount(ends.ravel(), minlength=num_people) > 0
  by_person = by_person[present]
  squares = float(sums @ sums)
  shared = float(by_person @ by_person) - 2 * squares
  num = by_person.size
  variance = (squares + max(shared, 0.0)) / errors.size**2
  variance *= num / max(num - 2, 1)
  return _Spread(variance, _freedom(by_person), known.size, num)


def _freedom(sums: np.ndarray) -> float:
  """Degrees of freedom of a variance estimated from n sums.

  A variance of n values of kurtosis k has relative variance (k - 1) / n, that
  of a chi-square of f degrees of freedom has 2 / f.
  """
  squares = sums**2
  most = max(sums.size - 1, 1)
  if not squares.any():
    return most
  kurtosis = sums.size * float(squares @ squares) / float(squares.sum()) ** 2
  return min(2 * sums.size / max(kurtosis - 1, 1e-9), most)


def _interval(
  errors: np.ndarray, spread: _Spread, level: float, min_people: int
) -> RateInterval:
  pairs, wrong = errors.size, int(errors.sum())
  rate = wrong / pairs
  low: float | None = None
  high: float | None = None
  effective, reason = None, None
  if 0 < wrong < pairs:
    variance = max(spread.variance, rate * (1 - rate) / pairs)
    effective = rate * (1 - rate) / variance
  if spread.people < min_people:
    reason = (
      f"an interval needs at least {min_people} people, these pairs have "
      f"{spread.people}"
    )
  elif effective is not None:
    low, high = _wilson(rate, effective, _student(spread.freedom, level))
  else:
    bound = rule_of_three(spread.units, level=level)
    low, high = (0.0, bound) if wrong == 0 else (1 - bound, 1.0)
  return RateInterval(
    rate, low, high, wrong, pairs, effective, spread.people, reason
  )


def _wilson(
  rate: float, effective: float, quantile: float
) -> tuple[float, float]:
  """Wilson's score interval; the quantile may be Student's."""
  square = quantile**2 / effective
  centre = rate + square / 2
  half = math.sqrt(square * (rate * (1 - rate) + square / 4))
  low, high = (centre - half) / (1 + square), (centre + half) / (1 + square)
  # Rounding must not put the rate itself outside.
  return min(max(low, 0.0), rate), max(min(high, 1.0), rate)


def _student(freedom: float, level: float) -> float:
  """Two-sided quantile of Student's t distribution.

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
