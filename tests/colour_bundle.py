"""An uncalibrated bundle for colour faces, as an import writes it."""

import numpy as np
from flax import linen as nn

from facesiam_jax.pretrained import importing, source


class Colours(nn.Module):
  """The mean colours of the four quarters of a face as its embedding."""

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    del train, rows
    count, height, width, channels = images.shape
    shape = (count, 2, height // 2, 2, width // 2, channels)
    return images.reshape(shape).mean(axis=(2, 4)).reshape(count, -1)


def save(
  path,
  *,
  metric="cosine",
  threshold=0.2,
  size=8,
  alignment="eyes_of_somebody",
):
  """Writes the bundle."""
  made_up = source.Source(
    encoder="tests.colour_bundle:Colours",
    args={},
    size=size,
    channels=3,
    standardize={"kind": "fixed", "mean": [0.1, 0.2, 0.3], "std": 0.5},
    alignment=alignment,
    metric=metric,
    threshold=threshold,
    reference="nobody",
    licence="none",
  )
  variables = {"params": {"unused": np.zeros(1, np.float32)}}
  return importing.write(path, made_up, variables)
