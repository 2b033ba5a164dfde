"""Accuracies with a chosen protocol: folds, triplets, and plain distances.

The accuracies of different protocols are different numbers: the share of
triplets with the right order says nothing about a threshold, and ten-fold
accuracy has as many impostor as genuine pairs. State which one you quote.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks
from facesiam_jax.metrics import tally as tally_lib


class KFold(NamedTuple):
  """Accuracy over K folds, each at a threshold from the other folds.

  Attributes:
    mean: mean of the accuracies of the folds, 0..1.
    standard_error: of the mean: sd(accuracies, ddof=1) / sqrt(K).
    accuracies: share of right decisions in each fold, float64 [K].
    thresholds: threshold used in each fold, float64 [K].
  """

  mean: float
  standard_error: float
  accuracies: np.ndarray
  thresholds: np.ndarray


class Distances(NamedTuple):
  """Distances of one kind of pair.

  Attributes:
    mean: of the distances.
    sd: standard deviation with ddof=0, the maximum-likelihood estimate.
    below: share of distances below each of the given values.
    num_pairs: number of pairs.
  """

  mean: float
  sd: float
  below: tuple[float, ...]
  num_pairs: int


class DistanceStatistics(NamedTuple):
  """`Distances` of the genuine and of the impostor pairs."""

  genuine: Distances
  impostor: Distances


def k_fold_accuracy(
  scores: ArrayLike,
  same: ArrayLike,
  folds: ArrayLike,
  *,
  people_a: ArrayLike | None = None,
  people_b: ArrayLike | None = None,
) -> KFold:
  """Computes the accuracy of each fold at the threshold best for the others.

  This is "View 2" of Labeled Faces in the Wild when there are ten folds of 300
  genuine and 300 impostor pairs. The threshold has the most right decisions on
  the other folds, lies half-way between two of their scores, and is the highest
  of several equally good ones.
  Batch meaning: all pairs together make one number.

  Args:
    scores: similarity of each pair, float [P], finite; bigger is closer.
    same: 1 = same person, 0 = not, [P].
    folds: fold of each pair, integer or string [P], at least two folds.
    people_a: person at one end of each pair, integer or string [P]. Give both
      ends to be sure that no person is in two folds, for then the threshold
      would be chosen on people it is tested on.
    people_b: person at the other end, [P].

  Returns:
    The KFold, folds in ascending order. Its standard error takes the folds for
    independent, which only folds without a common person are.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, fewer than two folds, folds whose others hold
      only one kind of pair, only one of `people_a` and `people_b`, or a person
      in two folds.

  Degenerate input: a fold may itself hold only one kind of pair.
  Example:
    >>> scores = [0.9, 0.2, 0.7, 0.4]
    >>> k_fold_accuracy(scores, [1, 0, 1, 0], [0, 0, 1, 1]).mean
    1.0

  References: Huang et al. 2007, Labeled faces in the wild (section on the
  estimated mean accuracy and its standard error).
  """
  scores, labels = checks.check_pairs(scores, same)
  fold = _check_folds(folds, scores.shape)
  _check_disjoint(people_a, people_b, fold)
  order = np.argsort(-scores, kind="stable")
  scores, labels, fold = scores[order], labels[order], fold[order]
  accuracies, thresholds = [], []
  for one in range(fold.max() + 1):
    mine = fold == one
    threshold = _best_threshold(scores[~mine], labels[~mine])
    right = (scores[mine] >= np.float64(threshold)) == labels[mine]
    accuracies.append(right.mean())
    thresholds.append(threshold)
  sd = float(np.std(accuracies, ddof=1))
  return KFold(
    float(np.mean(accuracies)),
    sd / len(accuracies) ** 0.5,
    np.array(accuracies),
    np.array(thresholds),
  )


def _check_folds(folds: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
  """Returns folds numbered from 0, int64 [P]."""
  names = checks.check_ids("folds", folds)
  if names.shape != shape:
    raise ValueError(
      f"folds must have the shape of scores {shape}, got {names.shape}"
    )
  known, fold = np.unique(names, return_inverse=True)
  if known.size < 2:
    raise ValueError("folds must name at least 2 folds, got 1")
  return fold


def _check_disjoint(
  people_a: ArrayLike | None, people_b: ArrayLike | None, fold: np.ndarray
) -> None:
  """Raises if a person is in two folds; without people nothing is checked."""
  if people_a is None and people_b is None:
    return
  if people_a is None or people_b is None:
    raise ValueError("people_a and people_b must be given together")
  known, ends = checks.check_ends(people_a, people_b, fold.shape)
  is_in = np.zeros((known.size, fold.max() + 1), bool)
  is_in[ends, fold] = True
  shared = is_in.sum(axis=1) > 1
  if shared.any():
    raise ValueError(
      f"folds must not share people, but {int(shared.sum())} of {known.size} "
      f"are in two folds or more, e.g. {known[shared][0]}"
    )


def _best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
  """Best threshold on pairs sorted by score, high to low."""
  if labels.all() or not labels.any():
    raise ValueError(
      "folds: the pairs outside of a fold must be of both kinds, genuine and "
      "impostor"
    )
  starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
  genuine = np.add.reduceat(labels, starts, dtype=np.int64)
  both = np.diff(starts, append=scores.size)
  return tally_lib.best_threshold_of(
    tally_lib.Tally(scores[starts], genuine, both - genuine)
  )


def triplet_accuracy(
  positive_distances: ArrayLike, negative_distances: ArrayLike
) -> float:
  """Computes the share of triplets whose positive is nearer than the negative.

    P(d(a, p) < d(a, n))
  It ranks; no threshold is involved, so it is not comparable with a
  verification accuracy.
  Batch meaning: all triplets together make one number.

  Args:
    positive_distances: d(a, p) of each triplet, float [T], finite.
    negative_distances: d(a, n) of each triplet, float [T], finite.

  Returns:
    The share in 0..1; 0.5 is chance.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      or no triplet.

  Degenerate input: equal distances count as wrong, so a collapsed embedding
  earns 0.
  Example:
    >>> triplet_accuracy([0.2, 0.5, 0.4], [0.6, 0.5, 0.9])
    0.6666666666666666

  References: Schultz and Joachims 2003, Learning a distance metric from
  relative comparisons.
  """
  positive = checks.check_floats("positive_distances", positive_distances, 1)
  negative = checks.check_floats("negative_distances", negative_distances, 1)
  if positive.shape != negative.shape:
    raise ValueError(
      "positive_distances and negative_distances must have one shape, got "
      f"{positive.shape} and {negative.shape}"
    )
  return float(np.mean(positive < negative))


def distance_statistics(
  distances: ArrayLike, same: ArrayLike, *, below: Sequence[float] = ()
) -> DistanceStatistics:
  """Computes mean, standard deviation and shares of distances by kind of pair.

  The moments are those that `gaussian_threshold` takes.
  Batch meaning: all pairs together make one set of numbers.

  Args:
    distances: distance of each pair, float [P], finite.
    same: 1 = same person, 0 = not, [P].
    below: values of which the share of smaller distances is wanted.

  Returns:
    The DistanceStatistics; its `below` are in the order of `below`.

  Raises:
    ValueError: naming the argument, for a wrong rank or length, NaN, infinity,
      labels other than 0 and 1, or only one kind of pair.

  Degenerate input: a single pair of a kind has standard deviation 0; a distance
  equal to a value of `below` is not below it.
  Example:
    >>> distance_statistics([1.0, 3.0, 5.0], [1, 1, 0], below=[3.0]).genuine
    Distances(mean=2.0, sd=1.0, below=(0.5,), num_pairs=2)
  """
  values, labels = checks.check_pairs(distances, same, "distances")
  limits = [float(value) for value in below]
  if np.isnan(limits).any():
    raise ValueError(f"below must hold numbers, got {limits}")
  return DistanceStatistics(
    _summary(values[labels], limits), _summary(values[~labels], limits)
  )


def _summary(distances: np.ndarray, limits: list[float]) -> Distances:
  distances = distances.astype(np.float64)
  shares = tuple(float(np.mean(distances < limit)) for limit in limits)
  return Distances(
    float(distances.mean()), float(distances.std()), shares, distances.size
  )
