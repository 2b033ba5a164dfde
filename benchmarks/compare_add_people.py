"""A new person among a hundred: enrolled, or given an output of their own.

Both networks learn the hundred people. A gallery takes the new one by the mean
of the embeddings of a few photos. A classifier gets a further output and is
trained on, with all photos of the others beside the new ones: its last layer
alone, or all of it. Then photos that no one has used are named among all 101.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import compare_data
import compare_systems
import jax
import jax.numpy as jnp
import numpy as np
import optax

from facesiam_jax import losses, ops, parallel

OLD, NEW, PROBES = 100, 8, 5
PHOTOS = (1, 2, 5)
SEEDS = (0, 1)
_MOST = max(PHOTOS)
_LAYER_STEPS, _LAYER_RATE = 300, 1e-2
_WHOLE_STEPS, _WHOLE_SHARE = 100, 0.3


class People(NamedTuple):
  """The hundred and the newcomers.

  Attributes:
    train: photos of the old to learn from; ids 0..OLD - 1.
    probes: other photos of the old.
    enrol: photos of each newcomer, [_MOST, ...] each.
    new_probes: other photos of each newcomer.
  """

  train: compare_data.Photos
  probes: compare_data.Photos
  enrol: list[np.ndarray]
  new_probes: list[np.ndarray]


def choose_people(photos: compare_data.Photos) -> People:
  """Draws the hundred, the newcomers and who is a probe."""
  rng = np.random.default_rng(0)
  enough = compare_data.at_least(photos, _MOST + PROBES)
  people = rng.permutation(np.unique(enough.ids))
  old, new = people[:OLD], people[OLD : OLD + NEW]
  if len(new) < NEW:
    raise ValueError(
      f"{len(people)} people have photos enough, not {OLD + NEW}"
    )
  train, probes = compare_data.split_photos(enough.of(old), PROBES)
  place = {person: n for n, person in enumerate(np.sort(old))}
  number = lambda some: compare_data.Photos(
    some.images, np.array([place[p] for p in some.ids])
  )
  drawn = [rng.permutation(np.flatnonzero(enough.ids == p)) for p in new]
  return People(
    number(train),
    number(probes),
    [enough.images[rows[:_MOST]] for rows in drawn],
    [enough.images[rows[_MOST : _MOST + PROBES]] for rows in drawn],
  )


def with_output(objective: dict[str, Any], row: np.ndarray) -> dict[str, Any]:
  """Returns a classifier's last layer with one output more.

  Args:
    objective: centers, float [M, D], and bias, [M].
    row: the new output's weights, float [D]; its bias is 0.
  """
  return {
    "centers": jnp.concatenate([objective["centers"], row[None]]),
    "bias": jnp.append(objective["bias"], 0.0),
  }


@jax.jit
def fit_last_layer(
  layer: dict[str, Any], rows: np.ndarray, ids: np.ndarray
) -> dict[str, Any]:
  """Trains a last layer on embeddings that stay, every class weighing alike.

  Args:
    layer: centers, float [M, D], and bias, [M].
    rows: embeddings, float [N, D].
    ids: classes, int [N].
  """
  optimizer = optax.adam(_LAYER_RATE)
  counts = jnp.zeros(layer["bias"].shape).at[ids].add(1.0)
  weights = 1.0 / counts[ids]

  def loss(layer: dict[str, Any]) -> jax.Array:
    logits = ops.pairwise_dot(rows, layer["centers"]) + layer["bias"][None]
    return ops.masked_mean(*losses.softmax_cross_entropy(logits, ids, weights))

  def step(carry: Any, _: None) -> tuple[Any, None]:
    layer, state = carry
    updates, state = optimizer.update(jax.grad(loss)(layer), state, layer)
    return (optax.apply_updates(layer, updates), state), None

  start = (layer, optimizer.init(layer))
  return jax.lax.scan(step, start, None, length=_LAYER_STEPS)[0][0]


class Answers(NamedTuple):
  """Shares of photos that were named rightly among the 101, and seconds."""

  new: float
  old: float
  seconds: float


def _answers(
  name: Callable[[np.ndarray], np.ndarray],
  people: People,
  newcomer: int,
  seconds: float,
) -> Answers:
  """name: uint8 photos -> numbers of people."""
  new = name(people.new_probes[newcomer]) == OLD
  old = name(people.probes.images) == people.probes.ids
  return Answers(float(new.mean()), float(old.mean()), seconds)


def _unit(rows: np.ndarray) -> np.ndarray:
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _templates(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
  unit = _unit(rows)
  return np.stack([unit[ids == p].mean(axis=0) for p in range(ids.max() + 1)])


class _Learned:
  """A network that knows the hundred."""

  def __init__(
    self,
    runs: compare_systems.Runs,
    network: str,
    tasks: list[compare_data.Task],
    people: People,
    seed: int,
  ) -> None:
    about = compare_systems.NETWORKS[network]
    setting = compare_systems.SETTINGS["celeba"]
    self.seed = seed
    self.config = compare_systems.config_of(about, setting)
    self.rate, _ = compare_systems.choose_rate(
      runs, compare_systems.Scorer(about), self.config, tasks[0]
    )
    self.trainer = runs.trainer(self.config, OLD)
    train = people.train
    self.state = self.trainer.fit(
      train.images, train.ids, seed=seed, rate=self.rate
    ).state
    self.rows = self.embed(train.images)
    self.templates = _templates(self.rows, train.ids)

  def embed(self, images: np.ndarray) -> np.ndarray:
    return self.trainer.embed(self.state, images)

  def enrol(self, people: People, newcomer: int, photos: int) -> Answers:
    """The new one's template beside the hundred's; nothing is trained."""
    images = people.enrol[newcomer][:photos]
    self.embed(images)  # Compiles for so many photos.
    begun = time.monotonic()
    template = _unit(self.embed(images)).mean(axis=0)
    templates = np.concatenate([self.templates, template[None]])
    seconds = time.monotonic() - begun
    gallery = _unit(templates)
    name = lambda images: (_unit(self.embed(images)) @ gallery.T).argmax(axis=1)
    return _answers(name, people, newcomer, seconds)


def _together(
  people: People, newcomer: int, photos: int
) -> tuple[np.ndarray, np.ndarray]:
  """All photos; the new one's come in turn until they are _MOST.

  So a compiled function fits any number of them, and batches draw a photo
  again where a person has too few in any case.
  """
  turn = np.arange(_MOST) % photos
  images = np.concatenate([people.train.images, people.enrol[newcomer][turn]])
  return images, np.append(people.train.ids, np.full(_MOST, OLD))


def _layer(learned: _Learned, newcomer: int) -> dict[str, Any]:
  centers = learned.state.params["objective"]["centers"]
  rng = np.random.default_rng(newcomer)
  row = rng.normal(size=centers.shape[1]) / centers.shape[1] ** 0.5
  return with_output(learned.state.params["objective"], row.astype(np.float32))


def _last_layer(
  learned: _Learned, people: People, newcomer: int, photos: int
) -> Answers:
  images, ids = _together(people, newcomer, photos)
  layer = _layer(learned, newcomer)
  begun = time.monotonic()
  rows = np.concatenate([learned.rows, learned.embed(images[-_MOST:])])
  layer = jax.device_get(fit_last_layer(layer, rows, ids))
  seconds = time.monotonic() - begun

  def name(images: np.ndarray) -> np.ndarray:
    logits = learned.embed(images) @ layer["centers"].T + layer["bias"]
    return logits.argmax(axis=1)

  return _answers(name, people, newcomer, seconds)


def _whole(
  runs: compare_systems.Runs,
  learned: _Learned,
  people: People,
  newcomer: int,
  photos: int,
) -> Answers:
  images, ids = _together(people, newcomer, photos)
  trainer = runs.trainer(learned.config, OLD + 1)
  state = trainer.start(learned.seed)
  params = {
    **state.params,
    "encoder": jax.tree.map(jnp.copy, learned.state.params["encoder"]),
    "objective": _layer(learned, newcomer),
  }
  params = parallel.replicate(params, trainer.mesh)
  trained = trainer.fit(
    images,
    ids,
    seed=learned.seed,
    rate=_WHOLE_SHARE * learned.rate,
    state=state.replace(params=params),
    num_steps=_WHOLE_STEPS,
  )
  layer = jax.device_get(trained.state.params["objective"])

  def name(images: np.ndarray) -> np.ndarray:
    rows = trainer.embed(trained.state, images)
    return (rows @ layer["centers"].T + layer["bias"]).argmax(axis=1)

  return _answers(name, people, newcomer, trained.seconds)


def _before(learned: _Learned, people: People, classes: bool) -> float:
  """Rank-1 of the old among the hundred."""
  rows = learned.embed(people.probes.images)
  layer = jax.device_get(learned.state.params["objective"])
  scores = (
    rows @ layer["centers"].T + layer["bias"]
    if classes
    else _unit(rows) @ _unit(learned.templates).T
  )
  return float((scores.argmax(axis=1) == people.probes.ids).mean())


def _summary(found: list[Answers]) -> dict[str, float]:
  return {
    "rank_1_new": statistics.fmean(one.new for one in found),
    "rank_1_new_lowest_person": min(one.new for one in found),
    "rank_1_new_highest_person": max(one.new for one in found),
    "rank_1_old": statistics.fmean(one.old for one in found),
    "seconds": statistics.median(one.seconds for one in found),
  }


def run(
  runs: compare_systems.Runs, data: str, tasks: list[compare_data.Task]
) -> dict[str, Any]:
  """Adds each newcomer in every way, with every number of photos."""
  del data
  task = tasks[0]
  people = choose_people(
    compare_data.Photos(
      np.concatenate([task.train.images, task.seen.images]),
      np.concatenate([task.train.ids, task.seen.ids]),
    )
  )
  found: dict[str, dict[int, list[Answers]]] = {}
  before: dict[str, list[float]] = {}
  for seed in SEEDS:
    supcon = _Learned(runs, "supcon", tasks, people, seed)
    classes = _Learned(runs, "classifier", tasks, people, seed)
    before.setdefault("enrolled, SupCon", []).append(
      _before(supcon, people, False)
    )
    before.setdefault("classifier", []).append(_before(classes, people, True))
    ways: dict[str, Callable[[int, int], Answers]] = {
      "enrolled, SupCon": lambda n, k, of=supcon: of.enrol(people, n, k),
      "enrolled, classifier's embeddings": (
        lambda n, k, of=classes: of.enrol(people, n, k)
      ),
      "new output, last layer trained": (
        lambda n, k, of=classes: _last_layer(of, people, n, k)
      ),
      "new output, whole network trained": (
        lambda n, k, of=classes: _whole(runs, of, people, n, k)
      ),
    }
    for way, add in ways.items():
      add(0, _MOST)  # Compiles.
      for photos in PHOTOS:
        answers = [add(newcomer, photos) for newcomer in range(NEW)]
        found.setdefault(way, {}).setdefault(photos, []).extend(answers)
  return {
    "ways": {
      way: {str(photos): _summary(some) for photos, some in of.items()}
      for way, of in found.items()
    },
    "rank_1_old_before": {
      way: statistics.fmean(values) for way, values in before.items()
    },
    "old_people": OLD,
    "new_people": NEW,
    "probes_a_person": PROBES,
    "photos_of_old_people": len(people.train.ids),
    "seeds": len(SEEDS),
    "steps": {"last layer": _LAYER_STEPS, "whole": _WHOLE_STEPS},
  }
