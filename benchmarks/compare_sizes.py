"""The length of an embedding against what compares two of them."""

from typing import Any

import compare_data
import compare_measures
import compare_systems
import jax
import numpy as np

from facesiam_jax import metrics, ops

DIMS = (32, 64, 128, 256, 512)
SEEDS = (0, 1)
RESAMPLES = 500


def _chi_square(rows: np.ndarray) -> jax.Array:
  positive = jax.nn.softplus(rows)
  return -ops.pairwise_chi_square_distance(positive, positive)


# Of unit vectors d^2 = 2 - 2 cos, so that these two put all pairs in one order.
_SCORES = {
  "cosine": lambda rows: compare_systems.cosines(rows, rows),
  "Euclidean distance of unit vectors": lambda rows: compare_systems.nearness(
    *2 * [ops.l2_normalize(rows)]
  ),
  "Euclidean distance": lambda rows: compare_systems.nearness(rows, rows),
  "L1 distance of unit vectors": lambda rows: (
    -ops.pairwise_l1_distance(*2 * [ops.l2_normalize(rows)])
  ),
  "chi-square of softplus": _chi_square,
}


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Trains SupCon at every length; scores each in every way."""
  task = tasks[0]
  about = compare_systems.NETWORKS["supcon"]
  setting = compare_systems.SETTINGS[data]
  rate, _ = compare_systems.choose_rate(
    runs,
    compare_systems.Scorer(about),
    compare_systems.config_of(about, setting),
    task,
  )
  found: dict[str, dict[str, Any]] = {}
  for dim in DIMS:
    config = compare_systems.config_of(about, setting, dim)
    trained = [runs.get(config, task, seed, rate) for seed in SEEDS]
    for name, score in _SCORES.items():
      jitted = jax.jit(score)
      parts = []
      for run_ in trained:
        draws = compare_measures.measure(
          np.asarray(jitted(run_.rows["test"])),
          task.test.ids,
          metrics.Platt(1.0, 0.0),
          resamples=RESAMPLES,
          seed=0,
          open_set=False,
        )
        parts.append([draws])
      found.setdefault(name, {})[str(dim)] = {
        key: compare_measures.estimate(compare_measures.over_seeds(parts, key))
        for key in ("eer", "triplet_accuracy", "rank_1")
      }
  return {"scores": found, "seeds": len(SEEDS), "learning_rate": rate}
