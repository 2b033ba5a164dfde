"""Table A: the losses alone, on the same batches of the same people."""

import dataclasses
import sys
from typing import Any

import compare_data
import compare_measures
import compare_systems
import numpy as np

from facesiam_jax import metrics

# So many that 36 p-values can pass Holm's test.
RESAMPLES = 2000
_OF_COSINES = 500


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table.

  Attributes:
    title: of the row.
    network: key of `compare_systems.NETWORKS`.
    logits: whether the class logits take the embedding's place.
  """

  title: str
  network: str
  logits: bool = False


ROWS = {
  "difference": Row("\\|difference\\|-logistic", "difference"),
  "chi_square": Row("chi-square-logistic", "chi_square"),
  "euclidean": Row("Euclidean-logistic BCE", "euclidean"),
  "contrastive": Row("contrastive", "contrastive"),
  "triplet_as_written": Row("triplet, as written", "triplet_as_written"),
  "triplet_as_run": Row("triplet, as run", "triplet_as_run"),
  "classifier_logits": Row("CNN classifier, logits", "classifier", True),
  "classifier": Row("CNN classifier, layer below", "classifier"),
  "supcon": Row("SupCon (ours)", "supcon"),
}
# Shown with differences and p-values.
TESTED = ("eer", "triplet_accuracy", "rank_1")


def _embeddings(row: Row, run: compare_systems.Run, part: str) -> np.ndarray:
  rows = run.rows[part]
  return compare_systems.logits_of(run, rows) if row.logits else rows


def _draws(
  scores: Any,
  row: Row,
  run: compare_systems.Run,
  task: compare_data.Task,
  *,
  fold: int,
  open_set: bool,
  resamples: int,
) -> compare_measures.Draws:
  """Measures one way of scoring, with a logistic fitted on validation."""
  rows = _embeddings(row, run, "validation")
  platt = metrics.fit_platt(
    *compare_systems.pair_scores(scores(rows, rows), task.validation.ids)
  )
  rows = _embeddings(row, run, "test")
  return compare_measures.measure(
    scores(rows, rows),
    task.test.ids,
    platt,
    resamples=resamples,
    seed=fold,
    open_set=open_set,
  )


def _eer(rows: np.ndarray, ids: np.ndarray) -> float:
  similarity = np.asarray(compare_systems.cosines(rows, rows))
  return metrics.eer(*compare_systems.pair_scores(similarity, ids)).rocch


def template_rank_one(
  rows: np.ndarray,
  ids: np.ndarray,
  enrolled: np.ndarray,
  enrolled_ids: np.ndarray,
) -> float:
  """Share of photos whose person's template has the largest cosine.

  Args:
    rows: embeddings of the photos, float [N, D].
    ids: their people, int [N].
    enrolled: embeddings of the enrolled photos, float [M, D]; a template is the
      mean of a person's unit rows.
    enrolled_ids: their people, int [M].
  """
  people, index = np.unique(enrolled_ids, return_inverse=True)
  unit = enrolled / np.linalg.norm(enrolled, axis=1, keepdims=True)
  templates = np.zeros((len(people), enrolled.shape[1]), np.float32)
  np.add.at(templates, index, unit)
  scores = np.asarray(compare_systems.cosines(rows, templates))
  return float((people[scores.argmax(axis=1)] == ids).mean())


def _seen_people(
  row: Row, run: compare_systems.Run, task: compare_data.Task
) -> dict[str, float]:
  """People who were trained on, by other photos; and the gap to new people."""
  seen = _embeddings(row, run, "seen")
  train = _embeddings(row, run, "train")
  shown = np.unique(task.train.ids)[: len(np.unique(task.test.ids))]
  few = np.isin(task.train.ids, shown)
  found = {
    "seen_rank_1_by_templates": template_rank_one(
      seen, task.seen.ids, train, task.train.ids
    ),
    "eer_cosine_training_photos": _eer(train[few], task.train.ids[few]),
    "eer_cosine_seen_people_other_photos": _eer(seen, task.seen.ids),
  }
  if row.logits:
    people = np.unique(task.train.ids)
    named = people[seen.argmax(axis=1)]
    found["seen_rank_1_by_argmax"] = float((named == task.seen.ids).mean())
  return found


def run_of(
  runs: compare_systems.Runs,
  network: str,
  task: compare_data.Task,
  setting: compare_systems.Setting,
) -> tuple[compare_systems.Scorer, list[compare_systems.Run], dict[str, Any]]:
  """Tunes and trains one network on a task, a run for each seed."""
  about = compare_systems.NETWORKS[network]
  config = compare_systems.config_of(about, setting)
  scorer = compare_systems.Scorer(about)
  rate, tried = compare_systems.choose_rate(runs, scorer, config, task)
  found = [runs.get(config, task, seed, rate) for seed in compare_systems.SEEDS]
  return scorer, found, {"learning_rate": rate, "validation_eer": tried}


Measured = list[list[compare_measures.Draws]]


def _of_all(
  runs: compare_systems.Runs,
  row: Row,
  trained: dict[str, Any],
  tasks: list[compare_data.Task],
  *,
  by_cosine: bool,
  resamples: int,
) -> Measured:
  """Measures one way of scoring, for each seed and fold."""

  def one(seed: int, fold: int) -> compare_measures.Draws:
    task = tasks[fold]
    scorer, found, _ = trained[task.name]
    score = lambda x, y: np.asarray(
      compare_systems.cosines(x, y) if by_cosine else scorer(found[seed], x, y)
    )
    made = found[seed]
    make = lambda: _draws(
      score,
      row,
      made,
      task,
      fold=fold,
      open_set=len(tasks) == 1,
      resamples=resamples,
    )
    kind = f"{row.logits:d}{by_cosine:d}"
    return runs.kept(f"{made.key}-draws-{kind}-{resamples}", make)

  return [
    [one(seed, fold) for fold in range(len(tasks))]
    for seed in range(len(compare_systems.SEEDS))
  ]


def _gaps(
  row: Row, trained: dict[str, Any], tasks: list[compare_data.Task]
) -> dict[str, float]:
  found = [
    _seen_people(row, run, task)
    for task in tasks
    for run in trained[task.name][1]
  ]
  return {key: float(np.mean([one[key] for one in found])) for key in found[0]}


def _measured(
  runs: compare_systems.Runs,
  row: Row,
  trained: dict[str, Any],
  tasks: list[compare_data.Task],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Measures a row on all folds and seeds; returns it and its own draws."""
  result: dict[str, Any] = {
    "tuning": {name: found[2] for name, found in trained.items()},
    "seen_people_and_gap": _gaps(row, trained, tasks),
  }
  ways = {"own": RESAMPLES}
  if compare_systems.NETWORKS[row.network].own != "cosine":
    ways["cosine"] = _OF_COSINES
  own = {}
  for way, resamples in ways.items():
    parts = _of_all(
      runs, row, trained, tasks, by_cosine=way == "cosine", resamples=resamples
    )
    draws = {
      name: compare_measures.over_seeds(parts, name) for name in parts[0][0]
    }
    result[way] = {
      name: compare_measures.estimate(found) for name, found in draws.items()
    }
    result[f"{way}_by_seed"] = {
      name: [float(np.mean([fold[name][0] for fold in one])) for one in parts]
      for name in draws
    }
    own = own or draws
  return result, own


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Makes Table A of a data set."""
  setting = compare_systems.SETTINGS[data]
  trained: dict[str, dict[str, Any]] = {}
  rows, draws = {}, {}
  for name, row in ROWS.items():
    if row.network not in trained:
      trained[row.network] = {
        task.name: run_of(runs, row.network, task, setting) for task in tasks
      }
    rows[name], draws[name] = _measured(runs, row, trained[row.network], tasks)
    eer = rows[name]["own"]["eer"]
    print(f"{data} {name}: EER {100 * eer['value']:.1f} %", file=sys.stderr)
  batch = setting.num_people * setting.images_per_person
  people = lambda photos: len(np.unique(photos.ids))
  return {
    "rows": rows,
    "differences": {
      name: compare_measures.differences(
        {row: found[name] for row, found in draws.items()}
      )
      for name in TESTED
    },
    "setting": dataclasses.asdict(setting),
    "images_seen": batch * setting.num_steps,
    "seeds": len(compare_systems.SEEDS),
    "resamples": RESAMPLES,
    "tasks": {
      task.name: {
        part: {
          "people": people(getattr(task, part)),
          "images": len(getattr(task, part).ids),
        }
        for part in ("train", "seen", "validation", "test")
      }
      for task in tasks
    },
  }
