"""Four folds of ten people held out, three seeds each: the README's table.

  python benchmarks/olivetti.py --out=benchmarks/results/olivetti.json

For each fold and each of `_RECIPES`, every candidate of the recipe is
cross-fitted on the thirty training people (three inner networks, seed 0); the
one with the lowest equal error rate of the pooled out-of-fold scores is taken,
and its threshold comes from the same scores. Networks with different seeds are
then trained on all thirty and measured on the ten held out, next to the
article's network, eigenfaces and raw pixels on the same pairs.
Within a fold nothing of its ten people is used before they are measured. A run
that was stopped is gone on with.
"""

import concurrent.futures
import multiprocessing
import os
import pathlib
import statistics
import time
from typing import Any

import outcome
from absl import app, flags

_PACKAGES = ("jax", "flax", "optax", "numpy", "opencv-python-headless")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/benchmark-olivetti", "Folder for the runs."
)
_JOBS = flags.DEFINE_integer(
  "jobs", os.cpu_count(), "Folds at a time, each on a core of its own."
)
# A row of the table: the recipe, its networks a fold, and changes to it among
# which each fold chooses for itself.
_RECIPES: dict[str, tuple[str, int, dict[str, dict[str, float]]]] = {
  "Small network, SupCon": ("olivetti_supcon", 1, {"as it is": {}}),
  "This project's recipe": (
    "olivetti",
    3,
    {
      "as it is": {},
      "with drawn glasses": {"glasses": 0.5},
      "three times the shrinkage": {"start.shrinkage": 0.3},
      "wider augmentation": {
        "augment.rotation_deg": 8.0,
        "augment.scale": 0.06,
        "augment.shift": 0.03,
      },
    },
  ),
}
_METRICS = (
  ("eer", "EER"),
  ("auc", "AUC"),
  ("tar_at_far_0.01", "TAR at FAR 1 %"),
  ("tar_at_far_0.1", "TAR at FAR 10 %"),
  ("one_shot_accuracy", "one-shot, 10-way"),
  ("balanced_accuracy", "balanced accuracy*"),
  ("fmr", "FMR*"),
  ("fnmr", "FNMR*"),
)


def _config(
  recipe: str, fold: int, seed: int, changes: dict[str, float] | None = None
) -> Any:
  from ml_collections.config_flags import config_flags

  from facesiam_jax.cli import train

  parser = config_flags.ConfigFileFlagParser(name="config")
  config = parser.parse(train.find_recipe(recipe))
  with config.unlocked():
    config.dataset.fold, config.seed = fold, seed
    config.update_from_flattened_dict(changes or {})
  return config


def _choose(
  recipe: str,
  candidates: dict[str, dict[str, float]],
  fold: int,
  data: Any,
  workdir: pathlib.Path,
) -> tuple[str, Any, dict[str, float]]:
  """Cross-fits every candidate; returns the best, its scores, all rates."""
  from facesiam_jax import metrics
  from facesiam_jax.training import run

  scores, rates = {}, {}
  for number, (name, changes) in enumerate(candidates.items()):
    config = _config(recipe, fold, 0, changes)
    folder = workdir / recipe / f"fold{fold}" / f"candidate{number}"
    scores[name] = run.cross_fit(config, data, folder)
    rates[name] = metrics.eer(scores[name].values, scores[name].same).rocch
  best = min(rates, key=lambda name: rates[name])
  return best, scores[best], rates


def _recipe_reports(
  recipe: str,
  candidates: dict[str, dict[str, float]],
  fold: int,
  num_seeds: int,
  workdir: pathlib.Path,
) -> list[dict[str, Any]]:
  """Chooses the recipe, then trains and measures one network a seed."""
  from facesiam_jax.data import sets
  from facesiam_jax.evaluation import measure
  from facesiam_jax.training import loop, run

  config = _config(recipe, fold, 0)
  data = sets.load(config.dataset, image_size=config.image_size)
  best, scores, rates = _choose(recipe, candidates, fold, data, workdir)
  reports = []
  for seed in range(num_seeds):
    config = _config(recipe, fold, seed, candidates[best])
    folder = workdir / recipe / f"fold{fold}" / f"seed{seed}"
    split = run.split_of(data, data.train)
    begun = time.monotonic()
    state = loop.fit(config, folder, split, None, label=f"{fold}/{seed}")
    seconds = time.monotonic() - begun
    bundle = run.make_bundle(
      config, folder, state, scores, split.images.shape[1:]
    )
    result = measure.measure(bundle, data).result
    reports.append(
      {
        "seed": seed,
        "train_seconds": seconds,
        "chosen": best,
        "out_of_fold_eer": rates,
        **result,
      }
    )
  return reports


def _article_report(fold: int, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains and measures the article's network."""
  from facesiam_jax.evaluation import measure
  from facesiam_jax.training import run

  config = _config("olivetti_article", fold, 0)
  bundle = run.train(config, workdir / f"article-fold{fold}")
  measured = measure.measure(bundle, measure.load_data(bundle))
  return {"seed": 0, **measured.result}


def _baseline_reports(fold: int) -> dict[str, list[dict[str, Any]]]:
  """Measures raw pixels and eigenfaces on the fold's ten people."""
  from facesiam_jax.data import sets
  from facesiam_jax.evaluation import baselines, protocols

  config = _config("olivetti", fold, 0)
  data = sets.load(config.dataset, image_size=config.image_size)
  (train, _), (test, ids) = data.of(data.train), data.of(data.test)
  similarities = {
    "Raw pixels": baselines.raw_pixel_similarity(test),
    "Eigenfaces": baselines.pca_similarity(train, test),
  }
  return {
    name: [protocols.verification_report(similarity, ids, None)]
    for name, similarity in similarities.items()
  }


def _fold(
  job: tuple[int, int, str],
) -> dict[str, list[dict[str, Any]]]:
  """Everything about one fold; runs in a process of its own."""
  core, fold, workdir = job
  if hasattr(os, "sched_setaffinity"):
    # Before JAX starts, so that it counts one core.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
  root = pathlib.Path(workdir)
  reports = _baseline_reports(fold)
  reports["The article's network"] = [_article_report(fold, root)]
  for name, (recipe, num_seeds, candidates) in _RECIPES.items():
    reports[name] = _recipe_reports(recipe, candidates, fold, num_seeds, root)
  for rows in reports.values():
    for row in rows:
      row["fold"] = fold
  return reports


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
  """Mean over all rows; spread over folds (of their means) and over seeds."""
  summary = {}
  for key, _ in _METRICS:
    if rows[0][key] is None:
      continue
    by_fold: dict[int, list[float]] = {}
    for row in rows:
      by_fold.setdefault(row["fold"], []).append(row[key])
    means = [statistics.fmean(values) for values in by_fold.values()]
    within = [statistics.stdev(v) for v in by_fold.values() if len(v) > 1]
    summary[key] = {
      "mean": statistics.fmean(means),
      "sd_over_folds": statistics.stdev(means) if len(means) > 1 else 0.0,
      "sd_over_seeds": statistics.fmean(within) if within else 0.0,
      "min": min(row[key] for row in rows),
      "max": max(row[key] for row in rows),
    }
  return summary


def _table(summaries: dict[str, dict[str, dict[str, float]]]) -> str:
  """The README's table, in Markdown: mean and spread over folds, in %."""
  lines = [
    "| system | " + " | ".join(title for _, title in _METRICS) + " |",
    "|---|" + "---|" * len(_METRICS),
  ]
  for name, summary in summaries.items():
    cells = [
      f"{100 * summary[key]['mean']:.1f} ± "
      f"{100 * summary[key]['sd_over_folds']:.1f}"
      if key in summary
      else "-"
      for key, _ in _METRICS
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Runs all folds and writes the results."""
  del argv
  begun = time.monotonic()
  environment = outcome.environment(_PACKAGES)
  jobs = [(fold, fold, os.path.abspath(_WORKDIR.value)) for fold in range(4)]
  with concurrent.futures.ProcessPoolExecutor(
    _JOBS.value, mp_context=multiprocessing.get_context("spawn")
  ) as pool:
    folds = list(pool.map(_fold, jobs))
  reports = {
    name: [row for fold in folds for row in fold[name]] for name in folds[0]
  }
  summaries = {name: _summary(rows) for name, rows in reports.items()}
  print(_table(summaries))
  result = {
    **environment,
    "seconds": time.monotonic() - begun,
    "summary": summaries,
    "reports": reports,
  }
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
