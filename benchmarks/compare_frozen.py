"""Heads fitted alone, on embeddings that stay as they are.

Logistic regression on the documents' two features of a pair, once on pairs of
the people the network learned, once on those of the validation people.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import compare_data
import compare_losses
import compare_measures
import compare_systems
import jax
import jax.numpy as jnp
import numpy as np
from sklearn import linear_model, preprocessing

from facesiam_jax import heads, metrics

NETWORKS = ("supcon", "classifier", "contrastive")
_GENUINE = 5000
_COSTS = (1e-4, 1e-2, 1.0)
RESAMPLES = 500


class Feature(NamedTuple):
  """What a head weighs, entry by entry.

  Attributes:
    of: both rows of pairs, float [N, D] each -> float [N, D].
    logits: the library's head: x, y [N, D], weights [D], bias -> [N].
  """

  of: Callable[[np.ndarray, np.ndarray], np.ndarray]
  logits: Callable[..., jax.Array]


def _difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.abs(x - y)


def _chi_square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  x, y = np.logaddexp(0, x), np.logaddexp(0, y)
  return (x - y) ** 2 / (x + y)


FEATURES = {
  "|difference|": Feature(_difference, heads.abs_difference_logistic),
  "chi-square": Feature(
    _chi_square,
    lambda x, y, weights, bias: heads.chi_square_logistic(
      jax.nn.softplus(x), jax.nn.softplus(y), weights, bias
    ),
  ),
}


def drawn_pairs(
  ids: np.ndarray, each: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws as many genuine as impostor pairs, each pair once at most.

  Args:
    ids: person of each image, int [N].
    each: pairs of a kind, fewer where there are fewer.
    seed: of the draw.

  Returns:
    (rows of one side, of the other, 1 where genuine), [P] each.
  """
  i, j = np.triu_indices(len(ids), 1)
  same = ids[i] == ids[j]
  rng = np.random.default_rng(seed)
  kinds = [rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)]
  each = min(each, *(len(kind) for kind in kinds))
  rows = np.concatenate([kind[:each] for kind in kinds])
  return i[rows], j[rows], same[rows].astype(int)


class Head(NamedTuple):
  """A fitted head: weights, float [D], and bias."""

  weights: np.ndarray
  bias: float


def fit(
  feature: Feature, rows: np.ndarray, ids: np.ndarray, seed: int, cost: float
) -> Head:
  """Fits a logistic regression on pairs of these people.

  Args:
    feature: of a pair.
    rows: embeddings, float [N, D].
    ids: their people, int [N].
    seed: of the pairs.
    cost: scikit-learn's C, on features of unit variance.
  """
  i, j, same = drawn_pairs(ids, _GENUINE, seed)
  scaler = preprocessing.StandardScaler()
  values = scaler.fit_transform(feature.of(rows[i], rows[j]))
  model = linear_model.LogisticRegression(C=cost, max_iter=1000)
  model.fit(values, same)
  weights = model.coef_[0] / scaler.scale_
  return Head(weights, float(model.intercept_[0] - weights @ scaler.mean_))


def scores(head: Head, feature: Feature, rows: np.ndarray) -> np.ndarray:
  """Returns logits of all pairs of rows, float32 [N, N]."""
  every = jnp.asarray(rows, jnp.float32)
  weights = jnp.asarray(head.weights, jnp.float32)

  @jax.jit
  def of_all(every: jax.Array, weights: jax.Array, bias: float) -> jax.Array:
    one = lambda row: feature.logits(
      jnp.broadcast_to(row, every.shape), every, weights, bias
    )
    return jax.lax.map(one, every)

  return np.asarray(of_all(every, weights, head.bias))


def _halves_eer(
  feature: Feature, rows: np.ndarray, ids: np.ndarray, cost: float
) -> float:
  """EER on each half of the people, of a head fitted on the other half."""
  first = np.isin(ids, np.unique(ids)[::2])
  found = []
  for half in (first, ~first):
    head = fit(feature, rows[half], ids[half], 0, cost)
    similarity = scores(head, feature, rows[~half])
    found.append(
      metrics.eer(*compare_systems.pair_scores(similarity, ids[~half])).rocch
    )
  return float(np.mean(found))


def _measured(
  similarities: list[np.ndarray], task: compare_data.Task
) -> dict[str, Any]:
  parts = [
    [
      compare_measures.measure(
        similarity,
        task.test.ids,
        metrics.Platt(1.0, 0.0),
        resamples=RESAMPLES,
        seed=0,
        open_set=False,
      )
    ]
    for similarity in similarities
  ]
  return {
    name: compare_measures.estimate(compare_measures.over_seeds(parts, name))
    for name in ("eer", "triplet_accuracy", "rank_1")
  }


def _of_network(
  trained: list[compare_systems.Run], task: compare_data.Task
) -> dict[str, Any]:
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
  found = {
    "cosine, nothing fitted": _measured(
      [np.asarray(compare_systems.cosines(*2 * [r.rows["test"]]))
       for r in trained],
      task,
    )
  }  # fmt: skip
  for name, feature in FEATURES.items():
    cost = min(
      _COSTS,
      key=lambda cost, feature=feature: _halves_eer(
        feature, unit(trained[0].rows["validation"]), task.validation.ids, cost
      ),
    )
    for part in ("train", "validation"):
      similarities = []
      for seed, run_ in enumerate(trained):
        ids = getattr(task, part).ids
        head = fit(feature, unit(run_.rows[part]), ids, seed, cost)
        similarities.append(scores(head, feature, unit(run_.rows["test"])))
      found[f"{name}, fitted on {part} people"] = {
        **_measured(similarities, task), "inverse_regularisation": cost
      }  # fmt: skip
  return found


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Fits heads on the networks of the table's main part."""
  setting = compare_systems.SETTINGS[data]
  found = {}
  for network in NETWORKS:
    _, trained, _ = compare_losses.run_of(runs, network, tasks[0], setting)
    found[network] = _of_network(trained, tasks[0])
  return {
    "networks": found,
    "seeds": len(compare_systems.SEEDS),
    "genuine_pairs_at_most": _GENUINE,
  }
