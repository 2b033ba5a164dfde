"""A tiny config and random faces: seconds, not minutes, on a CPU."""

import numpy as np

from facesiam_jax.data import sets
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import split as split_lib


class Faces:
  """Eight people who differ in a coarse pattern, six noisy images each."""

  def __init__(self, size: int = 16) -> None:
    rng = np.random.default_rng(0)
    patterns = rng.integers(40, 216, (8, 1, 4, 4)).repeat(6, axis=1)
    patterns = patterns.repeat(size // 4, axis=2).repeat(size // 4, axis=3)
    noise = rng.normal(0, 20, patterns.shape)
    images = np.clip(patterns + noise, 0, 255).astype(np.uint8)
    self.images = images.reshape(48, size, size, 1)
    self.identity_ids = np.repeat(np.arange(8, dtype=np.int32), 6)
    self.names = tuple(f"person{i}" for i in range(8))


def load(config, image_size):
  """A data set for config.dataset.name = "tiny:load"."""
  people = tuple(range(6))
  count = config.num_validation
  return sets.DataSet(
    Faces(image_size), people[count:], people[:count], test=(6, 7)
  )


def config(objective="pair_bce", **changes):
  """A config of a few steps; keyword arguments are dotted fields with __."""
  c = config_lib.default_config()
  with c.unlocked():
    c.dataset.name = "tiny:load"
    c.dataset.num_validation = 2
    c.image_size = 16
    c.num_steps = 6
    c.log_every = 1
    c.eval_every = 2
    c.checkpoint_every = 2
    c.encoder.args = {"widths": (4, 6, 8), "dim": 10}
    c.augment.flip = 0.5
    c.augment.rotation_deg = 10.0
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.05
    c.optimizer.schedule = "constant"
    c.objective.name = objective
    if objective == "pair_bce":
      c.head.name = "euclidean_logistic"
      c.objective.args = {"num_pairs": 16}
    elif objective == "contrastive":
      c.head.name = "euclidean_logistic"
      c.objective.args = {"num_pairs": 16, "margin": 0.5}
    elif objective == "triplet":
      c.head.name = "euclidean_logistic"
      c.objective.args = {"num_triplets": 16, "margin": 0.5}
    elif objective in ("softmax", "margin_softmax", "partial_fc"):
      c.objective.args = {"num_images": 16}
    else:
      c.objective.args = {"num_people": 4, "images_per_person": 4}
    for name, value in changes.items():
      part, field = c, name.split("__")
      for step in field[:-1]:
        part = part[step]
      part[field[-1]] = value
  return c


def split():
  """All tiny faces as a training split."""
  faces = Faces()
  return split_lib.Split(faces.images, faces.identity_ids)
