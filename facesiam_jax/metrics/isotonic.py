"""Isotonic calibration: the best monotone map from scores to likelihood ratios.

Pooling adjacent violators (PAV) gives, among all non-decreasing maps, the one
with the lowest cross-entropy at every prior at once. On the pairs it was fitted
to it is what `min_cllr` reports; for use on others `fit_isotonic` first adds a
genuine and an impostor pair at either end, or the map would end in infinity.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks
from facesiam_jax.metrics import tally as tally_lib

# The vectorised passes end where they drop less than this share of the points.
_WORTH_A_PASS = 0.05


class Isotonic(NamedTuple):
  """A non-decreasing map from scores to log likelihood ratios.

  Attributes:
    scores: lowest and highest score of each block, ascending, float64 [2 B].
    llrs: log likelihood ratio there, in nats, float64 [2 B].
  """

  scores: np.ndarray
  llrs: np.ndarray

  def llr(self, scores: ArrayLike) -> np.ndarray:
    """Returns log likelihood ratios of scores.

    Args:
      scores: float [P], finite.

    Returns:
      Natural log likelihood ratios, float64 [P]: constant on a block, a
      straight line between two blocks, and constant beyond the ends.

    Raises:
      ValueError: naming `scores`, for another rank, no entry, NaN or infinity.
    """
    array = checks.check_floats("scores", scores, 1)
    return np.interp(array, self.scores, self.llrs)


def fit_isotonic(scores: ArrayLike, same: ArrayLike) -> Isotonic:
  """Fits the log likelihood ratio of "same person" as a monotone map.

  With a genuine and an impostor pair added below all scores and above them
  (Laplace's rule of succession), scores are pooled into blocks of rising share
  of genuine pairs g / i; a block's log likelihood ratio is
    ln(g / i) - ln(num_genuine / num_impostor)
  where the second term removes the prior odds of the fitting set. Beware of few
  pairs: each step of the map rests on one block.
  Batch meaning: all pairs together make one map.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The Isotonic; its `llr` method maps new scores, always to finite values.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair.

  Degenerate input: all scores equal, or with the wrong sign, are pooled to log
  likelihood ratios of 0, but for the pairs added.
  Example:
    >>> fit = fit_isotonic([0.9, 0.8, 0.4, 0.3], [1, 1, 0, 0])
    >>> fit.llr([0.9, 0.7, 0.1]).round(3).tolist()
    [1.099, 0.549, -1.099]

  References: Ayer et al. 1955; Zadrozny and Elkan 2002; Bruemmer and du Preez
  2006, Application-independent evaluation of speaker detection.
  """
  counts = tally_lib.tally(scores, same)
  values = counts.values[::-1].astype(np.float64)
  genuine = np.concatenate([[1], counts.genuine[::-1], [1]])
  impostor = np.concatenate([[1], counts.impostor[::-1], [1]])
  ends = block_ends(genuine, impostor)
  num_genuine = np.diff(np.cumsum(genuine)[ends - 1], prepend=0)
  num_impostor = np.diff(np.cumsum(impostor)[ends - 1], prepend=0)
  llrs = np.log(num_genuine / num_impostor)
  llrs -= np.log(num_genuine.sum() / num_impostor.sum())
  # Places of the blocks among the scores proper: the first entry is added.
  low = np.append(0, ends[:-1]) - 1
  high = ends - 2
  low, high = np.maximum(low, 0), np.minimum(high, values.size - 1)
  real = low <= high
  scores = np.stack([values[low[real]], values[high[real]]], axis=1)
  return Isotonic(scores.ravel(), np.repeat(llrs[real], 2))


def block_ends(genuine: np.ndarray, impostor: np.ndarray) -> np.ndarray:
  """Pools adjacent entries until the share of genuine pairs rises strictly.

  The blocks lie between the corners of the greatest convex curve below the
  cumulative counts. All arithmetic is on integers, so ties are exact.
  Batch meaning: all entries together make the blocks.

  Args:
    genuine: number of genuine pairs of each entry, in ascending order of score,
      int64 [T], T > 0.
    impostor: number of impostor pairs, int64 [T]; no entry has neither.

  Returns:
    Where each block ends (exclusive), int64 [B], ascending, the last one T.

  Degenerate input: entries of equal share are pooled.
  Example:
    >>> block_ends(np.array([0, 1, 0, 1]), np.array([1, 0, 1, 0])).tolist()
    [1, 3, 4]

  References: Barlow et al. 1972 (the cumulative sum diagram).
  """
  total = np.append(0, np.cumsum(genuine + impostor))
  hits = np.append(0, np.cumsum(genuine))
  kept = np.arange(total.size)
  while True:
    run, rise = np.diff(total[kept]), np.diff(hits[kept])
    # A point on or above the line through its neighbours is no corner.
    corner = rise[:-1] * run[1:] < rise[1:] * run[:-1]
    if corner.all():
      return kept[1:]
    before = kept.size
    kept = kept[np.concatenate([[True], corner, [True]])]
    if before - kept.size < _WORTH_A_PASS * before:
      return _one_by_one(total[kept], hits[kept], kept)


def _one_by_one(
  total: np.ndarray, hits: np.ndarray, kept: np.ndarray
) -> np.ndarray:
  """The same, point by point: passes could each drop a single point."""
  stack: list[tuple[int, int, int]] = []
  points = zip(total.tolist(), hits.tolist(), kept.tolist(), strict=True)
  for x, y, place in points:
    while len(stack) > 1:
      (x0, y0, _), (x1, y1, _) = stack[-2:]
      if (y1 - y0) * (x - x1) < (y - y1) * (x1 - x0):
        break
      stack.pop()
    stack.append((x, y, place))
  return np.array([place for _, _, place in stack[1:]])
