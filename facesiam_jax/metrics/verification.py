"""One-to-one verification: error rates, ROC, DET, EER, AUC, thresholds.

A score is a similarity: bigger is closer. A pair is accepted ("same person")
iff score >= threshold, as NIST counts (FRTE reports):
  FMR(t)  = #{impostor scores >= t} / #impostor    (false match rate)
  FNMR(t) = #{genuine scores < t} / #genuine       (false non-match rate)
For a distance, flip the sign once before calling. Everything is exact NumPy on
the host; ties between scores are handled; NaN, infinity, empty input and input
with only one kind of pair are refused by a ValueError that names the argument.

References: Fawcett 2006, An introduction to ROC analysis; Provost and Fawcett
2001, Robust classification for imprecise environments (the convex hull).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import tally as tally_lib
from facesiam_jax.metrics.tally import Accuracy, Eer, ErrorRates, TarAtFar


class Roc(NamedTuple):
  """Receiver operating characteristic, T distinct scores.

  Attributes:
    thresholds: +inf, then the distinct scores from high to low, [T + 1].
    fmr: false match rate at each threshold, non-decreasing, float64 [T + 1].
    tar: true accept rate (1 - FNMR), non-decreasing, float64 [T + 1].
  """

  thresholds: np.ndarray
  fmr: np.ndarray
  tar: np.ndarray


class Det(NamedTuple):
  """Detection error trade-off: `Roc` with FNMR instead of TAR, [T + 1] each."""

  thresholds: np.ndarray
  fmr: np.ndarray
  fnmr: np.ndarray


def roc(scores: ArrayLike, same: ArrayLike) -> Roc:
  """Computes the whole ROC curve, one point for each distinct score.

  Batch meaning: all pairs together make one curve.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The Roc; it starts at (0, 0) and ends at (1, 1).

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair.

  Degenerate input: all scores equal gives the two end points only.
  Example:
    >>> curve = roc([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])
    >>> curve.fmr.tolist(), curve.tar.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
  """
  thresholds, fmr, fnmr = det_points(scores, same)
  return Roc(thresholds, fmr, 1 - fnmr)


def det_points(scores: ArrayLike, same: ArrayLike) -> Det:
  """Computes FMR and FNMR at every distinct score.

  Batch meaning: all pairs together make one curve.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The Det; FMR rises from 0 to 1 while FNMR falls from 1 to 0. A DET plot
    draws both on normal-deviate axes.

  Raises:
    ValueError: as `roc`.

  Degenerate input: all scores equal gives the two end points only.
  Example:
    >>> det_points([0.9, 0.1], [1, 0]).fnmr.tolist()
    [1.0, 0.0, 0.0]

  References: Martin et al. 1997, The DET curve in assessment of detection task
  performance.
  """
  counts = tally_lib.tally(scores, same)
  accepts, rejects = tally_lib.operating_points(counts)
  thresholds = np.concatenate([[np.inf], counts.values])
  return Det(thresholds, accepts / accepts[-1], rejects / rejects[0])


def auc(scores: ArrayLike, same: ArrayLike) -> float:
  """Computes the area under the ROC curve by mid-ranks.

    P(genuine score > impostor score) + P(equal) / 2
  Batch meaning: all pairs together make one number.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The area in 0..1; 0.5 is chance, below it the sign of the scores is wrong.

  Raises:
    ValueError: as `roc`.

  Degenerate input: all scores equal gives 0.5.
  Example:
    >>> auc([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])
    0.875

  References: Hanley and McNeil 1982; Mann and Whitney 1947.
  """
  return tally_lib.auc_of(tally_lib.tally(scores, same))


def eer(scores: ArrayLike, same: ArrayLike) -> Eer:
  """Computes the equal error rate, the rate at which FMR = FNMR.

  On finite data no threshold need make the two equal, so two numbers exist:
  `rocch` reads the crossing off the convex hull of the ROC curve (never above
  0.5, the rate that mixing two thresholds can reach), `raw` off the curve
  itself with straight lines between neighbouring points. State which you quote.
  Batch meaning: all pairs together make one result.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    Eer(rocch, raw, threshold): rates in 0..1 and a threshold, half-way between
    two neighbouring scores, at which FMR and FNMR are nearest to each other (of
    two equally near, the higher one: fewer false matches).

  Raises:
    ValueError: as `roc`.

  Degenerate input: perfect separation gives 0, 0 and the middle of the gap; all
  scores equal gives 0.5, 0.5 and a threshold just above them.
  Example:
    >>> eer([0.9, 0.8, 0.3, 0.7, 0.2, 0.1], [1, 1, 1, 0, 0, 0])
    Eer(rocch=0.16666666666666666, raw=0.3333333333333333, threshold=0.5)

  References: Bruemmer and de Villiers 2013, The BOSARIS toolkit (ROCCH-EER).
  """
  return tally_lib.eer_of(tally_lib.tally(scores, same))


def error_rates_at(
  scores: ArrayLike, same: ArrayLike, threshold: float
) -> ErrorRates:
  """Computes FMR and FNMR of the decision score >= threshold.

  Batch meaning: all pairs together make one pair of numbers.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    threshold: in the unit of the scores; may be infinite.

  Returns:
    ErrorRates(fmr, fnmr), each in 0..1.

  Raises:
    ValueError: as `roc`, or if the threshold is NaN.

  Degenerate input: a score equal to the threshold is accepted.
  Example:
    >>> error_rates_at([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 0.5)
    ErrorRates(fmr=0.5, fnmr=0.0)
  """
  return tally_lib.error_rates_of(tally_lib.tally(scores, same), threshold)


def accuracy_at(
  scores: ArrayLike, same: ArrayLike, threshold: float
) -> Accuracy:
  """Computes the accuracy of the decision score >= threshold.

  Batch meaning: all pairs together make one pair of numbers.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    threshold: in the unit of the scores; may be infinite.

  Returns:
    Accuracy(raw, balanced), each in 0..1: the share of right decisions, and
    1 - (FMR + FNMR) / 2. Where impostor pairs outnumber genuine ones ten to
    one, refusing everybody has a raw accuracy of 0.91, and a balanced of 0.5.

  Raises:
    ValueError: as `roc`, or if the threshold is NaN.

  Degenerate input: a score equal to the threshold is accepted.
  Example:
    >>> accuracy_at([0.9, 0.4, 0.3, 0.2], [1, 0, 0, 0], 0.95)
    Accuracy(raw=0.75, balanced=0.5)
  """
  return tally_lib.accuracy_of(tally_lib.tally(scores, same), threshold)


def tar_at_far(scores: ArrayLike, same: ArrayLike, target: float) -> TarAtFar:
  """Computes the true accept rate at a false accept rate of at most `target`.

  The threshold is the smallest observed score with FMR(t) <= target, so the
  target is never exceeded and nothing is interpolated.
  Batch meaning: all pairs together make one number.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    target: largest false accept (match) rate allowed, 0..1.

  Returns:
    TarAtFar(tar, threshold). With fewer than 1 / target impostor pairs the
    target stands for "no false accept at all".

  Raises:
    ValueError: as `roc`, or if the target lies outside 0..1.

  Degenerate input: if even the highest score would exceed the target, the TAR
  is 0 and the threshold the next number above that score.
  Example:
    >>> tar_at_far([0.9, 0.7, 0.8, 0.1], [1, 1, 0, 0], 0.4)
    TarAtFar(tar=0.5, threshold=0.9)
  """
  return tally_lib.tar_at_far_of(tally_lib.tally(scores, same), target)


def threshold_at_fmr(
  scores: ArrayLike, same: ArrayLike, target: float
) -> float:
  """Returns the smallest observed score with FMR <= target.

  Batch meaning: all pairs together make one threshold.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    target: largest false match rate allowed, 0..1.

  Returns:
    The threshold, in the unit of the scores.

  Raises:
    ValueError: as `tar_at_far`.

  Degenerate input: as `tar_at_far`.
  Example:
    >>> threshold_at_fmr([0.9, 0.7, 0.8, 0.1], [1, 1, 0, 0], 0.5)
    0.7
  """
  return tar_at_far(scores, same, target).threshold


def threshold_at_eer(scores: ArrayLike, same: ArrayLike) -> float:
  """Returns the threshold at which FMR and FNMR are nearest to each other.

  Batch meaning: all pairs together make one threshold.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The threshold, in the unit of the scores, half-way between two scores.

  Raises:
    ValueError: as `roc`.

  Degenerate input: as `eer`.
  Example:
    >>> threshold_at_eer([0.75, 0.25], [1, 0])
    0.5
  """
  return eer(scores, same).threshold
