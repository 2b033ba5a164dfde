"""Identification in a given gallery, with people who are not in it.

A probe is mated if its person is enrolled. A person's score is that of their
best template. A mated search succeeds if the right person is among the best
`rank` people and scores at or above the threshold; a search without a mate goes
wrong if anybody does, so it counts by its maximum over the gallery:
  FNIR(t) = #{mated searches that do not succeed at t} / #mated
  FPIR(t) = #{non-mated searches whose highest score is >= t} / #non-mated
Ties count against the system: another person with the same score is placed
first.

References: Grother, Ngan and Hanaoka, NIST Face recognition technology
evaluation part 2: identification; ISO/IEC 19795-1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks
from facesiam_jax.metrics import tally as tally_lib


class OpenSet(NamedTuple):
  """Errors of open-set identification over thresholds, T distinct scores.

  Attributes:
    thresholds: +inf, then the distinct scores from high to low, [T + 1].
    fpir: false positive identification rate, non-decreasing, float64 [T + 1].
    fnir: false negative identification rate, non-increasing, float64 [T + 1].
  """

  thresholds: np.ndarray
  fpir: np.ndarray
  fnir: np.ndarray


class OpenSetRates(NamedTuple):
  """FPIR and FNIR at one threshold, each in 0..1."""

  fpir: float
  fnir: float


class FnirAtFpir(NamedTuple):
  """FNIR in 0..1 and the threshold that reaches it."""

  fnir: float
  threshold: float


class _Searches(NamedTuple):
  """Outcome of the searches; a rank of 0 stands for a person not enrolled."""

  ranks: np.ndarray
  own: np.ndarray
  highest: np.ndarray
  num_people: int


def rank_k(
  similarity: ArrayLike,
  probe_ids: ArrayLike,
  gallery_ids: ArrayLike,
  *,
  k: int,
) -> float:
  """Computes the share of probes whose person is among the k best people.

  Batch meaning: all probes together make one number.

  Args:
    similarity: probe (row) against template (column), float [Q, G], finite.
    probe_ids: person of each probe, integer or string [Q]; all enrolled.
    gallery_ids: person of each template, integer or string [G].
    k: 1..number of people in the gallery.

  Returns:
    The share in 0..1; chance is k / number of people.

  Raises:
    ValueError: naming the argument, for a wrong shape or type, NaN, infinity,
      `k` out of range, or a probe whose person is not enrolled.

  Degenerate input: a constant similarity gives 0 for every k below the number
  of people.
  Example:
    >>> rank_k([[0.9, 0.2, 0.8]], [7], [5, 7, 7], k=1)
    0.0

  References: ISO/IEC 19795-1 (identification rank).
  """
  found = _search(similarity, probe_ids, gallery_ids)
  _check_rank("k", k, found.num_people)
  if not found.ranks.all():
    raise ValueError(
      "probe_ids must all be enrolled, but "
      f"{int((found.ranks == 0).sum())} of {found.ranks.size} are not in "
      "gallery_ids"
    )
  return float(np.mean(found.ranks <= k))


def open_set_curve(
  similarity: ArrayLike,
  probe_ids: ArrayLike,
  gallery_ids: ArrayLike,
  *,
  rank: int = 1,
) -> OpenSet:
  """Computes FPIR and FNIR at every score that matters.

  Batch meaning: all probes together make one curve.

  Args:
    similarity: probe (row) against template (column), float [Q, G], finite.
    probe_ids: person of each probe, integer or string [Q], some of them
      enrolled and some not.
    gallery_ids: person of each template, integer or string [G].
    rank: the right person must be among so many best people, 1..number of
      people in the gallery.

  Returns:
    The OpenSet. FNIR does not fall to 0 where a mated search has another
    person before the right one.

  Raises:
    ValueError: naming the argument, for a wrong shape or type, NaN, infinity,
      `rank` out of range, or if no probe, or every probe, is enrolled.

  Degenerate input: with a single template every mated search has rank 1.
  Example:
    >>> curve = open_set_curve([[0.9, 0.1], [0.3, 0.5]], [5, 8], [5, 7])
    >>> curve.fpir.tolist(), curve.fnir.tolist()
    ([0.0, 0.0, 1.0], [1.0, 0.0, 0.0])

  References: Grother, Ngan and Hanaoka, NIST Face recognition technology
  evaluation part 2.
  """
  hits, highest, num_mated = _outcomes(similarity, probe_ids, gallery_ids, rank)
  scores = np.unique(np.concatenate([hits, highest]))[::-1]
  thresholds = np.concatenate([[np.inf], scores])
  return OpenSet(thresholds, *_rates(hits, highest, num_mated, thresholds))


def open_set_rates_at(
  similarity: ArrayLike,
  probe_ids: ArrayLike,
  gallery_ids: ArrayLike,
  threshold: float,
  *,
  rank: int = 1,
) -> OpenSetRates:
  """Computes FPIR and FNIR at one threshold.

  Batch meaning: all probes together make one pair of numbers.

  Args:
    similarity: probe (row) against template (column), float [Q, G], finite.
    probe_ids: person of each probe, integer or string [Q].
    gallery_ids: person of each template, integer or string [G].
    threshold: in the unit of the scores; may be infinite.
    rank: the right person must be among so many best people.

  Returns:
    OpenSetRates(fpir, fnir), each in 0..1.

  Raises:
    ValueError: as `open_set_curve`, or if the threshold is NaN.

  Degenerate input: a score equal to the threshold is a match.
  Example:
    >>> open_set_rates_at([[0.9, 0.1], [0.3, 0.5]], [5, 8], [5, 7], 0.5)
    OpenSetRates(fpir=1.0, fnir=0.0)

  References: Grother, Ngan and Hanaoka, NIST Face recognition technology
  evaluation part 2.
  """
  at = np.array([checks.check_threshold(threshold)])
  outcomes = _outcomes(similarity, probe_ids, gallery_ids, rank)
  fpir, fnir = _rates(*outcomes, at)
  return OpenSetRates(float(fpir[0]), float(fnir[0]))


def fnir_at_fpir(
  similarity: ArrayLike,
  probe_ids: ArrayLike,
  gallery_ids: ArrayLike,
  target: float,
  *,
  rank: int = 1,
) -> FnirAtFpir:
  """Computes FNIR at a false positive identification rate of at most `target`.

  The threshold is the smallest observed score with FPIR(t) <= target, so the
  target is never exceeded and nothing is interpolated.
  Batch meaning: all probes together make one number.

  Args:
    similarity: probe (row) against template (column), float [Q, G], finite.
    probe_ids: person of each probe, integer or string [Q].
    gallery_ids: person of each template, integer or string [G].
    target: largest FPIR allowed, 0..1.
    rank: the right person must be among so many best people.

  Returns:
    FnirAtFpir(fnir, threshold). With fewer than 1 / target searches without a
    mate the target stands for "no false positive at all".

  Raises:
    ValueError: as `open_set_curve`, or if the target lies outside 0..1.

  Degenerate input: if even the highest score would exceed the target, FNIR is 1
  and the threshold the next number above that score.
  Example:
    >>> fnir_at_fpir([[0.9, 0.1], [0.3, 0.5]], [5, 8], [5, 7], 0.0)
    FnirAtFpir(fnir=0.0, threshold=0.9)

  References: Grother, Ngan and Hanaoka, NIST Face recognition technology
  evaluation part 2.
  """
  checks.check_share("target", target)
  hits, highest, num_mated = _outcomes(similarity, probe_ids, gallery_ids, rank)
  scores = np.unique(np.concatenate([hits, highest]))
  thresholds = np.append(scores, tally_lib.just_above(scores[-1]))
  fpir, fnir = _rates(hits, highest, num_mated, thresholds)
  first = int(np.argmax(fpir <= target))
  return FnirAtFpir(float(fnir[first]), float(thresholds[first]))


def _search(
  similarity: ArrayLike, probe_ids: ArrayLike, gallery_ids: ArrayLike
) -> _Searches:
  """Rank and score of each probe's person, and its highest score of anybody."""
  similarity = checks.check_floats("similarity", similarity, 2)
  probes = checks.check_ids("probe_ids", probe_ids)
  templates = checks.check_ids("gallery_ids", gallery_ids)
  if similarity.shape != (probes.size, templates.size):
    raise ValueError(
      f"similarity must have shape [{probes.size}, {templates.size}] (probe_ids"
      f" by gallery_ids), got {similarity.shape}"
    )
  people, index = np.unique(templates, return_inverse=True)
  order = np.argsort(index, kind="stable")
  starts = np.searchsorted(index[order], np.arange(people.size))
  best = np.maximum.reduceat(similarity[:, order], starts, axis=1)
  place = np.minimum(np.searchsorted(people, probes), people.size - 1)
  own = best[np.arange(probes.size), place]
  # The own person counts themselves here, which makes the best rank 1.
  ranks = (best >= own[:, None]).sum(axis=1)
  ranks[people[place] != probes] = 0
  return _Searches(ranks, own, best.max(axis=1), people.size)


def _check_rank(name: str, rank: int, num_people: int) -> None:
  if not 1 <= rank <= num_people:
    raise ValueError(
      f"{name} must lie in 1..{num_people}, the people of the gallery, got "
      f"{rank}"
    )


def _outcomes(
  similarity: ArrayLike,
  probe_ids: ArrayLike,
  gallery_ids: ArrayLike,
  rank: int,
) -> tuple[np.ndarray, np.ndarray, int]:
  """Scores of mated searches right at `rank`, of the others, number mated."""
  found = _search(similarity, probe_ids, gallery_ids)
  _check_rank("rank", rank, found.num_people)
  mated = found.ranks > 0
  if mated.all() or not mated.any():
    raise ValueError(
      "probe_ids must hold people who are enrolled and people who are not, got "
      f"{int(mated.sum())} enrolled of {mated.size}"
    )
  hits = found.own[mated & (found.ranks <= rank)]
  return np.sort(hits), np.sort(found.highest[~mated]), int(mated.sum())


def _rates(
  hits: np.ndarray,
  highest: np.ndarray,
  num_mated: int,
  thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """FPIR and FNIR at each threshold; both score arrays ascending."""
  missed = np.searchsorted(hits, thresholds) + (num_mated - hits.size)
  silent = np.searchsorted(highest, thresholds)
  return (highest.size - silent) / highest.size, missed / num_mated
