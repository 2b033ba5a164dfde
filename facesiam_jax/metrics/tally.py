"""Score tallies: sorted counts from which every verification metric follows.

A tally holds each distinct score once, from high to low, with the number of
genuine and of impostor pairs that have it. Ties are then exact by construction,
and a bootstrap resample is a change of the counts that sorts nothing again.
Cumulative counts stay integers until the last division, so rates are the
nearest double to the true fraction.
"""

import bisect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics.checks import (
  check_pairs,
  check_share,
  check_threshold,
)


class Tally(NamedTuple):
  """Counts of genuine and impostor pairs at each distinct score.

  Attributes:
    values: distinct scores, high to low, float32 or float64 [T].
    genuine: number of same-person pairs with that score, int64 [T].
    impostor: number of different-person pairs with that score, int64 [T].
  """

  values: np.ndarray
  genuine: np.ndarray
  impostor: np.ndarray

  @property
  def num_genuine(self) -> int:
    return int(self.genuine.sum())

  @property
  def num_impostor(self) -> int:
    return int(self.impostor.sum())


class Eer(NamedTuple):
  """Equal error rate; see `facesiam_jax.metrics.verification.eer`."""

  rocch: float
  raw: float
  threshold: float


class ErrorRates(NamedTuple):
  """False match and false non-match rate, each in 0..1."""

  fmr: float
  fnmr: float


class Accuracy(NamedTuple):
  """Share of right decisions (`raw`) and (TAR + 1 - FMR) / 2 (`balanced`)."""

  raw: float
  balanced: float


class TarAtFar(NamedTuple):
  """True accept rate in 0..1 and the threshold that reaches it."""

  tar: float
  threshold: float


def tally(scores: ArrayLike, same: ArrayLike) -> Tally:
  """Counts genuine and impostor pairs at each distinct score.

  Batch meaning: all pairs together make one tally.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The Tally.

  Raises:
    ValueError: as `check_pairs`.

  Degenerate input: equal scores share one entry, so no order is made up.
  Example:
    >>> counts = tally([0.9, 0.5, 0.5], [1, 1, 0])
    >>> counts.genuine.tolist(), counts.impostor.tolist()
    ([1, 1], [0, 1])
  """
  scores, labels = check_pairs(scores, same)
  # Sorting values is many times quicker than finding the order of the pairs.
  ordered = np.sort(scores)
  starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
  values = ordered[starts]
  both = np.diff(starts, append=scores.size)
  del ordered, starts
  # The rarer kind is looked up; the rest are of the other.
  few_genuine = 2 * np.count_nonzero(labels) <= labels.size
  rare = np.sort(scores[labels if few_genuine else ~labels])
  first = np.flatnonzero(np.append(True, rare[1:] != rare[:-1]))
  some = np.zeros(values.size, np.int64)
  places = np.searchsorted(values, rare[first])
  some[places] = np.diff(first, append=rare.size)
  both -= some
  genuine, impostor = (some, both) if few_genuine else (both, some)
  return Tally(values[::-1], genuine[::-1], impostor[::-1])


def operating_points(counts: Tally) -> tuple[np.ndarray, np.ndarray]:
  """Returns false accepts and false rejects at every operating point.

  Args:
    counts: the Tally of T distinct scores.

  Returns:
    (false_accepts, false_rejects), int64 [T + 1]: entry k accepts the k highest
    distinct scores, from nothing (k = 0) to everything (k = T).
  """
  accepts, hits = np.zeros((2, counts.values.size + 1), np.int64)
  np.cumsum(counts.impostor, out=accepts[1:])
  np.cumsum(counts.genuine, out=hits[1:])
  return accepts, np.subtract(hits[-1], hits, out=hits)


def auc_of(counts: Tally) -> float:
  """Area under the ROC curve; see `facesiam_jax.metrics.verification.auc`."""
  both = (counts.genuine + counts.impostor)[::-1]
  mid_ranks = np.cumsum(both) - (both - 1) / 2
  n_g, n_i = counts.num_genuine, counts.num_impostor
  rank_sum = float(mid_ranks @ counts.genuine[::-1])
  return (rank_sum - n_g * (n_g + 1) / 2) / (n_g * n_i)


def eer_of(counts: Tally) -> Eer:
  """Equal error rate; see `facesiam_jax.metrics.verification.eer`."""
  accepts, rejects = operating_points(counts)
  n_g, n_i = int(rejects[0]), int(accepts[-1])

  def gap(k: int) -> int:
    """Negative where FMR < FNMR; integers, so its sign is exact."""
    return int(accepts[k]) * n_g - int(rejects[k]) * n_i

  def crossing(low: int, high: int) -> float:
    """False accepts where the segment low -> high meets FMR = FNMR."""
    share = -gap(low) / (gap(high) - gap(low))
    return float(accepts[low] + share * (accepts[high] - accepts[low]))

  after = bisect.bisect_left(range(accepts.size), 0, key=gap)
  raw = crossing(after - 1, after) / n_i
  rocch = crossing(*_hull_edge(accepts, rejects, gap)) / n_i
  nearest = after - 1 if -gap(after - 1) <= gap(after) else after
  return Eer(rocch, raw, _between(counts.values, nearest))


def _hull_edge(
  accepts: np.ndarray, rejects: np.ndarray, gap: Callable[[int], int]
) -> tuple[int, int]:
  """Ends of the convex hull's edge that meets FMR = FNMR.

  The point farthest below a chord is a corner of the hull (as in QuickHull), so
  pulling the chord's end on its own side of the diagonal to it ends at the edge
  sought after a few passes, and never builds the rest of the hull. Beyond the
  ends of a chord between corners nothing lies below it.
  """
  low, high = 0, accepts.size - 1
  while True:
    run = accepts[high] - accepts[low]
    rise = rejects[high] - rejects[low]
    part = slice(low, high + 1)
    height = run * rejects[part]
    height -= rise * accepts[part]
    lowest = int(np.argmin(height))
    if height[lowest] >= height[0]:
      return low, high
    corner = low + lowest
    if gap(corner) <= 0:
      low = corner
    else:
      high = corner


def _between(values: np.ndarray, num_accepted: int) -> float:
  """A threshold that accepts exactly the `num_accepted` highest values.

  It lies half-way to the next lower score, which is the safest place for scores
  not seen yet.
  """
  if num_accepted == 0:
    return just_above(values[0])
  lowest = values[num_accepted - 1]
  if num_accepted == values.size:
    return float(lowest)
  # Halves first: the sum of two large scores may overflow.
  middle = lowest / 2 + values[num_accepted] / 2
  return float(middle if middle > values[num_accepted] else lowest)


def just_above(value: np.floating) -> float:
  """The next number of the same type; the step survives storing as float32.

  Above the largest number that is infinity, which accepts nothing either.
  """
  with np.errstate(over="ignore"):
    return float(np.nextafter(value, value.dtype.type(np.inf)))


def error_rates_of(counts: Tally, threshold: float) -> ErrorRates:
  """FMR and FNMR; see `facesiam_jax.metrics.verification.error_rates_at`."""
  accepted = counts.values >= check_threshold(threshold)
  return ErrorRates(
    int(counts.impostor[accepted].sum()) / counts.num_impostor,
    int(counts.genuine[~accepted].sum()) / counts.num_genuine,
  )


def accuracy_of(counts: Tally, threshold: float) -> Accuracy:
  """Accuracy; see `facesiam_jax.metrics.verification.accuracy_at`."""
  fmr, fnmr = error_rates_of(counts, threshold)
  n_g, n_i = counts.num_genuine, counts.num_impostor
  wrong = round(fmr * n_i) + round(fnmr * n_g)
  return Accuracy(1 - wrong / (n_g + n_i), 1 - (fmr + fnmr) / 2)


def best_threshold_of(counts: Tally) -> float:
  """The threshold with the most right decisions on these pairs.

  Args:
    counts: the Tally; kinds of pair are not weighted.

  Returns:
    The threshold, half-way between two neighbouring scores; of several equally
    good ones the highest: fewer false matches.

  Degenerate input: where refusing everybody is best, it lies just above the
  highest score.
  Example:
    >>> best_threshold_of(tally([0.75, 0.5, 0.0], [1, 1, 0]))
    0.25
  """
  accepts, rejects = operating_points(counts)
  return _between(counts.values, int(np.argmin(accepts + rejects)))


def tar_at_far_of(counts: Tally, target: float) -> TarAtFar:
  """TAR at FAR; see `facesiam_jax.metrics.verification.tar_at_far`."""
  check_share("target", target)
  accepts, rejects = operating_points(counts)
  k = int(np.searchsorted(accepts / accepts[-1], target, side="right")) - 1
  tar = 1 - int(rejects[k]) / int(rejects[0])
  values = counts.values
  threshold = just_above(values[0]) if k == 0 else float(values[k - 1])
  return TarAtFar(tar, threshold)


def summary_of(
  counts: Tally, threshold: float | None, targets: Mapping[str, float]
) -> dict[str, float]:
  """All verification metrics of a tally by name.

  Args:
    counts: the Tally.
    threshold: decision threshold; None leaves out the metrics that need one.
    targets: metric name -> false accept rate, for the TAR at FAR entries.

  Returns:
    eer, eer_raw, auc, one entry for each of `targets`, and with a threshold
    also accuracy, balanced_accuracy, fmr and fnmr; each in 0..1.

  Raises:
    ValueError: if the threshold is NaN or a target lies outside 0..1.
  """
  eer = eer_of(counts)
  summary = {"eer": eer.rocch, "eer_raw": eer.raw, "auc": auc_of(counts)}
  for name, target in targets.items():
    summary[name] = tar_at_far_of(counts, target).tar
  if threshold is not None:
    accuracy = accuracy_of(counts, threshold)
    rates = error_rates_of(counts, threshold)
    summary["accuracy"] = accuracy.raw
    summary["balanced_accuracy"] = accuracy.balanced
    summary["fmr"], summary["fnmr"] = rates
  return summary
