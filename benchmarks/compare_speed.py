"""Images a second in training, the networks in turn."""

import os
import statistics
import time
from typing import Any

import compare_data
import compare_systems
import jax
import numpy as np

_ROUNDS, _STEPS = 7, 15
_RATE = 1e-4


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Times blocks of steps, one network after another, several rounds."""
  task, setting = tasks[0], compare_systems.SETTINGS[data]
  batch = setting.num_people * setting.images_per_person
  num_people = len(np.unique(task.train.ids))
  rates: dict[str, list[float]] = {}
  states: dict[str, Any] = {}
  loads = [os.getloadavg()[0]]
  for _ in range(_ROUNDS + 1):
    for name, network in compare_systems.NETWORKS.items():
      config = compare_systems.config_of(network, setting)
      trainer = runs.trainer(config, num_people)
      if name not in states:
        splits = trainer.data(task.train.images, task.train.ids)
        states[name] = (trainer.start(0), splits)
      state, splits = states[name]
      begun = time.monotonic()
      for _ in range(_STEPS):
        state, _ = trainer.step(state, splits, 0, _RATE)
      jax.block_until_ready(state)
      seconds = time.monotonic() - begun
      states[name] = (state, splits)
      rates.setdefault(name, []).append(batch * _STEPS / seconds)
  loads.append(os.getloadavg()[0])
  # The first round compiles.
  return {
    "images_per_second": {
      name: {
        "median": statistics.median(found[1:]),
        "lowest": min(found[1:]),
        "highest": max(found[1:]),
      }
      for name, found in rates.items()
    },
    "batch": batch,
    "rounds": _ROUNDS,
    "steps_a_round": _STEPS,
    "load_average_before_and_after": loads,
  }
