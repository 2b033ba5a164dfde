"""How long evaluation takes, beside scikit-learn, and what memory it needs.

  .venv/bin/python benchmarks/evaluation.py \\
    --out=benchmarks/results/evaluation.json

Three parts, each in a process of its own, on made-up normal scores:
  curve: 10 million float32 scores; the ROC curve and the equal error rate, and
    scikit-learn's `roc_curve` alone on the same scores, in alternating rounds.
  bootstrap: 10 million pairs of 448 people with 10 photos each; 1000 resamples
    of people, every score counted exactly, and in 4,096 bins.
  pairs: all pairs of 13,000 embeddings, from these to the report's numbers and
    intervals; and the peak of the process's memory.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

_PART = flags.DEFINE_enum(
  "part", None, ["curve", "bootstrap", "pairs"], "Measure this part alone."
)
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds of the curve.")
_SCORES = flags.DEFINE_integer("scores", 10_000_000, "Scores of the curve.")
_PEOPLE = flags.DEFINE_integer("people", 448, "People of the bootstrap.")
_RESAMPLES = flags.DEFINE_integer("resamples", 1000, "Of the bootstrap.")
_IMAGES = flags.DEFINE_integer("images", 13_000, "Embeddings of the pairs.")
_TARGETS = {"tar_at_far_0.01": 0.01, "tar_at_far_0.1": 0.1}


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
  begun = time.perf_counter()
  found = run()
  return time.perf_counter() - begun, found


def _curve() -> dict[str, Any]:
  """Seconds of the curve, ours with the EER, theirs without."""
  by_share = {f"{s:.0%} genuine": _curve_of(s) for s in (0.02, 0.5)}
  return {
    "scores": _SCORES.value,
    "rounds": _ROUNDS.value,
    "by_share": by_share,
  }


def _curve_of(share: float) -> dict[str, Any]:
  from sklearn.metrics import roc_curve

  from facesiam_jax import metrics

  rng = np.random.default_rng(0)
  same = rng.random(_SCORES.value) < share
  scores = rng.normal(size=same.size).astype(np.float32) + np.float32(2) * same
  runs = {
    "ours": lambda: (metrics.roc(scores, same), metrics.eer(scores, same)),
    "scikit_learn": lambda: roc_curve(same, scores),
  }
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(_ROUNDS.value):
    for name, run in runs.items():
      seconds[name].append(_timed(run)[0])
  medians = {name: statistics.median(some) for name, some in seconds.items()}
  ratio = medians["ours"] / medians["scikit_learn"]
  return {"median_s": medians, "ratio": ratio, "all_s": seconds}


def _bootstrap() -> dict[str, Any]:
  """Seconds of the intervals, exact and binned, and how these differ."""
  from facesiam_jax import metrics
  from facesiam_jax.metrics import tally

  ids = np.repeat(np.arange(_PEOPLE.value), 10)
  i, j = np.triu_indices(ids.size, 1)
  rng = np.random.default_rng(0)
  scores = rng.normal(size=i.size) + 2.0 * (ids[i] == ids[j])
  scores = scores.astype(np.float32)
  found: dict[str, Any] = {
    "people": _PEOPLE.value, "pairs": i.size, "resamples": _RESAMPLES.value
  }  # fmt: skip
  intervals = {}
  for name, bins in (("binned", 4096), ("exact", None)):
    seconds, made = _timed(
      lambda bins=bins: metrics.person_bootstrap(
        lambda counts: tally.summary_of(counts, 1.0, _TARGETS),
        scores, ids[i], ids[j],
        resamples=_RESAMPLES.value, cuts=[1.0], bins=bins,
      )
    )  # fmt: skip
    intervals[name] = made.intervals
    found[name] = {"seconds": seconds, "bins": bins}
    if made.binning_error is not None:
      found[name]["binning_error"] = made.binning_error
  found["largest_difference"] = max(
    abs(a - b)
    for name, ends in intervals["exact"].items()
    for a, b in zip(ends, intervals["binned"][name], strict=True)
  )
  return found


def _pairs() -> dict[str, Any]:
  """Seconds and memory of all pairs of many embeddings."""
  from facesiam_jax.evaluation import comparing

  rng = np.random.default_rng(0)
  # As in LFW, most people have one photo and a few have many.
  sizes = np.minimum(rng.zipf(2.0, _IMAGES.value), 500)
  ids = np.repeat(np.arange(_IMAGES.value), sizes)[: _IMAGES.value]
  centres = rng.normal(size=(_IMAGES.value, 128)).astype(np.float32)
  noise = rng.normal(size=(ids.size, 128)).astype(np.float32)
  embeddings = centres[ids] + np.float32(2.0) * noise
  score = comparing.scorer(None)
  seconds, result = _timed(
    lambda: comparing.measure_people("all_pairs", embeddings, ids, score)
  )
  names = ("num_images", "num_people", "num_genuine", "num_impostor")
  kept = (*names, "eer", "auc", "binning")
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {
    "seconds": seconds,
    "peak_bytes": peak * 1024,
    "result": {name: result[name] for name in kept},
    "eer_interval": result["interval"]["eer"],
  }


def _child(part: str) -> dict[str, Any]:
  """Runs a part in a process of its own, for its memory."""
  words = [sys.executable, __file__, *sys.argv[1:], f"--part={part}", "--out="]
  run = subprocess.run(words, stdout=subprocess.PIPE, check=True)
  found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
  return found


def main(argv: list[str]) -> None:
  """Measures one part, or all, and writes them beside the others."""
  del argv
  parts = {"curve": _curve, "bootstrap": _bootstrap, "pairs": _pairs}
  if _PART.value and not _OUT.value:
    print(json.dumps(parts[_PART.value]()))
    return
  result = {}
  if _OUT.value and pathlib.Path(_OUT.value).exists():
    result = json.loads(pathlib.Path(_OUT.value).read_text())
  packages = ("numpy", "scipy", "scikit-learn", "jax")
  for part in [_PART.value] if _PART.value else parts:
    load = os.getloadavg()[0]
    result[part] = outcome.environment(packages) | _child(part)
    result[part]["load_average_before"] = load
    print(part, json.dumps(result[part]), flush=True)
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
