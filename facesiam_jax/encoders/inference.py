"""Embeddings of faces, as they are measured and recognised.

One pure function serves training's measurements, the bundle and the gallery,
so that they cannot differ.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import ops, preprocess


@dataclasses.dataclass(frozen=True)
class Settings:
  """What turns uint8 faces into embeddings, besides the network.

  Attributes:
    standardize: arguments of `preprocess.standardize`.
    normalize: True gives unit embeddings (for cosines), False leaves them as
      they come (for Euclidean distances).
    mirror: whether the mirrored face is embedded too and the two averaged.
    shift: pixels; above 0, the face moved by that much in the four directions
      is embedded too.
  """

  standardize: dict[str, Any]
  normalize: bool
  mirror: bool = False
  shift: int = 0


def _shifted(images: jax.Array, shift: int) -> Iterator[jax.Array]:
  """Yields the images and, if shift > 0, four moved copies, edges repeated."""
  yield images
  if not shift:
    return
  height, width = images.shape[1:3]
  pad = ((0, 0), (shift, shift), (shift, shift), (0, 0))
  padded = jnp.pad(images, pad, mode="edge")
  for top, left in ((0, 1), (1, 0), (1, 2), (2, 1)):
    yield padded[
      :,
      top * shift : top * shift + height,
      left * shift : left * shift + width,
    ]


def embed(
  encoder: Any, variables: Any, images: ArrayLike, settings: Settings
) -> jax.Array:
  """Embeds faces; the mean over the views the settings ask for.

  Batch meaning: rows are independent.

  Args:
    encoder: Flax module, (images, train=False) -> embeddings.
    variables: its variables.
    images: faces, uint8 [B, H, W, C].
    settings: preprocessing and views.

  Returns:
    Embeddings, float32 [B, D]; of unit length if `settings.normalize`.

  Raises:
    ValueError: if the images are not uint8 [B, H, W, C].
  """
  views = []
  for view in _shifted(preprocess.to_float(images), settings.shift):
    views.append(view)
    if settings.mirror:
      views.append(view[:, :, ::-1])
  total = jnp.float32(0.0)
  for view in views:
    inputs = preprocess.standardize(view, **settings.standardize)
    embeddings = encoder.apply(variables, inputs, train=False)
    embeddings = embeddings.astype(jnp.float32)
    if settings.normalize:
      embeddings = ops.l2_normalize(embeddings)
    total = total + embeddings
  mean = total / len(views)
  return ops.l2_normalize(mean) if settings.normalize else mean
