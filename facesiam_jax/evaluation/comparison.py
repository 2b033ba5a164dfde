"""Runs side by side: every metric with its interval, and paired tests.

The runs must have been measured on the same images. People are drawn once for
all of them, so that a difference is judged on the same people each time.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facesiam_jax import errors
from facesiam_jax.evaluation import protocols, scores, triplets
from facesiam_jax.metrics import identification, paired, tally

# Metric, what it is called, and whether more of it is better.
METRICS = (
  ("eer", "Equal error rate (EER)", False),
  ("auc", "Area under the ROC curve", True),
  ("tar_at_far_0.01", "TAR at FAR 1%", True),
  ("tar_at_far_0.1", "TAR at FAR 10%", True),
  ("triplet_accuracy", "Triplet accuracy", True),
  ("one_shot_accuracy", "One-shot accuracy", True),
  ("fmr", "FMR at its own threshold", False),
  ("fnmr", "FNMR at its own threshold", False),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Runs on the same pairs.

  Attributes:
    names: of the runs, R of them.
    runs: their scores, on the images that were compared.
    found: from `metrics.paired`, with one-shot accuracy added to its values.
    left_out: images of each run that others lack, length R; all 0 unless only
      common images were compared.
    level: of the intervals.
    resamples: that they come from.
  """

  names: tuple[str, ...]
  runs: tuple[scores.Scores, ...]
  found: paired.Paired
  left_out: tuple[int, ...]
  level: float
  resamples: int


def open_runs(
  words: Sequence[str], *, baselines: bool = False
) -> dict[str, scores.Scores]:
  """Reads the runs that a command line names.

  Args:
    words: folders, or NAME=FOLDER.
    baselines: add what the first run was measured beside, raw pixels say.

  Returns:
    Name to scores; without a NAME the folder's own name, of a workdir that of
    the workdir.

  Raises:
    errors.UserError: for a run without scores, two of one name, or fewer than
      two in all.
  """
  runs: dict[str, scores.Scores] = {}
  for word in words:
    name, equals, folder = word.rpartition("=")
    if not equals or os.path.isdir(word):
      name, folder = "", word
    name = name or os.path.basename(os.path.abspath(folder))
    if name in runs:
      raise errors.UserError(
        f"two runs are called {name!r}: name them, as NAME={folder}."
      )
    runs[name] = scores.read(folder)
  if baselines and runs:
    first = next(iter(runs.values()))
    for name, similarity in first.baselines.items():
      runs.setdefault(
        name,
        first._replace(
          similarity=similarity, threshold=None, bundle="", baselines={}
        ),
      )
  if len(runs) < 2:
    raise errors.UserError(
      f"there is {len(runs)} run to compare: name two or more, or add "
      "--baselines for what the first was measured beside."
    )
  return runs


def align(
  runs: Mapping[str, scores.Scores], *, common: bool = False
) -> tuple[dict[str, scores.Scores], tuple[int, ...]]:
  """Puts the images of all runs into one order.

  Args:
    runs: name to scores.
    common: leave out images that not all runs have; else they are refused.

  Returns:
    The runs, and how many images of each were left out.

  Raises:
    errors.UserError: if the runs are of other images, or do not agree who is
      one person.
  """
  keys = {n: [bytes(row) for row in r.image_ids] for n, r in runs.items()}
  sets = {name: set(rows) for name, rows in keys.items()}
  shared = set.intersection(*sets.values())
  first, *others = runs
  for name in others:
    more, fewer = len(sets[name] - sets[first]), len(sets[first] - sets[name])
    if (more or fewer) and not (common and shared):
      mend = (
        "--common compares on the images that all have"
        if shared
        else "evaluate both on the same photos or data set"
      )
      raise errors.UserError(
        f"{first!r} and {name!r} were measured on other images ({fewer:,} are "
        f"in the first alone, {more:,} in the second): {mend}."
      )
  aligned, left_out = {}, []
  for name, run in runs.items():
    # Of an image that is there twice, the first.
    place = {key: row for row, key in reversed([*enumerate(keys[name])])}
    rows = np.array(
      [place[k] for k in dict.fromkeys(keys[first]) if k in shared]
    )
    aligned[name] = run.of(rows)
    left_out.append(len(run.image_ids) - len(rows))
  _check_people(aligned)
  return aligned, tuple(left_out)


def _check_people(runs: Mapping[str, scores.Scores]) -> None:
  (first, one), *others = runs.items()
  for name, other in others:
    if (one.identity_ids != other.identity_ids).any():
      raise errors.UserError(
        f"{first!r} and {name!r} do not agree which images show one person: "
        "evaluate both on the same photos or data set."
      )
  people, counts = np.unique(one.identity_ids, return_counts=True)
  if len(people) < 2 or counts.max() < 2:
    raise errors.UserError(
      f"the runs share {len(people)} people with at most "
      f"{counts.max(initial=0)} images each, which allow no comparison."
    )


def compare(
  runs: Mapping[str, scores.Scores],
  *,
  common: bool = False,
  resamples: int = 1000,
  level: float = 0.95,
  seed: int = 0,
) -> Comparison:
  """Measures runs on the same pairs, and their differences.

  Args:
    runs: name to scores, two or more.
    common: compare on the images that all have.
    resamples: draws of people.
    level: of the intervals, 0..1.
    seed: of the draws.

  Returns:
    The Comparison.

  Raises:
    errors.UserError: as `align`.
  """
  aligned, left_out = align(runs, common=common)
  several = tuple(aligned.values())
  pairs = protocols.all_pairs(several[0].identity_ids)
  ids = several[0].identity_ids
  found = paired.paired_bootstrap(
    [_statistics(run) for run in several],
    [run.similarity[pairs.i, pairs.j] for run in several],
    ids[pairs.i],
    ids[pairs.j],
    resamples=resamples,
    level=level,
    seed=seed,
    cuts=[[] if r.threshold is None else [r.threshold] for r in several],
  )
  for run, values in zip(several, found.values, strict=True):
    values["one_shot_accuracy"] = identification.one_shot_accuracy(
      run.similarity,
      ids,
      seed=seed,
      ways=min(protocols.ONE_SHOT_WAYS, int(ids.max()) + 1),
    )
  return Comparison(tuple(aligned), several, found, left_out, level, resamples)


def _statistics(run: scores.Scores) -> paired.Statistics:
  """Metrics of a resample; triplets by the people of anchor and negative."""
  counted = triplets.count_triplets(run.similarity, run.identity_ids)

  def metrics(counts: tally.Tally, copies: np.ndarray) -> dict[str, float]:
    summary = tally.summary_of(counts, run.threshold, protocols.TAR_TARGETS)
    right, every = (float(copies @ table @ copies) for table in counted)
    return {**summary, "triplet_accuracy": right / every}

  return metrics


def adjusted(
  comparison: Comparison, metric: str
) -> dict[tuple[int, int], float]:
  """Returns the p-values of a metric, adjusted for the number of pairs."""
  known: dict[tuple[int, int], float] = {}
  for pair, found in comparison.found.differences.items():
    p_value = found[metric].p_value if metric in found else None
    if p_value is not None:
      known[pair] = p_value
  values = paired.holm(list(known.values()))
  return dict(zip(known, values.tolist(), strict=True))


def verdict(comparison: Comparison, a: int, b: int, metric: str) -> str | None:
  """Says in a sentence what a difference amounts to; None without one."""
  one = comparison.found.differences[a, b].get(metric)
  if one is None:
    return None
  ((label, more_is_better),) = (
    (text, better) for key, text, better in METRICS if key == metric
  )
  if one.low is None or one.high is None:
    return f"{label}: {_points(one.value)}, of which no interval can be given."
  ends = f"{_points(one.low)} to {_points(one.high)}; p = {one.p_value:.3f}"
  if len(comparison.found.differences) > 1:
    ends += f", {adjusted(comparison, metric)[a, b]:.3f} after Holm"
  if not one.clear:
    return (
      f"{label}: no difference larger than its interval "
      f"({_points(one.value)}; {ends})."
    )
  first, second = comparison.names[a], comparison.names[b]
  better = first if (one.value > 0) == more_is_better else second
  return f"{label}: {better} is better ({_points(one.value)}; {ends})."


def _points(value: float) -> str:
  """A difference of shares, in percentage points."""
  return f"{100 * value:+.2f}".replace("-", "\N{MINUS SIGN}")


def as_json(comparison: Comparison, made: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what compare.json holds."""
  found, ids = comparison.found, comparison.runs[0].identity_ids
  pairs = protocols.all_pairs(ids)
  runs = []
  for n, (name, run) in enumerate(
    zip(comparison.names, comparison.runs, strict=True)
  ):
    runs.append(
      {
        "name": name,
        "bundle": run.bundle or None,
        "threshold": run.threshold,
        "values": found.values[n],
        "interval": found.intervals and found.intervals[n],
        "images_left_out": comparison.left_out[n],
      }
    )
  differences = [
    {
      "a": comparison.names[a],
      "b": comparison.names[b],
      "metrics": {
        metric: {
          **one._asdict(),
          "clear": one.clear,
          "p_adjusted": adjusted(comparison, metric).get((a, b)),
        }
        for metric, one in found.differences[a, b].items()
      },
      "verdicts": [
        text
        for metric, *_ in METRICS
        if (text := verdict(comparison, a, b, metric))
      ],
    }
    for a, b in itertools.combinations(range(len(comparison.names)), 2)
  ]
  return {
    "made": dict(made),
    "data": comparison.runs[0].data,
    "num_people": int(ids.max()) + 1,
    "num_images": int(ids.size),
    "num_genuine": int(pairs.same.sum()),
    "num_impostor": int((1 - pairs.same).sum()),
    "level": comparison.level,
    "resamples": comparison.resamples,
    "interval_reason": found.reason,
    "runs": runs,
    "differences": differences,
  }
