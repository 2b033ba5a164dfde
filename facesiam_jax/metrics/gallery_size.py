"""False positives of identification in galleries of any size.

A stranger is taken for somebody if any of the N faces of a gallery is alike
enough. Were the comparisons independent, that would happen to

  FPIR(N) = 1 - (1 - FMR)^N

of strangers. They are not: a face that is like one is like more, and so the
formula says too much, the more so the larger the gallery. Up to the number of
people at hand FPIR can be measured instead.

References: Grother, Ngan and Hanaoka, NIST Face recognition technology
evaluation part 2: identification (false positives and the size of a gallery).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks, intervals
from facesiam_jax.metrics.calibration import MIN_PEOPLE

_GROUPS = 10


class FpirBySize(NamedTuple):
  """FPIR in galleries of several sizes, at several thresholds.

  Attributes:
    fpir: share of strangers who are taken for somebody, float64 [S, T].
    low: lower end of the interval, float64 [S, T]; None if refused.
    high: upper end, float64 [S, T]; None if refused.
    people: number of people.
    reason: one sentence if the intervals are refused, else None.
  """

  fpir: np.ndarray
  low: np.ndarray | None
  high: np.ndarray | None
  people: int
  reason: str | None


def fpir_of_fmr(fmr: float, size: int) -> float:
  """Returns 1 - (1 - FMR)^N: FPIR, were the comparisons independent.

  Batch meaning: takes numbers, no pairs.

  Args:
    fmr: false match rate of one comparison, 0..1.
    size: N, number of comparisons, >= 0.

  Returns:
    FPIR, 0..1.

  Raises:
    ValueError: naming the argument, if it is out of range.

  Degenerate input: an empty gallery has no false positive.
  Example:
    >>> round(fpir_of_fmr(1e-4, 1000), 4)
    0.0952
  """
  checks.check_share("fmr", fmr)
  if size < 0:
    raise ValueError(f"size must be at least 0, got {size}")
  if fmr == 1:
    return float(size > 0)
  return -math.expm1(size * math.log1p(-fmr))


def fmr_of_fpir(fpir: float, size: int) -> float:
  """Returns 1 - (1 - FPIR)^(1/N): the FMR that an FPIR asks for.

  Batch meaning: takes numbers, no pairs.

  Args:
    fpir: share of strangers who may be taken for somebody, 0..1.
    size: N, number of comparisons, >= 1.

  Returns:
    FMR of one comparison, 0..1.

  Raises:
    ValueError: naming the argument, if it is out of range.

  Degenerate input: an FPIR of 0 or 1 asks for just that FMR.
  Example:
    >>> round(fmr_of_fpir(0.01, 1000) * 1e5, 4)
    1.005
  """
  checks.check_share("fpir", fpir)
  if size < 1:
    raise ValueError(f"size must be at least 1, got {size}")
  return 1.0 if fpir == 1 else -math.expm1(math.log1p(-fpir) / size)


def fpir_by_size(
  similarity: ArrayLike,
  people: ArrayLike,
  thresholds: ArrayLike,
  sizes: ArrayLike,
  *,
  draws: int = 20,
  seed: int = 0,
  level: float = 0.95,
) -> FpirBySize:
  """Measures FPIR in galleries drawn from people, one image of each.

  Each image searches galleries of n people other than its own, drawn anew
  `draws` times. The interval is Wilson's for the variance of the delete-a-group
  jackknife over people (in 10 groups, each taken out of the searches and of the
  galleries), with no more effective searches than there are people; without any
  false positive its upper end is the rule of three on people.
  Batch meaning: all images together make one result.

  Args:
    similarity: image against image, float [N, N], finite.
    people: person of each image, integer or string [N].
    thresholds: float [T]; at or above one is a false positive.
    sizes: numbers of people in a gallery, int [S], each 1..number of people
      less 1.
    draws: galleries for each size.
    seed: of the draws.
    level: of confidence, inside 0..1.

  Returns:
    FpirBySize. With fewer than 30 people there are no intervals.

  Raises:
    ValueError: naming the argument, for a wrong shape, NaN, infinity, or a size
      out of range.

  Degenerate input: a constant similarity gives 0 or 1.
  Example:
    >>> alike = np.zeros((3, 3))
    >>> alike[0, 1] = alike[1, 0] = 1.0
    >>> fpir_by_size(alike, [0, 1, 2], [0.5], [2]).fpir.round(3).tolist()
    [[0.667]]

  References: Efron and Tibshirani 1993, An introduction to the bootstrap,
  chapter 11 (the jackknife).
  """
  similarity = checks.check_floats("similarity", similarity, 2)
  known, index = np.unique(np.asarray(people), return_inverse=True)
  sizes = np.asarray(sizes, np.int64)
  thresholds = np.asarray(thresholds, np.float64)
  if similarity.shape != (index.size, index.size):
    raise ValueError(
      f"similarity must have shape [{index.size}, {index.size}], got "
      f"{similarity.shape}"
    )
  if sizes.size and not 1 <= sizes.min() <= sizes.max() < known.size:
    raise ValueError(
      f"sizes must lie in 1..{known.size - 1}, one less than the people, got "
      f"{sizes.tolist()}"
    )
  rates = _rates(similarity, index, thresholds, sizes, draws, seed)
  if known.size < MIN_PEOPLE:
    reason = (
      f"an interval needs at least {MIN_PEOPLE} people, these are {known.size}"
    )
    return FpirBySize(rates, None, None, known.size, reason)
  group = np.random.default_rng(seed).permutation(known.size) % _GROUPS
  without = np.stack(
    [
      _rates(
        similarity[np.ix_(kept, kept)],
        index[kept],
        thresholds,
        np.minimum(sizes, np.sum(group != out) - 1),
        draws,
        seed,
      )
      for out in range(_GROUPS)
      for kept in [np.flatnonzero(group[index] != out)]
    ]
  )
  variance = (_GROUPS - 1) * without.var(axis=0)
  low, high = _intervals(rates, variance, known.size, level)
  return FpirBySize(rates, low, high, known.size, None)


def _rates(
  similarity: np.ndarray,
  people: np.ndarray,
  thresholds: np.ndarray,
  sizes: np.ndarray,
  draws: int,
  seed: int,
) -> np.ndarray:
  """FPIR [S, T] over all images and draws."""
  rng = np.random.default_rng(seed)
  _, people = np.unique(people, return_inverse=True)
  count = people.max() + 1
  hits = np.zeros((sizes.size, thresholds.size))
  for _ in range(draws):
    # One image of each person, the people in a random order.
    shuffled = rng.permutation(people.size)
    _, first = np.unique(people[shuffled], return_index=True)
    chosen = rng.permutation(shuffled[first])
    place = np.empty(count, np.int64)
    place[people[chosen]] = np.arange(count)
    scores = similarity[:, chosen]
    rows = np.arange(people.size)
    scores[rows, place[people]] = -np.inf
    best = np.maximum.accumulate(scores, axis=1)
    # Where the own person is among the first n, one more makes up for them.
    last = sizes[:, None] - (place[people][None] >= sizes[:, None])
    highest = np.sort(best[rows[None], last], axis=1)
    for row, values in enumerate(highest):
      hits[row] += people.size - np.searchsorted(values, thresholds)
  return hits / (draws * people.size)


def _intervals(
  rates: np.ndarray, variance: np.ndarray, people: int, level: float
) -> tuple[np.ndarray, np.ndarray]:
  low, high = np.zeros_like(rates), np.ones_like(rates)
  bound = intervals.rule_of_three(people, level=level)
  for place in np.ndindex(*rates.shape):
    rate = float(rates[place])
    if 0 < rate < 1:
      least = rate * (1 - rate) / people
      low[place], high[place] = intervals.rate_interval(
        rate, max(float(variance[place]), least), _GROUPS - 1, level=level
      )
    else:
      low[place] = 0.0 if rate == 0 else 1 - bound
      high[place] = bound if rate == 0 else 1.0
  return low, high
