"""Protocols of listed pairs: LFW's two views, CFP, .bin sets, any pairs file.

Pure functions of scores. Pairs that could not be compared stay in every count:
one with a photo without a usable face is not accepted, one with a photo that is
missing is an error, whatever it shows.

References: Huang et al. 2007, Labeled Faces in the Wild; Sengupta et al. 2016,
Frontal to Profile Face Verification in the Wild.
"""

from typing import Any, NamedTuple

import numpy as np

from facesiam_jax.evaluation import protocols
from facesiam_jax.metrics import accuracy, calibration, checks
from facesiam_jax.metrics import tally as tally_lib

COMPARED, NO_FACE, MISSING = 0, 1, 2


class Compared(NamedTuple):
  """Scored pairs, P of them.

  Attributes:
    scores: similarity, float [P], bigger is closer; read where a pair was
      compared only.
    same: whether both images show one person, bool [P].
    fold: of each pair, int [P].
    outcome: COMPARED, NO_FACE or MISSING, int [P].
    people_a: person at one end, string or integer [P]; None where the protocol
      does not say who is who.
    people_b: person at the other end.
  """

  scores: np.ndarray
  same: np.ndarray
  fold: np.ndarray
  outcome: np.ndarray
  people_a: np.ndarray | None = None
  people_b: np.ndarray | None = None


def filled(pairs: Compared, threshold: float | None = None) -> np.ndarray:
  """Returns scores that count pairs without one as the module says.

  Below all others where they are refused, above all where they are accepted,
  and beyond the threshold: a genuine pair gets the lowest, an impostor pair the
  lowest without a face and the highest with a missing photo.

  Args:
    pairs: the pairs; at least one was compared.
    threshold: that is to be applied, or None.

  Returns:
    float64 [P].

  Raises:
    ValueError: if no pair was compared, or a score is NaN or infinite.

  Degenerate input: if all were compared, the scores.
  Example:
    >>> nan = np.nan
    >>> filled(Compared(np.array([3.0, nan, nan]), np.array([1, 1, 0], bool),
    ...                 np.zeros(3), np.array([0, 1, 2]))).tolist()
    [3.0, 2.0, 4.0]
  """
  seen = pairs.outcome == COMPARED
  known = checks.check_floats("scores", np.asarray(pairs.scores)[seen], 1)
  ends = [float(known.min()), float(known.max())]
  if threshold is not None and np.isfinite(threshold):
    ends.append(float(threshold))
  scores = np.full(seen.shape, min(ends) - 1.0)
  scores[(pairs.outcome == MISSING) & ~pairs.same] = max(ends) + 1.0
  scores[seen] = known
  return scores


def fold_accuracies(pairs: Compared) -> accuracy.KFold:
  """Computes each fold's accuracy at the threshold best for the other folds.

  Thresholds are of pairs that were compared; accuracies are of all. Of LFW's
  ten folds this is View 2.
  Batch meaning: all pairs together make one result.

  Args:
    pairs: the pairs, in two folds or more.

  Returns:
    The KFold. Its standard error takes the folds for independent.

  Raises:
    ValueError: as `metrics.k_fold_accuracy`, or if a fold has no compared pair.

  Degenerate input: a fold with one kind of pair only is allowed.
  Example:
    >>> pairs = Compared(np.array([0.9, 0.2, 0.7, 0.4, 0.0]),
    ...                  np.array([1, 0, 1, 0, 0], bool),
    ...                  np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 0, 2]))
    >>> fold_accuracies(pairs).accuracies.round(3).tolist()
    [1.0, 0.667]

  References: Huang et al. 2007, section on the estimated mean accuracy.
  """
  seen = pairs.outcome == COMPARED
  found = accuracy.k_fold_accuracy(
    pairs.scores[seen], pairs.same[seen], pairs.fold[seen]
  )
  names, all_in = np.unique(pairs.fold, return_counts=True)
  compared = np.array([np.sum(seen & (pairs.fold == one)) for one in names])
  if not compared.all():
    raise ValueError(
      f"folds must each hold a pair that was compared, fold "
      f"{names[np.argmin(compared)] + 1} has none"
    )
  refused = (pairs.outcome == NO_FACE) & ~pairs.same
  right = np.rint(found.accuracies * compared) + np.array(
    [np.sum(refused & (pairs.fold == one)) for one in names]
  )
  shares = right / all_in
  error = float(np.std(shares, ddof=1)) / len(shares) ** 0.5
  return accuracy.KFold(float(shares.mean()), error, shares, found.thresholds)


def report(
  pairs: Compared,
  *,
  threshold: float | None = None,
  level: float = 0.95,
  resamples: int = 1000,
  seed: int = 0,
) -> dict[str, Any]:
  """Measures pairs by every metric that they allow.

  Args:
    pairs: the pairs.
    threshold: a decision threshold chosen on other people, in the unit of the
      scores; None leaves the metrics that need one out.
    level: of the intervals, inside 0..1.
    resamples: number of bootstrap resamples of people.
    seed: of the bootstrap.

  Returns:
    A dict that JSON can hold: eer, eer_raw, auc, tar_at_far_0.01,
    tar_at_far_0.1 (null below 100 and 10 impostor pairs), with a threshold
    accuracy, balanced_accuracy, fmr and fnmr; with two folds or more `folds`:
    mean, standard_error, interval (Student's, folds taken for independent),
    accuracies, thresholds and `people_in_two_folds`; `interval` by bootstrap
    over people, or null and `interval_reason`; `interval_caution`; `counts`;
    `compared_only`, the same rates of the pairs that were compared, where some
    were not.

  Raises:
    ValueError: naming what is wrong: NaN, no pair of a kind, equal scores.

  Degenerate input: pairs that were not compared count as the module says.
  Example:
    >>> found = report(Compared(np.array([3.0, 1.0]), np.array([True, False]),
    ...                         np.zeros(2, int), np.zeros(2, int)))
    >>> found["auc"], found["tar_at_far_0.1"], found["interval_reason"]
    (1.0, None, 'the protocol does not say who is who')
  """
  pairs = _checked(pairs)
  scores = filled(pairs, threshold)
  tally = tally_lib.tally(scores, pairs.same)
  measure = lambda counts: tally_lib.summary_of(
    counts, threshold, protocols.TAR_TARGETS
  )
  result: dict[str, Any] = measure(tally)
  result["threshold"] = None if threshold is None else float(threshold)
  result["counts"] = _counts(pairs)
  result["interval"], result["interval_reason"] = None, _no_interval(pairs)
  result["interval_caution"] = None
  if result["interval_reason"] is None:
    found = calibration.person_bootstrap(
      measure,
      scores,
      np.asarray(pairs.people_a),
      np.asarray(pairs.people_b),
      resamples=resamples,
      level=level,
      seed=seed,
      cuts=[] if threshold is None else [threshold],
    )
    result["interval_reason"] = found.reason
    result["interval_caution"] = found.caution
    if found.intervals:
      result["interval"] = {"level": level} | {
        name: list(ends) for name, ends in found.intervals.items()
      }
  _drop_unsupported(result, tally.num_impostor)
  if np.unique(pairs.fold).size > 1:
    result["folds"] = _fold_report(pairs, level)
  seen = pairs.outcome == COMPARED
  if not seen.all():
    some = tally_lib.tally(scores[seen], pairs.same[seen])
    result["compared_only"] = measure(some)
  return dict(sorted(result.items()))


def view_1(
  development: Compared, test: Compared, **settings: Any
) -> dict[str, Any]:
  """Measures test pairs at the threshold best for development pairs.

  LFW's View 1: `pairsDevTrain.txt` chooses, `pairsDevTest.txt` is measured.

  Args:
    development: pairs of other people.
    test: the pairs to be measured.
    **settings: of `report`.

  Returns:
    As `report`; its threshold is that of the development pairs.

  Raises:
    ValueError: as `report`.

  Degenerate input: development pairs that were not compared are not used.
  Example:
    >>> pairs = Compared(np.array([3.0, 1.0]), np.array([True, False]),
    ...                  np.zeros(2, int), np.zeros(2, int))
    >>> found = view_1(pairs, pairs._replace(scores=np.array([1.5, 1.0])))
    >>> found["threshold"], found["accuracy"]
    (2.0, 0.5)

  References: Huang et al. 2007.
  """
  chosen = _checked(development)
  seen = chosen.outcome == COMPARED
  threshold = tally_lib.best_threshold_of(
    tally_lib.tally(chosen.scores[seen], chosen.same[seen])
  )
  return report(test, threshold=threshold, **settings)


def _checked(pairs: Compared) -> Compared:
  """Refuses what no figure can be made of, each by one sentence."""
  same = np.asarray(pairs.same, bool)
  seen = np.asarray(pairs.outcome) == COMPARED
  if not seen.any():
    raise ValueError(
      f"none of the {seen.size} pairs could be compared: their photos are "
      "missing or show no usable face"
    )
  scores = np.asarray(pairs.scores)
  checks.check_pairs(scores[seen], same[seen])
  if np.ptp(scores[seen]) == 0 and seen.sum() > 1:
    raise ValueError(
      f"scores must differ from each other, all {int(seen.sum())} are "
      f"{scores[seen][0]:g}: the network tells nobody from anybody"
    )
  return pairs._replace(same=same, scores=scores)


def _counts(pairs: Compared) -> dict[str, int]:
  same, outcome = pairs.same, pairs.outcome
  people = (
    None
    if pairs.people_a is None or pairs.people_b is None
    else int(np.unique(np.append(pairs.people_a, pairs.people_b)).size)
  )
  return {
    "pairs": int(same.size),
    "genuine": int(same.sum()),
    "impostor": int((~same).sum()),
    "compared": int((outcome == COMPARED).sum()),
    "without_face": int((outcome == NO_FACE).sum()),
    "missing": int((outcome == MISSING).sum()),
    **({} if people is None else {"people": people}),
  }


def _no_interval(pairs: Compared) -> str | None:
  """Why pairs allow no interval that respects shared people, or None."""
  if pairs.people_a is None or pairs.people_b is None:
    return "the protocol does not say who is who"
  if ((pairs.people_a == pairs.people_b) != pairs.same).any():
    return "the names of people disagree with what the pairs say"
  return None


def _drop_unsupported(result: dict[str, Any], impostors: int) -> None:
  """Sets rates to null whose target asks for less than one false accept."""
  reasons = {}
  for name, target in protocols.TAR_TARGETS.items():
    if impostors * target < 1:
      result[name] = None
      (result["interval"] or {}).pop(name, None)
      reasons[name] = (
        f"{target:g} of {impostors} impostor pairs is less than one"
      )
  result["refused"] = reasons


def _fold_report(pairs: Compared, level: float) -> dict[str, Any]:
  import scipy.stats  # A fifth of a second that other protocols do without.

  found = fold_accuracies(pairs)
  count = len(found.accuracies)
  half = float(scipy.stats.t.ppf((1 + level) / 2, count - 1))
  ends = found.mean + half * found.standard_error * np.array([-1.0, 1.0])
  return {
    "accuracy": found.mean,
    "standard_error": found.standard_error,
    "interval": np.clip(ends, 0.0, 1.0).tolist(),
    "level": level,
    "accuracies": found.accuracies.tolist(),
    "thresholds": found.thresholds.tolist(),
    "people_in_two_folds": _in_two_folds(pairs),
  }


def _in_two_folds(pairs: Compared) -> int | None:
  """How many people are in several folds; None where nobody is known."""
  if pairs.people_a is None or pairs.people_b is None:
    return None
  ends = np.append(pairs.people_a, pairs.people_b)
  _, person = np.unique(ends, return_inverse=True)
  both = np.unique(np.stack([person, np.tile(pairs.fold, 2)]), axis=1)
  return int((np.bincount(both[0]) > 1).sum())
