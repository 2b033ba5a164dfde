"""Error rates by group of people, and measures of how far they differ.

Everybody is judged at one threshold: one for each group would hide what is
asked. Impostor pairs are counted within each group and across groups, for two
people of one group are the likelier to be confused. A measure of few errors is
itself uncertain; see `facesiam_jax.metrics.intervals`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks


class GroupRates(NamedTuple):
  """Error rates of G groups at one threshold.

  Attributes:
    groups: the groups, ascending [G].
    fmr: false match rate of impostor pairs of two groups, float64 [G, G],
      symmetric, within a group on the diagonal; NaN without such a pair.
    fmr_across: of impostor pairs with exactly one end in the group, [G].
    fnmr: false non-match rate of the genuine pairs, float64 [G]; NaN without.
    impostor: number of impostor pairs, int64 [G, G], symmetric.
    genuine: number of genuine pairs, int64 [G].
  """

  groups: np.ndarray
  fmr: np.ndarray
  fmr_across: np.ndarray
  fnmr: np.ndarray
  impostor: np.ndarray
  genuine: np.ndarray

  @property
  def fmr_within(self) -> np.ndarray:
    """False match rate of pairs within each group, float64 [G]."""
    return np.diagonal(self.fmr)


def group_error_rates(
  scores: ArrayLike,
  same: ArrayLike,
  groups_a: ArrayLike,
  groups_b: ArrayLike,
  threshold: float,
) -> GroupRates:
  """Computes FMR and FNMR by group at one threshold for all.

  Batch meaning: all pairs together make one table.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    groups_a: group of the person at one end, integer or string [P].
    groups_b: group of the person at the other end, [P].
    threshold: accept at or above; one for all groups.

  Returns:
    The GroupRates.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, only one kind of pair, a NaN threshold, or a
      genuine pair whose ends are in two groups.

  Degenerate input: a rate of no pairs is NaN, which the measures refuse: leave
  the group out, or say that it was not measured.
  Example:
    >>> rates = group_error_rates([0.9, 0.2, 0.6, 0.1], [1, 1, 0, 0],
    ...                           ["f", "m", "f", "f"], ["f", "m", "f", "m"],
    ...                           0.5)
    >>> rates.fnmr.tolist(), rates.fmr[0].tolist()
    ([0.0, 1.0], [1.0, 0.0])

  References: Grother, Ngan and Hanaoka 2019, NIST Face recognition vendor test
  part 3: demographic effects, NISTIR 8280.
  """
  scores, labels = checks.check_pairs(scores, same)
  groups, ends = checks.check_ends(groups_a, groups_b, scores.shape, "groups")
  torn = labels & (ends[0] != ends[1])
  if torn.any():
    raise ValueError(
      "groups_a and groups_b must agree for genuine pairs, but "
      f"{int(torn.sum())} of them have two groups"
    )
  accepted = scores >= checks.check_threshold(threshold)
  size = groups.size
  genuine = np.bincount(ends[0, labels], minlength=size)
  missed = np.bincount(ends[0, labels & ~accepted], minlength=size)
  impostor = _table(ends[:, ~labels], size)
  wrong = _table(ends[:, ~labels & accepted], size)
  others = ~np.eye(size, dtype=bool)
  return GroupRates(
    groups,
    _share(wrong, impostor),
    _share((wrong * others).sum(axis=1), (impostor * others).sum(axis=1)),
    _share(missed, genuine),
    impostor,
    genuine,
  )


def _table(ends: np.ndarray, size: int) -> np.ndarray:
  """Pairs by the groups of their two ends, symmetric, int64 [G, G]."""
  counts = np.bincount(ends[0] * size + ends[1], minlength=size * size)
  counts = counts.reshape(size, size)
  return counts + counts.T - np.diag(np.diagonal(counts))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def fairness_discrepancy_rate(
  fmr: ArrayLike, fnmr: ArrayLike, *, alpha: float = 0.5
) -> float:
  """Computes the fairness discrepancy rate (FDR) of groups at one threshold.

    1 - (alpha max |FMR_i - FMR_j| + (1 - alpha) max |FNMR_i - FNMR_j|)
  It is blind at low false match rates: groups at 1e-6 and 1e-4 differ by a
  factor of a hundred and yet give 1. Report a ratio beside it.
  Batch meaning: all groups together make one number.

  Args:
    fmr: false match rate of each group, float [G], 0..1, G >= 2.
    fnmr: false non-match rate of each group, float [G], 0..1.
    alpha: weight of the false match rate, 0..1.

  Returns:
    The rate in 0..1; 1 is equal treatment.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, numbers
      outside 0..1, or fewer than two groups.

  Degenerate input: equal rates give 1, however high.
  Example:
    >>> round(fairness_discrepancy_rate([0.1, 0.3], [0.2, 0.2]), 4)
    0.9

  References: de Freitas Pereira and Marcel 2021, Fairness in biometrics: a
  figure of merit to assess biometric verification systems.
  """
  false_match, false_non_match = _check_both(fmr, fnmr, alpha)
  gap = alpha * np.ptp(false_match) + (1 - alpha) * np.ptp(false_non_match)
  return float(1 - gap)


def max_ratio(rates: ArrayLike) -> float:
  """Computes the highest rate of a group over the lowest.

  Batch meaning: all groups together make one number.

  Args:
    rates: error rate of each group, float [G], 0..1, G >= 2.

  Returns:
    The ratio, >= 1; 1 is equal treatment.

  Raises:
    ValueError: naming `rates`, for a wrong rank, NaN, numbers outside 0..1, or
      fewer than two groups.

  Degenerate input: infinite if one group has no error and another has some: the
  lowest rate is then unknown, not 0. Groups without any error give 1.
  Example:
    >>> round(max_ratio([0.1, 0.2, 0.3]), 4)
    3.0

  References: Howard et al. 2022, Evaluating proposed fairness models for face
  recognition algorithms, arXiv 2203.05051 (there within the inequity rate).
  """
  values = _check_rates("rates", rates)
  if not values.any():
    return 1.0
  return float(values.max() / values.min()) if values.min() else float("inf")


def geometric_mean_ratio(rates: ArrayLike) -> float:
  """Computes the highest rate of a group over the geometric mean of all.

  Unlike `max_ratio` it does not hang on the one group with the fewest errors.
  Batch meaning: all groups together make one number.

  Args:
    rates: error rate of each group, float [G], 0..1, G >= 2.

  Returns:
    The ratio, >= 1; 1 is equal treatment.

  Raises:
    ValueError: as `max_ratio`.

  Degenerate input: as `max_ratio`.
  Example:
    >>> round(geometric_mean_ratio([0.1, 0.4]), 4)
    2.0

  References: NIST 2022, Face recognition vendor test part 8: summarizing
  demographic differentials (draft).
  """
  values = _check_rates("rates", rates)
  if not values.any():
    return 1.0
  if not values.all():
    return float("inf")
  # Rounding must not put equal rates below 1.
  return max(float(values.max() / np.exp(np.log(values).mean())), 1.0)


def gini(rates: ArrayLike) -> float:
  """Computes the Gini coefficient of the rates of groups, free of their number.

    n / (n - 1)  sum_ij |x_i - x_j| / (2 n^2 mean(x))
  Batch meaning: all groups together make one number.

  Args:
    rates: error rate of each group, float [G], 0..1, G >= 2.

  Returns:
    The coefficient in 0..1; 0 is equal treatment, 1 all errors in one group.

  Raises:
    ValueError: as `max_ratio`.

  Degenerate input: groups without any error give 0.
  Example:
    >>> gini([0.0, 0.0, 0.5])
    1.0

  References: Deltas 2003, The small-sample bias of the Gini coefficient.
  """
  values = _check_rates("rates", rates)
  if not values.any():
    return 0.0
  num = values.size
  gaps = np.abs(values[:, None] - values[None]).sum()
  return float(gaps / (2 * num * (num - 1) * values.mean()))


def garbe(fmr: ArrayLike, fnmr: ArrayLike, *, alpha: float = 0.5) -> float:
  """Computes the Gini aggregation rate for biometric equitability (GARBE).

    alpha Gini(FMR) + (1 - alpha) Gini(FNMR)
  Unlike the fairness discrepancy rate it sees differences between low rates.
  Batch meaning: all groups together make one number.

  Args:
    fmr: false match rate of each group, float [G], 0..1, G >= 2.
    fnmr: false non-match rate of each group, float [G], 0..1.
    alpha: weight of the false match rate, 0..1.

  Returns:
    The rate in 0..1; 0 is equal treatment.

  Raises:
    ValueError: as `fairness_discrepancy_rate`.

  Degenerate input: groups without any error give 0.
  Example:
    >>> garbe([1e-6, 0.0], [0.1, 0.1], alpha=0.5)
    0.5

  References: Howard et al. 2022, Evaluating proposed fairness models for face
  recognition algorithms, arXiv 2203.05051.
  """
  false_match, false_non_match = _check_both(fmr, fnmr, alpha)
  return alpha * gini(false_match) + (1 - alpha) * gini(false_non_match)


def _check_rates(name: str, rates: ArrayLike) -> np.ndarray:
  values = checks.check_floats(name, rates, 1).astype(np.float64)
  if values.min() < 0 or values.max() > 1:
    raise ValueError(
      f"{name} must lie in 0..1, got {values.min():g}..{values.max():g}"
    )
  if values.size < 2:
    raise ValueError(f"{name} must be of at least 2 groups, got 1")
  return values


def _check_both(
  fmr: ArrayLike, fnmr: ArrayLike, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
  first, second = _check_rates("fmr", fmr), _check_rates("fnmr", fnmr)
  if first.shape != second.shape:
    raise ValueError(
      f"fmr and fnmr must have one shape, got {first.shape} and {second.shape}"
    )
  checks.check_share("alpha", alpha)
  return first, second
