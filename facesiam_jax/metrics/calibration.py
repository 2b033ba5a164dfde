"""From scores to logits, and how sure a number measured on few people is.

`fit_platt` turns similarities into the logit of "same person" at equal odds.
`person_bootstrap` draws people, not pairs: pairs share people, so intervals
that take pairs for independent are far too narrow.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks, resampling
from facesiam_jax.metrics.tally import Tally

MIN_PEOPLE = 30
# With fewer, what was simulated in docs/intervals.md is not near 95 of 100.
ENOUGH_PEOPLE = 100

_NEWTON_STEPS = 100
_NEWTON_GAIN = 1e-20
_MAX_DROPPED_SHARE = 0.1


class Platt(NamedTuple):
  """logit = w * score + b, the log likelihood ratio of "same person"."""

  w: float
  b: float


class Bootstrap(NamedTuple):
  """Intervals by metric name, or the reason why there are none.

  Attributes:
    intervals: name -> (low, high); None if refused.
    reason: one sentence if refused, else None.
    caution: what is known of their cover, where that is not near their level;
      else None.
    binning_error: how far the ends of rates and areas may lie from those that
      every score would give; None without bins.
  """

  intervals: dict[str, tuple[float, float]] | None
  reason: str | None
  caution: str | None = None
  binning_error: float | None = None


def fit_platt(scores: ArrayLike, same: ArrayLike) -> Platt:
  """Fits the logit of "same person" at prior 1/2 by Platt's method.

  Minimises the cross-entropy of sigma(w * score + b) with each kind of pair
  weighted to one half in total. The log prior odds of the fitting set, where
  impostors outnumber genuine pairs many times, are thereby not in the logit:
  for another prior p add log(p / (1 - p)). The targets are Platt's (n_g + 1) /
  (n_g + 2) and 1 / (n_i + 2), which keep w finite on separable scores.
  Batch meaning: all pairs together make one map.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    Platt(w, b); w is in logits per unit of score, and negative only if the
    scores have the wrong sign.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, only one kind of pair, or if all scores are
      equal.

  Degenerate input: scores that separate perfectly give a finite w.
  Example:
    >>> w, b = fit_platt([3.0, 2.0, 1.0, 0.0], [1, 1, 0, 0])
    >>> round(w, 3), round(b, 3)
    (0.908, -1.362)

  References: Platt 1999, Probabilistic outputs for support vector machines;
  Lin, Lin and Weng 2007 (the Newton form); Bruemmer and du Preez 2006.
  """
  scores, labels = checks.check_pairs(scores, same)
  scores = scores.astype(np.float64)
  if np.ptp(scores) == 0:
    raise ValueError("scores must differ from each other, all are equal")
  n_g, n_i = int(labels.sum()), int((~labels).sum())
  targets = np.where(labels, (n_g + 1) / (n_g + 2), 1 / (n_i + 2))
  weights = np.where(labels, 0.5 / n_g, 0.5 / n_i)
  # By a power of two, which is exact: no square then leaves float64.
  exponent = np.frexp(np.abs(scores).max())[1]
  shares: np.ndarray = np.ldexp(scores, -exponent)
  # Newton is well conditioned on standardised scores; the optimum is the same.
  centre, scale = shares.mean(), shares.std()
  slope, offset = _newton((shares - centre) / scale, targets, weights)
  slope /= scale
  return Platt(
    float(np.ldexp(slope, -exponent)), float(offset - slope * centre)
  )


def _newton(
  scores: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Minimises the weighted cross-entropy over (slope, offset), float64 [2]."""
  theta = np.zeros(2)
  loss = _cross_entropy(theta, scores, targets, weights)
  for _ in range(_NEWTON_STEPS):
    # (1 + tanh(z / 2)) / 2 is the sigmoid without overflow.
    p = 0.5 * (1 + np.tanh(0.5 * (theta[0] * scores + theta[1])))
    residual = weights * (p - targets)
    curvature = weights * p * (1 - p)
    first = curvature * scores
    gradient = np.array([residual @ scores, residual.sum()])
    mixed = first.sum()
    hessian = np.array([[first @ scores, mixed], [mixed, curvature.sum()]])
    step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
    theta, before = _line_search(theta, step, loss, scores, targets, weights)
    # What a step can gain is gradient @ step / 2; below rounding it is done.
    if before == loss or gradient @ step < _NEWTON_GAIN:
      break
    loss = before
  return theta


def _line_search(
  theta: np.ndarray, step: np.ndarray, loss: float, *pairs: np.ndarray
) -> tuple[np.ndarray, float]:
  """The first of theta - step, theta - step / 2, ... that lowers the loss."""
  rate = 1.0
  while rate > 1e-6:
    trial = theta - rate * step
    trial_loss = _cross_entropy(trial, *pairs)
    if trial_loss < loss:
      return trial, trial_loss
    rate /= 2
  return theta, loss


def _cross_entropy(
  theta: np.ndarray,
  scores: np.ndarray,
  targets: np.ndarray,
  weights: np.ndarray,
) -> float:
  logits = theta[0] * scores + theta[1]
  return float(weights @ (np.logaddexp(0, logits) - targets * logits))


def person_bootstrap(
  statistics: Callable[[Tally], Mapping[str, float]],
  scores: ArrayLike,
  people_a: ArrayLike,
  people_b: ArrayLike,
  *,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
  min_people: int = MIN_PEOPLE,
  cuts: Sequence[float] | None = None,
  bins: int | None = None,
) -> Bootstrap:
  """Computes percentile intervals by drawing people with replacement.

  A person drawn m times counts m times in their own genuine pairs, and m * n
  times in impostor pairs with someone drawn n times; pairs of a person with
  their own copy are dropped.
  Batch meaning: all pairs together make one set of intervals.

  Args:
    statistics: counts of a resample -> metrics by name, the same names each
      time; e.g. `lambda t: {"threshold": tally.eer_of(t).threshold}`.
    scores: similarity of each pair, float [P], finite; bigger is closer.
    people_a: person at one end of each pair, int [P].
    people_b: person at the other end, int [P]; a pair is genuine if the same.
    resamples: number of resamples, >= 1.
    level: share of resamples inside the interval, 0..1.
    seed: of the draws; the same seed gives the same intervals.
    min_people: with fewer people there is no interval. Below 30 a nominal 95 %
      interval of this kind covers the truth much less often.
    cuts: the thresholds that `statistics` applies, perhaps none, if it returns
      rates and areas alone: neighbouring impostor scores without a genuine one
      or a cut between them are then counted together, which changes none of
      these, and many pairs take a tenth of the time. None keeps every score, as
      a threshold that is read off the counts needs.
    bins: count scores in about so many bins of alike shares of the pairs, for
      `statistics` as above; None counts them exactly.

  Returns:
    The Bootstrap. It says nothing about errors never seen: a rate of 0 gives
    (0, 0), where the rule of three should be used.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      only one kind of pair, or `level` or `resamples` out of range.

  Degenerate input: resamples without a genuine or an impostor pair are left
  out, and more than a tenth of them is a reason to refuse.
  Example:
    >>> person_bootstrap(lambda counts: {}, [0.9, 0.1], [1, 1], [1, 2]).reason
    'an interval needs at least 30 people, these pairs have 2'

  References: Efron and Tibshirani 1993; Bolle, Ratha and Pankanti 2004, Error
  analysis of pattern recognition systems: the subsets bootstrap.
  """
  people_a, people_b = np.asarray(people_a), np.asarray(people_b)
  if people_a.shape != people_b.shape:
    raise ValueError(
      "people_a and people_b must have one shape, got "
      f"{people_a.shape} and {people_b.shape}"
    )
  scores, labels = checks.check_pairs(scores, people_a == people_b)
  checks.check_share("level", level)
  if resamples < 1:
    raise ValueError(f"resamples must be at least 1, got {resamples}")
  people, ends = checks.number(np.concatenate([people_a, people_b]))
  if people.size < min_people:
    return Bootstrap(
      None,
      f"an interval needs at least {min_people} people, these pairs have "
      f"{people.size}",
    )
  draws = _resampled_tallies(
    scores, labels, ends.reshape(2, -1), people.size, resamples, seed, cuts,
    bins,
  )  # fmt: skip
  return summarised(
    draws,
    statistics,
    num_people=people.size,
    resamples=resamples,
    level=level,
    binned=bins is not None,
  )


def summarised(
  tallies: Iterable[Tally],
  statistics: Callable[[Tally], Mapping[str, float]],
  *,
  num_people: int,
  resamples: int,
  level: float,
  binned: bool,
) -> Bootstrap:
  """Returns what resampled tallies come to; see `person_bootstrap`.

  Args:
    tallies: of the resamples that had both kinds of pair.
    statistics: counts of a resample -> metrics by name.
    num_people: number of people drawn from.
    resamples: number of all resamples.
    level: share of resamples inside the interval.
    binned: whether the tallies are of bins.

  Example:
    >>> counts = Tally(np.array([1.0, 0.0]), np.array([1, 0]), np.array([0, 1]))
    >>> settings = {"resamples": 1, "level": 0.9, "binned": True}
    >>> summarised([counts], lambda t: {"pairs": float(t.num_genuine)},
    ...            num_people=100, **settings).intervals
    {'pairs': (1.0, 1.0)}
  """
  results, error = [], 0.0
  for counts in tallies:
    results.append(statistics(counts))
    if binned:
      error = max(error, resampling.binning_error_of(counts))
  dropped = resamples - len(results)
  if dropped > _MAX_DROPPED_SHARE * resamples:
    return Bootstrap(
      None,
      f"{dropped} of {resamples} resamples lacked genuine or impostor pairs",
    )
  caution = None
  if num_people < ENOUGH_PEOPLE:
    caution = (
      f"intervals from people drawn anew are too narrow with {num_people} "
      "people: see docs/intervals.md"
    )
  binning = error if binned else None
  return Bootstrap(percentiles(results, level), None, caution, binning)


def _resampled_tallies(
  scores: np.ndarray,
  labels: np.ndarray,
  ends: np.ndarray,
  num_people: int,
  resamples: int,
  seed: int,
  cuts: Sequence[float] | None,
  bins: int | None,
) -> Iterator[Tally]:
  """Yields the tally of each resample that has both kinds of pair."""
  for resample in resampling.resamples_of(
    [scores],
    labels,
    ends,
    num_people,
    resamples=resamples,
    seed=seed,
    cuts=[cuts],
    bins=bins,
  ):
    yield resample.tallies[0]


def percentiles(
  results: Sequence[Mapping[str, float]], level: float
) -> dict[str, tuple[float, float]]:
  """Returns the ends of the middle `level` of each metric's resamples."""
  tail = (1 - level) / 2
  intervals = {}
  for name in results[0]:
    low, high = np.quantile([r[name] for r in results], [tail, 1 - tail])
    intervals[name] = (float(low), float(high))
  return intervals
