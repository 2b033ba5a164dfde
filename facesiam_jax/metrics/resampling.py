"""Resamples of people, and the tallies that several scores get in each.

People are drawn with replacement, not pairs: pairs share people. One draw gives
every pair its number of copies, whatever scored it, so that scores of the same
pairs are compared on the same people each time.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from facesiam_jax.metrics.tally import Tally


class Resample(NamedTuple):
  """One draw of people.

  Attributes:
    copies: how many times each person was drawn, int64 [K].
    tallies: of each score's pairs, a pair with its number of copies.
  """

  copies: np.ndarray
  tallies: tuple[Tally, ...]


class _Groups(NamedTuple):
  """Scores that are counted together, from high to low.

  Attributes:
    values: one score of each group, [T].
    genuine: group of each genuine pair, int64 [G].
    impostor: group of each impostor pair, int64 [I].
  """

  values: np.ndarray
  genuine: np.ndarray
  impostor: np.ndarray


def resamples_of(
  score_sets: Sequence[np.ndarray],
  labels: np.ndarray,
  ends: np.ndarray,
  num_people: int,
  *,
  resamples: int,
  seed: int,
  cuts: Sequence[Sequence[float] | None],
) -> Iterator[Resample]:
  """Yields each resample that has both kinds of pair.

  A person drawn m times counts m times in their own genuine pairs, and m * n
  times in impostor pairs with someone drawn n times; pairs of a person with
  their own copy are dropped.

  Args:
    score_sets: similarities of the same pairs by several systems, [P] each.
    labels: whether a pair is of one person, bool [P].
    ends: the two people of each pair, 0..K-1, int [2, P].
    num_people: K.
    resamples: number of draws.
    seed: of the draws; the same seed draws the same people.
    cuts: for each system the thresholds that are applied to its tallies, or
      None; see `calibration.person_bootstrap`.

  Yields:
    The Resample.

  Example:
    >>> drawn = resamples_of(
    ...   [np.array([0.9, 0.1, 0.2])], np.array([True, False, False]),
    ...   np.array([[0, 0, 0], [0, 1, 1]]), 2, resamples=50, seed=0,
    ...   cuts=[None])
    >>> {int(r.copies @ [1, 1]) for r in drawn}
    {2}
  """
  rng = np.random.default_rng(seed)
  tables = [
    _groups(scores, labels, cut)
    for scores, cut in zip(score_sets, cuts, strict=True)
  ]
  own, (first, second) = ends[0, labels], ends[:, ~labels]
  for _ in range(resamples):
    drawn = rng.integers(num_people, size=num_people)
    copies = np.bincount(drawn, minlength=num_people)
    # As floats, which hold whole numbers exactly and spare `bincount` a copy.
    times = copies.astype(np.float64)
    genuine, impostor = times[own], times[first] * times[second]
    if genuine.any() and impostor.any():
      yield Resample(
        copies, tuple(_counted(table, genuine, impostor) for table in tables)
      )


def _counted(
  table: _Groups, genuine: np.ndarray, impostor: np.ndarray
) -> Tally:
  """Returns the tally of pairs with these numbers of copies."""
  size = table.values.size
  counts = [
    np.bincount(groups, copies, size).astype(np.int64)
    for groups, copies in (
      (table.genuine, genuine),
      (table.impostor, impostor),
    )
  ]
  seen = (counts[0] + counts[1]) > 0
  return Tally(table.values[seen], counts[0][seen], counts[1][seen])


def _groups(
  scores: np.ndarray, labels: np.ndarray, cuts: Sequence[float] | None
) -> _Groups:
  """Sorts once; a resample only changes the counts."""
  order = np.argsort(-scores, kind="stable")
  scores, sorted_labels = scores[order], labels[order]
  starts = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
  if cuts is not None:
    starts = _joined(starts, scores, sorted_labels, cuts)
  sizes = np.diff(starts, append=scores.size)
  groups = np.empty(scores.size, np.int64)
  groups[order] = np.repeat(np.arange(starts.size), sizes)
  return _Groups(scores[starts], groups[labels], groups[~labels])


def _joined(
  starts: np.ndarray,
  scores: np.ndarray,
  labels: np.ndarray,
  cuts: Sequence[float],
) -> np.ndarray:
  """Starts of groups of scores; runs of impostors between cuts are one."""
  genuine = np.logical_or.reduceat(labels, starts)
  values = scores[starts]
  # The first of a run: a genuine score here or before, or a cut between.
  first = np.append(True, genuine[1:] | genuine[:-1])
  for cut in cuts:
    first[1:] |= (values[:-1] >= cut) & (values[1:] < cut)
  return starts[first]
