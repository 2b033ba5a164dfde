"""Thresholds from a Gaussian model, and false match rates the data can carry.

The thresholds at the equal error rate and at a false match rate as observed are
in `facesiam_jax.metrics.verification`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks, verification
from facesiam_jax.metrics import tally as tally_lib
from facesiam_jax.metrics.calibration import MIN_PEOPLE

MIN_ERRORS = 30
MIN_PERSON_PAIRS = 30


class GaussianFit(NamedTuple):
  """A normal distribution for each kind of pair, and where the two cross."""

  threshold: float
  genuine_mean: float
  genuine_sd: float
  impostor_mean: float
  impostor_sd: float


class SupportedThreshold(NamedTuple):
  """A threshold at a false match rate, and the errors it rests on.

  Attributes:
    threshold: in the unit of the scores; accept at or above it.
    fmr: false match rate observed there, at most the target.
    false_matches: number of impostor pairs at or above it.
    person_pairs: number of different pairs of people among them.
    people: number of people in impostor pairs, whatever their scores.
  """

  threshold: float
  fmr: float
  false_matches: int
  person_pairs: int
  people: int


def gaussian_threshold(
  *,
  genuine_mean: float,
  genuine_sd: float,
  impostor_mean: float,
  impostor_sd: float,
) -> float:
  """Finds where two normal distributions are equally likely.

  The maximum-likelihood decision changes there: the root between the means of
    ((x - m1) / s1)^2 + 2 ln s1 = ((x - m2) / s2)^2 + 2 ln s2
  It holds for distances and similarities alike.
  Batch meaning: takes moments, no pairs.

  Args:
    genuine_mean: mean score (or distance) of the same-person pairs.
    genuine_sd: their standard deviation, > 0.
    impostor_mean: mean of the pairs of two people.
    impostor_sd: their standard deviation, > 0.

  Returns:
    The threshold, strictly between the two means.

  Raises:
    ValueError: naming the argument, for NaN, infinity or a standard deviation
      that is not positive; or if no root lies between the means, which happens
      where they are close for so different standard deviations: one kind is
      then the likelier at both means, and no single threshold is right.

  Degenerate input: equal standard deviations give the midpoint.
  Example:
    >>> round(gaussian_threshold(genuine_mean=2.592, genuine_sd=0.979,
    ...                          impostor_mean=4.779, impostor_sd=1.726), 4)
    3.7789

  References: Duda, Hart and Stork 2001, Pattern classification, section 2.6.
  """
  moments = {
    "genuine_mean": genuine_mean,
    "genuine_sd": genuine_sd,
    "impostor_mean": impostor_mean,
    "impostor_sd": impostor_sd,
  }
  for name, value in moments.items():
    if not math.isfinite(value) or (name.endswith("sd") and value <= 0):
      wanted = "positive" if name.endswith("sd") else "finite"
      raise ValueError(f"{name} must be {wanted}, got {value}")
  # In units of the impostors' standard deviation, from the genuine mean, with
  # the impostors above: (r^2 - 1) u^2 + 2 d u = d^2 + 2 ln r.
  ratio = impostor_sd / genuine_sd
  gap = abs(impostor_mean - genuine_mean) / impostor_sd
  log_ratio = 2 * math.log(ratio)
  at_genuine, at_impostor = gap**2 + log_ratio, (gap * ratio) ** 2 - log_ratio
  if not (at_genuine > 0 and at_impostor > 0):
    raise ValueError(
      "the two distributions do not cross between their means "
      f"{genuine_mean:g} and {impostor_mean:g} (standard deviations "
      f"{genuine_sd:g} and {impostor_sd:g})"
    )
  # This form of the root needs no division by r^2 - 1, which may be 0.
  square = gap**2 + (ratio - 1) * (ratio + 1) * at_genuine
  root = math.sqrt(max(square, 0.0))
  share = at_genuine / (gap + root) / gap
  return genuine_mean + share * (impostor_mean - genuine_mean)


def fit_gaussian_threshold(scores: ArrayLike, same: ArrayLike) -> GaussianFit:
  """Fits a normal distribution to each kind of pair and finds their crossing.

  Batch meaning: all pairs together make one threshold.

  Args:
    scores: score or distance of each pair, float [P], finite.
    same: 1 = same person, 0 = not, [P].

  Returns:
    The GaussianFit, with maximum-likelihood moments (ddof=0).

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair; and as
      `gaussian_threshold`.

  Degenerate input: a kind of pair whose scores are all equal has no width and
  is refused.
  Example:
    >>> fit_gaussian_threshold([1.0, 3.0, 7.0, 9.0], [1, 1, 0, 0]).threshold
    5.0

  References: Duda, Hart and Stork 2001, Pattern classification, section 2.6.
  """
  return gaussian_fit_of(tally_lib.tally(scores, same))


def gaussian_fit_of(counts: tally_lib.Tally) -> GaussianFit:
  """Returns `fit_gaussian_threshold` of counted scores."""
  values = counts.values.astype(np.float64)
  moments = {}
  for name in ("genuine", "impostor"):
    weights = getattr(counts, name) / getattr(counts, name).sum()
    mean = float(weights @ values)
    moments[f"{name}_mean"] = mean
    moments[f"{name}_sd"] = math.sqrt(float(weights @ (values - mean) ** 2))
  return GaussianFit(gaussian_threshold(**moments), **moments)


def supported_threshold_at_fmr(
  scores: ArrayLike, people_a: ArrayLike, people_b: ArrayLike, target: float
) -> SupportedThreshold:
  """Returns the threshold at a false match rate, if the data can carry it.

  The threshold is that of `threshold_at_fmr`. It is refused unless at least 30
  errors are expected (target x impostor pairs: the "rule of 30"), those at the
  threshold come from at least 30 different pairs of people (else they may be
  one pair of look-alikes, photographed often), and the impostor pairs have at
  least 30 people.
  Batch meaning: all pairs together make one threshold.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    people_a: person at one end of each pair, integer or string [P].
    people_b: person at the other end, [P]; a pair is genuine if the same.
    target: largest false match rate allowed, 0..1.

  Returns:
    The SupportedThreshold.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      only one kind of pair or a target outside 0..1; or, for a target that the
      data cannot carry, saying what is too few and which target is the smallest
      that they could.

  Degenerate input: if all impostor pairs have one score, targets below 1 have
  no error to rest on and are refused.
  Example:
    >>> ids = np.arange(40)
    >>> a, b = (end.ravel() for end in np.meshgrid(ids, ids))
    >>> scores = 1000.0 * (a == b) - 40.0 * a - b
    >>> supported_threshold_at_fmr(scores, a, b, 0.025).false_matches
    39

  References: Doddington et al. 2000, The NIST speaker recognition evaluation
  (the rule of 30).
  """
  known, ends = _check_impostors(scores, people_a, people_b)
  labels = ends[0] == ends[1]
  scores, labels = checks.check_pairs(scores, labels)
  checks.check_share("target", target)
  threshold = verification.threshold_at_fmr(scores, labels, target)
  impostor, ends = scores[~labels], ends[:, ~labels]
  keys = ends.min(axis=0) * known.size + ends.max(axis=0)
  wrong = impostor >= np.float64(threshold)
  found = SupportedThreshold(
    threshold,
    float(wrong.mean()),
    int(wrong.sum()),
    int(np.unique(keys[wrong]).size),
    int(np.count_nonzero(np.bincount(ends.ravel()))),
  )
  _refuse_unsupported(found, impostor, keys, target)
  return found


def smallest_supported_fmr(
  scores: ArrayLike, people_a: ArrayLike, people_b: ArrayLike
) -> float | None:
  """Returns the least target that `supported_threshold_at_fmr` would take.

  Batch meaning: all pairs together make one number.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    people_a: person at one end of each pair, integer or string [P].
    people_b: person at the other end, [P]; a pair is genuine if the same.

  Returns:
    The false match rate, 0..1; None where the data can carry none.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN or
      infinity.

  Degenerate input: pairs of fewer than 30 people carry no target.
  Example:
    >>> ids = np.arange(40)
    >>> a, b = (end.ravel() for end in np.meshgrid(ids, ids))
    >>> scores = 1000.0 * (a == b) - 40.0 * a - b
    >>> round(smallest_supported_fmr(scores, a, b) * 1560, 9)
    30.0

  References: Doddington et al. 2000 (the rule of 30).
  """
  known, ends = _check_impostors(scores, people_a, people_b)
  of_two = ends[0] != ends[1]
  impostor, ends = np.asarray(scores)[of_two], ends[:, of_two]
  if np.count_nonzero(np.bincount(ends.ravel())) < MIN_PEOPLE:
    return None
  keys = ends.min(axis=0) * known.size + ends.max(axis=0)
  smallest = _smallest_target(impostor, keys)
  return smallest and max(smallest, MIN_ERRORS / impostor.size)


def _check_impostors(
  scores: ArrayLike, people_a: ArrayLike, people_b: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
  scores = checks.check_floats("scores", scores, 1)
  return checks.check_ends(people_a, people_b, scores.shape)


def _refuse_unsupported(
  found: SupportedThreshold,
  impostor: np.ndarray,
  keys: np.ndarray,
  target: float,
) -> None:
  """Raises unless the errors are enough; says what is too few."""
  few = []
  # As a division: 30 / n * n may fall just short of 30.
  if target < MIN_ERRORS / impostor.size:
    few.append(f"{target * impostor.size:.3g} expected errors")
  if found.person_pairs < MIN_PERSON_PAIRS:
    few.append(f"errors from {found.person_pairs} pairs of people")
  if found.people < MIN_PEOPLE:
    few.append(f"{found.people} people")
  if not few:
    return
  smallest = _smallest_target(impostor, keys)
  if found.people < MIN_PEOPLE or smallest is None:
    mend = "no target has enough in these pairs"
  else:
    mend = f"the smallest target with enough is {smallest:.6g}"
  raise ValueError(
    f"target {target:g} is not supported by {impostor.size} impostor pairs: "
    f"{', '.join(few)}; needed are {MIN_ERRORS} expected errors from "
    f"{MIN_PERSON_PAIRS} pairs of people, and {MIN_PEOPLE} people; {mend}"
  )


def _smallest_target(impostor: np.ndarray, keys: np.ndarray) -> float | None:
  """False match rate at the score at which the 30th pair of people appears."""
  order = np.argsort(-impostor, kind="stable")
  _, first = np.unique(keys[order], return_index=True)
  if first.size < MIN_PERSON_PAIRS:
    return None
  place = np.partition(first, MIN_PERSON_PAIRS - 1)[MIN_PERSON_PAIRS - 1]
  return int((impostor >= impostor[order[place]]).sum()) / impostor.size
