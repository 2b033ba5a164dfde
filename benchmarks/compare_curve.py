"""How many people, and photos of each, SupCon and a classifier need."""

import dataclasses
import sys
from typing import Any

import compare_data
import compare_measures
import compare_systems
import numpy as np

from facesiam_jax import metrics

PEOPLE = (10, 30, 100, None)
PHOTOS = (2, 5, 10)
SEEDS = (0, 1)
_NETWORKS = ("supcon", "classifier")
# The fewest people are a whole batch; every cell sees as many images.
_BATCH = {"num_people": 10, "images_per_person": 4, "num_steps": 300}
RESAMPLES = 500


def cut(
  photos: compare_data.Photos, people: int | None, each: int
) -> compare_data.Photos:
  """Returns so many photos of so many people, the same people for any `each`.

  Args:
    photos: of people, some with enough photos for every cell.
    people: how many; None takes all who have enough.
    each: photos of each.

  Raises:
    ValueError: if there are too few people.
  """
  enough = compare_data.at_least(photos, max(PHOTOS))
  order = np.random.default_rng(0).permutation(np.unique(enough.ids))
  if people is not None and len(order) < people:
    raise ValueError(f"{len(order)} people have photos enough, not {people}")
  rows = [
    np.flatnonzero(enough.ids == person)[:each] for person in order[:people]
  ]
  return enough[np.concatenate(rows)]


def _cell(
  runs: compare_systems.Runs,
  network: str,
  task: compare_data.Task,
  rate: float,
) -> dict[str, Any]:
  """Trains one cell and measures it by cosines."""
  about = compare_systems.NETWORKS[network]
  setting = dataclasses.replace(compare_systems.SETTINGS["celeba"], **_BATCH)
  config = compare_systems.config_of(about, setting)
  parts = []
  for seed in SEEDS:
    run = runs.get(config, task, seed, rate)
    similarity = lambda part, run=run: np.asarray(
      compare_systems.cosines(run.rows[part], run.rows[part])
    )
    platt = metrics.fit_platt(
      *compare_systems.pair_scores(
        similarity("validation"), task.validation.ids
      )
    )
    draws = compare_measures.measure(
      similarity("test"),
      task.test.ids,
      platt,
      resamples=RESAMPLES,
      seed=0,
      open_set=False,
    )
    parts.append([draws])
  return {
    name: compare_measures.estimate(compare_measures.over_seeds(parts, name))
    for name in ("eer", "triplet_accuracy", "rank_1", "auc")
  }


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Trains both networks on every number of people and photos."""
  task = tasks[0]
  setting = compare_systems.SETTINGS[data]
  cells: dict[str, Any] = {}
  for network in _NETWORKS:
    about = compare_systems.NETWORKS[network]
    rate, _ = compare_systems.choose_rate(
      runs,
      compare_systems.Scorer(about),
      compare_systems.config_of(about, setting),
      task,
    )
    for people in PEOPLE:
      for each in PHOTOS:
        train = cut(task.train, people, each)
        few = dataclasses.replace(
          task, name=f"{task.name}-{people}-{each}", train=train
        )
        number = len(np.unique(train.ids))
        found = _cell(runs, network, few, rate)
        cells.setdefault(network, {})[f"{number} people x {each}"] = found
        print(f"{network} {number} x {each}: {found['eer']}", file=sys.stderr)
  return {"cells": cells, "batch": _BATCH, "seeds": len(SEEDS)}
