"""Evaluation protocols: one report of numbers from one similarity matrix.

All unordered pairs of the test images are compared. The same functions measure
the network and the baselines (raw pixels, eigenfaces), so a difference between
two reports is a difference between the scores alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import triplets
from facesiam_jax.metrics import calibration, identification, intervals
from facesiam_jax.metrics import tally as tally_lib

TAR_TARGETS = {"tar_at_far_0.01": 0.01, "tar_at_far_0.1": 0.1}
ONE_SHOT_WAYS = 10

# A matrix product may round the two halves differently, relative to its scale.
_SYMMETRY = 1e-4

_NEEDS_THRESHOLD = ("accuracy", "balanced_accuracy", "fmr", "fnmr")


class Pairs(NamedTuple):
  """All unordered pairs of N images, P = N (N - 1) / 2.

  Attributes:
    i: row of the first image, int32 [P].
    j: row of the second image, int32 [P], j > i.
    same: 1 = same person, int32 [P].
  """

  i: np.ndarray
  j: np.ndarray
  same: np.ndarray


class SamplePair(NamedTuple):
  """Two images to look at.

  Attributes:
    kind: "true accept", "false accept" or "false reject".
    i: row of the first image.
    j: row of the second image.
    score: their similarity.
  """

  kind: str
  i: int
  j: int
  score: float


class Measured(NamedTuple):
  """What the numbers of a report are counted from."""

  counts: tally_lib.Tally
  ranks: identification.RankCounts
  triplets: triplets.TripletCounts


class Spread(NamedTuple):
  """How one metric varies over reports (folds, seeds)."""

  mean: float
  sd: float | None
  min: float
  max: float


def all_pairs(identity_ids: ArrayLike) -> Pairs:
  """Lists all unordered pairs of images; no image meets itself.

  Args:
    identity_ids: person of each image, int [N].

  Returns:
    The Pairs, in the order (0, 1), (0, 2), ..., (N - 2, N - 1).

  Raises:
    ValueError: if `identity_ids` does not have rank 1.

  Degenerate input: fewer than two images give no pair.

  >>> all_pairs([7, 7, 9]).same.tolist()
  [1, 0, 0]
  """
  ids = np.asarray(identity_ids)
  if ids.ndim != 1:
    raise ValueError(f"identity_ids must have rank 1, got shape {ids.shape}")
  i, j = np.triu_indices(ids.size, k=1)
  same = (ids[i] == ids[j]).astype(np.int32)
  return Pairs(i.astype(np.int32), j.astype(np.int32), same)


def verification_report(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  threshold: float | None,
  *,
  seed: int = 0,
  draws: int = 200,
  ways: int = ONE_SHOT_WAYS,
  resamples: int = 1000,
  level: float = 0.95,
) -> dict[str, Any]:
  """Measures one similarity matrix by every metric, with counts and intervals.

  Args:
    similarity: score of each pair of images, float [N, N], bigger is closer:
      the logits of "same person" for a network. Symmetric up to rounding (pairs
      are read above the diagonal); the diagonal is not used.
    identity_ids: person of each image, int [N].
    threshold: decision threshold in the unit of `similarity`; None leaves the
      metrics that need one null.
    seed: of the one-shot draws and of the bootstrap.
    draws: number of one-shot draws of references.
    ways: people in a one-shot draw; all people where there are fewer.
    resamples: number of bootstrap resamples of people.
    level: coverage of the intervals, 0..1.

  Returns:
    A dict that JSON can hold, with its keys sorted: eer, eer_raw, auc,
    threshold_logit, accuracy, balanced_accuracy, fmr, fnmr, tar_at_far_0.01,
    tar_at_far_0.1, one_shot_accuracy, triplet_accuracy, num_people, num_images,
    num_genuine, num_impostor; `counts`, the numerator and denominator or the
    pairs behind each metric; `interval`, metric -> [low, high] with `level`, or
    null below 30 people, and then `interval_reason` says why;
    `interval_caution` says where its cover is not near its level.

  Raises:
    ValueError: naming the argument, for a wrong shape, NaN, infinity, fewer
      than two people, or no person with two images.

  Degenerate input: where no error was seen, the far end of the interval of
  FMR, FNMR and triplet accuracy is the `rule_of_three` on pairs of people, or
  on people.

  >>> similarity = np.array([[0, 9, 1, 2], [9, 0, 3, 1], [1, 3, 0, 8],
  ...                        [2, 1, 8, 0]])
  >>> report = verification_report(similarity, [5, 5, 7, 7], 5.0)
  >>> report["eer"], report["accuracy"], report["num_genuine"]
  (0.0, 1.0, 2)
  """
  similarity, ids = np.asarray(similarity), np.asarray(identity_ids)
  pairs = all_pairs(ids)
  scores, counts = _scores(similarity, pairs, ids.size)
  num_people = int(np.unique(ids).size)
  ranks = identification.rank_counts(
    similarity, ids, seed=seed, draws=draws, ways=min(ways, num_people)
  )
  bootstrap = calibration.person_bootstrap(
    lambda resample: tally_lib.summary_of(resample, threshold, TAR_TARGETS),
    scores,
    ids[pairs.i],
    ids[pairs.j],
    resamples=resamples,
    level=level,
    seed=seed,
    cuts=[] if threshold is None else [threshold],
  )
  return report_of(
    Measured(counts, ranks, triplets.count_triplets(similarity, ids)),
    bootstrap,
    ids,
    threshold,
    resamples=resamples,
    level=level,
    seed=seed,
  )


def report_of(
  measured: Measured,
  bootstrap: calibration.Bootstrap,
  ids: np.ndarray,
  threshold: float | None,
  *,
  resamples: int,
  level: float,
  seed: int,
) -> dict[str, Any]:
  """Puts a report together; see `verification_report`.

  Args:
    measured: what was counted.
    bootstrap: intervals of the tally's metrics.
    ids: person of each image, int [N].
    threshold: decision threshold, or None.
    resamples: of the interval of the triplet accuracy.
    level: of the intervals.
    seed: of that interval.
  """
  counts, ranks, found = measured
  report: dict[str, Any] = dict.fromkeys(_NEEDS_THRESHOLD)
  report |= tally_lib.summary_of(counts, threshold, TAR_TARGETS)
  report |= {
    "one_shot_accuracy": int(ranks.counts[0]) / ranks.num_probes,
    "triplet_accuracy": found.accuracy,
    "threshold_logit": None if threshold is None else float(threshold),
    "num_people": int(np.unique(ids).size),
    "num_images": int(ids.size),
    "num_genuine": counts.num_genuine,
    "num_impostor": counts.num_impostor,
  }
  report["counts"] = _counts(counts, report, ranks)
  report["counts"]["triplet_accuracy"] = {
    "count": int(found.right.sum(dtype=np.float64)),
    "of": int(found.all.sum(dtype=np.float64)),
  }
  report["interval"] = _interval(bootstrap, report, level)
  report["interval_reason"] = bootstrap.reason
  report["interval_caution"] = bootstrap.caution
  if report["interval"]:
    interval = triplets.triplet_interval(
      found, resamples=resamples, level=level, seed=seed
    )
    report["interval"]["triplet_accuracy"] = interval
  return dict(sorted(report.items()))


def _scores(
  similarity: np.ndarray, pairs: Pairs, size: int
) -> tuple[np.ndarray, tally_lib.Tally]:
  """Returns the scores of the pairs and their counts; checks the matrix."""
  if similarity.shape != (size, size):
    raise ValueError(
      f"similarity must have shape [{size}, {size}], got {similarity.shape}"
    )
  scores = similarity[pairs.i, pairs.j]
  counts = tally_lib.tally(scores, pairs.same)
  lopsided = np.abs(scores - similarity[pairs.j, pairs.i]).max()
  if not lopsided <= _SYMMETRY * np.abs(scores).max():
    raise ValueError("similarity must be symmetric")
  return scores, counts


def _counts(
  counts: tally_lib.Tally,
  report: Mapping[str, Any],
  ranks: identification.RankCounts,
) -> dict[str, dict[str, int]]:
  """What each metric was measured on, metric by metric."""
  n_g, n_i = counts.num_genuine, counts.num_impostor
  both = {"genuine": n_g, "impostor": n_i}
  table: dict[str, dict[str, int]] = {
    "eer": both,
    "eer_raw": both,
    "auc": both,
    "one_shot_accuracy": {
      "count": int(ranks.counts[0]),
      "of": ranks.num_probes,
      "draws": ranks.draws,
      "ways": ranks.ways,
    },
  }
  for name in TAR_TARGETS:
    table[name] = {
      "count": round(report[name] * n_g),
      "of": n_g,
      "impostor": n_i,
    }
  if report["fmr"] is not None:
    wrong = round(report["fmr"] * n_i), round(report["fnmr"] * n_g)
    right = n_i + n_g - sum(wrong)
    table["accuracy"] = {"count": right, "of": n_g + n_i}
    table["balanced_accuracy"] = both
    table["fmr"] = {"count": wrong[0], "of": n_i}
    table["fnmr"] = {"count": wrong[1], "of": n_g}
  return table


def _interval(
  bootstrap: calibration.Bootstrap, report: Mapping[str, Any], level: float
) -> dict[str, Any] | None:
  """The bootstrap's intervals; the rule of three where no error was seen."""
  if bootstrap.intervals is None:
    return None
  people = report["num_people"]
  units = {"fmr": people * (people - 1) // 2, "fnmr": people}
  interval: dict[str, Any] = {"level": level}
  for name, ends in bootstrap.intervals.items():
    if name in units and report[name] == 0:
      ends = (0.0, intervals.rule_of_three(units[name], level=level))
    interval[name] = list(ends)
  return interval


def summarise(
  reports: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, float | None]]:
  """Summarises several reports (folds x seeds) metric by metric.

  The spread over folds and seeds is not a confidence interval: seeds of a fold
  share its test people, and folds share training people.

  Args:
    reports: results of `verification_report`, at least one.

  Returns:
    metric -> {"mean", "sd", "min", "max"}, for each metric that is a number in
    every report (counts of people, images and pairs left out); sd has ddof = 1.

  Raises:
    ValueError: if there is no report, or a metric is null in some of them only.

  Degenerate input: one report gives sd None.

  >>> summarise([{"eer": 0.1}, {"eer": 0.3}])["eer"]["mean"]
  0.2
  """
  if not reports:
    raise ValueError("reports must hold at least one report")
  summary = {}
  for name in sorted(set().union(*reports)):
    values = [report.get(name) for report in reports]
    numbers = [v for v in values if isinstance(v, int | float)]
    if not numbers or name.startswith("num_"):
      continue
    if len(numbers) < len(values):
      raise ValueError(f"reports: {name} is null in some of them")
    sd = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    spread = Spread(float(np.mean(numbers)), sd, min(numbers), max(numbers))
    summary[name] = spread._asdict()
  return summary


def sample_pairs(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  threshold: float,
  *,
  per_kind: int = 5,
  seed: int = 0,
) -> list[SamplePair]:
  """Chooses pairs worth looking at.

  True accepts are drawn at random. The errors are the worst ones: the false
  accepts with the highest scores and the false rejects with the lowest. Each
  two people (or person) are shown at most once, so that one look-alike does not
  fill the picture.

  Args:
    similarity: score of each pair of images, float [N, N], bigger is closer.
    identity_ids: person of each image, int [N].
    threshold: decision threshold in the unit of `similarity`.
    per_kind: most pairs of each kind.
    seed: of the random choice.

  Returns:
    The SamplePairs: true accepts, then false accepts, then false rejects; a
    kind that does not occur is absent.

  Raises:
    ValueError: if the shapes do not agree.

  Degenerate input: without any pair the list is empty.

  >>> sample_pairs(np.zeros((2, 2)), [5, 7], -1.0)
  [SamplePair(kind='false accept', i=0, j=1, score=0.0)]
  """
  similarity = np.asarray(similarity)
  pairs = all_pairs(identity_ids)
  num = np.asarray(identity_ids).size
  if similarity.shape != (num, num):
    raise ValueError(
      f"similarity must have shape [{num}, {num}], got {similarity.shape}"
    )
  scores = similarity[pairs.i, pairs.j]
  same, accepted = pairs.same == 1, scores >= threshold
  mixed = np.random.default_rng(seed).permutation(scores.size)
  rising = np.argsort(scores, kind="stable")
  falling = rising[::-1]
  orders = {
    "true accept": mixed[(same & accepted)[mixed]],
    "false accept": falling[(~same & accepted)[falling]],
    "false reject": rising[(same & ~accepted)[rising]],
  }
  ids = np.asarray(identity_ids)
  samples = []
  for kind, order in orders.items():
    seen: set[frozenset[int]] = set()
    for n in order:
      i, j = int(pairs.i[n]), int(pairs.j[n])
      people = frozenset((int(ids[i]), int(ids[j])))
      if people not in seen and len(seen) < per_kind:
        seen.add(people)
        samples.append(SamplePair(kind, i, j, float(scores[n])))
  return samples
