"""The systems that are compared: how each is trained and how it scores."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import compare_data
import compare_training
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax

from facesiam_jax import metrics, ops
from facesiam_jax.training import config as config_lib

RATES = (1e-3, 3e-3)
SEEDS = (0, 1, 2)
DIM = 128


@dataclasses.dataclass(frozen=True)
class Network:
  """How a network is trained.

  Attributes:
    objective: its class, by name or import path.
    args: of the objective, besides the batch's size.
    head: by name; trained only where the objective does.
    own: its own score: "head", "euclidean" (distances of the embeddings as
      they are) or "cosine".
  """

  objective: str
  args: dict[str, Any]
  head: str
  own: str


_HERE = "compare_objectives:"
NETWORKS = {
  "difference": Network(
    _HERE + "AllPairsBce", {}, "abs_difference_logistic", "head"
  ),
  "chi_square": Network(
    _HERE + "AllPairsBce", {}, "chi_square_logistic", "head"
  ),
  "euclidean": Network(_HERE + "AllPairsBce", {}, "euclidean_logistic", "head"),
  "contrastive": Network(
    _HERE + "AllPairsContrastive", {}, "euclidean_logistic", "euclidean"
  ),
  "triplet_as_written": Network(
    _HERE + "AllTriplets", {"as_written": True}, "cosine_logistic", "cosine"
  ),
  "triplet_as_run": Network(
    _HERE + "AllTriplets", {}, "euclidean_logistic", "euclidean"
  ),
  "classifier": Network(
    _HERE + "Classes", {}, "euclidean_logistic", "euclidean"
  ),
  "supcon": Network(
    "supcon", {"temperature": 0.1}, "cosine_logistic", "cosine"
  ),
}


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all networks of a data set share.

  Attributes:
    num_people: P of a batch.
    images_per_person: K.
    num_steps: of a run.
    contrast_sigma: of the encoder, see `encoders.cnn.SmallCNN`.
    augment: strengths that are not 0.
  """

  num_people: int
  images_per_person: int
  num_steps: int
  contrast_sigma: float
  augment: dict[str, float]


SETTINGS = {
  "olivetti": Setting(
    16,
    4,
    100,
    0.0,
    {
      "flip": 0.5,
      "rotation_deg": 15.0,
      "shear_deg": 8.0,
      "scale": 0.12,
      "shift": 0.06,
      "gain": 0.2,
      "offset": 0.1,
      "gradient": 0.4,
      "erase": 0.45,
    },
  ),
  "celeba": Setting(
    16,
    4,
    300,
    3.0,
    {
      "flip": 0.5,
      "rotation_deg": 8.0,
      "scale": 0.08,
      "shift": 0.04,
      "gain": 0.2,
      "offset": 0.1,
      "gradient": 0.3,
      "erase": 0.4,
    },
  ),
}


def config_of(
  network: Network, setting: Setting, dim: int = DIM
) -> ml_collections.ConfigDict:
  """Returns the training config, with a learning rate of 1."""
  config = config_lib.default_config()
  with config.unlocked():
    config.image_size = compare_data.SIDE
    config.num_steps = setting.num_steps
    config.encoder.name = "small_cnn"
    config.encoder.args = {
      "widths": (16, 48, 96),
      "dim": dim,
      "shrink": 2,
      "contrast_sigma": setting.contrast_sigma,
    }
    config.head.name = network.head
    config.objective.name = network.objective
    config.objective.args = {
      "num_people": setting.num_people,
      "images_per_person": setting.images_per_person,
      **network.args,
    }
    config.standardize.kind = "per_image"
    config.augment.update(setting.augment)
    config.optimizer.learning_rate = 1.0
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 2.0
  return config


@dataclasses.dataclass(frozen=True)
class Run:
  """A trained network's embeddings and what its own score needs.

  Attributes:
    key: of the run, a name no other has.
    rows: "train", "seen", "validation", "test" -> float32 [N, D].
    head: the head's parameters.
    objective: the objective's own, {} where it has none.
    seconds: training took.
  """

  key: str
  rows: dict[str, np.ndarray]
  head: dict[str, np.ndarray]
  objective: dict[str, np.ndarray]
  seconds: float


class Runs:
  """Trains networks, and keeps in a folder what came of them."""

  def __init__(self, folder: pathlib.Path) -> None:
    """Makes the folder."""
    self._folder = folder
    self._trainers: dict[str, compare_training.Trainer] = {}
    folder.mkdir(parents=True, exist_ok=True)

  def trainer(
    self, config: ml_collections.ConfigDict, num_people: int
  ) -> compare_training.Trainer:
    """Returns the trainer of a config, always the same one."""
    key = f"{num_people} {config_lib.to_json(config)}"
    if key not in self._trainers:
      shape = (compare_data.SIDE, compare_data.SIDE, 1)
      self._trainers[key] = compare_training.Trainer(config, shape, num_people)
    return self._trainers[key]

  def get(
    self,
    config: ml_collections.ConfigDict,
    task: compare_data.Task,
    seed: int,
    rate: float,
  ) -> Run:
    """Returns a run, trained now or in an earlier call."""
    about = [config_lib.to_json(config), task.name, len(task.train.ids)]
    digest = hashlib.sha256(json.dumps([*about, seed, rate]).encode())
    key = f"{task.name}-{digest.hexdigest()[:16]}"
    arrays = self.kept(key, lambda: self._train(config, task, seed, rate))
    groups: dict[str, dict[str, np.ndarray]] = {
      "rows": {}, "head": {}, "objective": {}
    }  # fmt: skip
    for name, array in arrays.items():
      group, _, part = name.partition(".")
      if group in groups:
        groups[group][part] = array
    return Run(key, seconds=float(arrays["seconds"]), **groups)

  def kept(
    self, key: str, make: Callable[[], dict[str, np.ndarray]]
  ) -> dict[str, np.ndarray]:
    """Returns arrays that an earlier call made under this key, or makes them.

    The folder is to be removed when what makes them is changed.
    """
    path = self._folder / f"{key}.npz"
    if not path.is_file():
      part = path.with_suffix(".part.npz")
      np.savez(part, **make())
      part.replace(path)
    with np.load(path) as arrays:
      return dict(arrays)

  def _train(
    self,
    config: ml_collections.ConfigDict,
    task: compare_data.Task,
    seed: int,
    rate: float,
  ) -> dict[str, np.ndarray]:
    trainer = self.trainer(config, len(np.unique(task.train.ids)))
    trained = trainer.fit(
      task.train.images, task.train.ids, seed=seed, rate=rate
    )
    params = jax.device_get(trained.state.eval_params)
    arrays = {
      f"rows.{part}": trainer.embed(trained.state, getattr(task, part).images)
      for part in ("train", "seen", "validation", "test")
    }
    for group in ("head", "objective"):
      arrays |= {f"{group}.{name}": x for name, x in params[group].items()}
    return arrays | {"seconds": np.float64(trained.seconds)}


@jax.jit
def cosines(x: np.ndarray, y: np.ndarray) -> jax.Array:
  """Returns cosines of all pairs of rows, float32 [A, B]."""
  return ops.pairwise_cosine_similarity(x, y)


@jax.jit
def nearness(x: np.ndarray, y: np.ndarray) -> jax.Array:
  """Returns negative Euclidean distances of all pairs, float32 [A, B]."""
  return -ops.pairwise_euclidean_distance(x, y)


def head_scorer(network: Network) -> Callable[..., jax.Array]:
  """Returns (head's parameters, x [A, D], y [B, D]) -> logits [A, B]."""
  from facesiam_jax import heads

  head = heads.create(network.head)

  def scores(params: Any, x: np.ndarray, y: np.ndarray) -> jax.Array:
    every = jnp.asarray(y)
    return lax.map(
      lambda row: head.apply(
        {"params": params}, jnp.broadcast_to(row, every.shape), every
      ),
      jnp.asarray(x),
    )

  return jax.jit(scores)


class Scorer:
  """A row's own score, compiled once."""

  def __init__(self, network: Network) -> None:
    """Builds the function."""
    self._network = network
    self._head = head_scorer(network) if network.own == "head" else None

  def __call__(self, run: Run, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns scores of all pairs of rows, bigger is closer, [A, B]."""
    if self._head is not None:
      return np.asarray(self._head(run.head, x, y))
    compare = cosines if self._network.own == "cosine" else nearness
    return np.asarray(compare(x, y))


def logits_of(run: Run, rows: np.ndarray) -> np.ndarray:
  """Returns a classifier's logits of embeddings [N, D], float32 [N, M]."""
  return rows @ run.objective["centers"].T + run.objective["bias"]


def pair_scores(
  similarity: np.ndarray, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the score of each pair of images, and whether it is genuine."""
  i, j = np.triu_indices(len(ids), 1)
  return similarity[i, j].astype(np.float64), ids[i] == ids[j]


def choose_rate(
  runs: Runs,
  scorer: Scorer,
  config: ml_collections.ConfigDict,
  task: compare_data.Task,
) -> tuple[float, dict[str, float]]:
  """Tries the rates with the first seed on the validation people.

  Returns:
    The rate of the lowest equal error rate by the own score, and all of them.
  """
  errors = {}
  for rate in RATES:
    run = runs.get(config, task, SEEDS[0], rate)
    rows = run.rows["validation"]
    scores = pair_scores(scorer(run, rows, rows), task.validation.ids)
    errors[rate] = metrics.eer(*scores).rocch
  best = min(errors, key=lambda rate: errors[rate])
  return best, {f"{rate:g}": value for rate, value in errors.items()}
