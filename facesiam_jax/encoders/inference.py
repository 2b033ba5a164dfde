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

from facesiam_jax import fusion, ops, preprocess, warping


def block_size(platform: str | None = None) -> int:
  """Returns how many faces go through a network at once.

  All go in blocks of one size, filled up with black, so that an embedding has
  the same bits whatever it was computed together with. On CPU small ones: one
  photo then costs a quarter of what it does in 32, and of many each at most
  1.06 times as much (five networks, two cores).

  Args:
    platform: "cpu", "gpu" or "tpu"; None for JAX's default.
  """
  return 8 if (platform or jax.default_backend()) == "cpu" else 32


@dataclasses.dataclass(frozen=True)
class Settings:
  """What turns uint8 faces into embeddings, besides the network.

  Attributes:
    standardize: arguments of `preprocess.standardize`.
    normalize: True gives unit embeddings (for cosines), False leaves them as
      they come (for Euclidean distances).
    mirror: whether the mirrored face is embedded too and the two averaged.
    shift: fraction of the side; above 0, the face moved by that much in the
      four directions is embedded too.
    scale: above 0, the face enlarged and reduced by the factor 1 + scale is
      embedded too.
  """

  standardize: dict[str, Any]
  normalize: bool
  mirror: bool = False
  shift: float = 0.0
  scale: float = 0.0


def _moved(images: jax.Array, settings: Settings) -> Iterator[jax.Array]:
  """Yields the images and the copies of them that the settings ask for."""
  yield images
  batch, height, width = images.shape[:3]
  eye = jnp.broadcast_to(jnp.eye(2), (batch, 2, 2))
  view = lambda *how: fusion.settled(warping.warp(images, *how))
  if settings.shift:
    for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1)):
      by = jnp.array([y * settings.shift * height, x * settings.shift * width])
      yield view(eye, jnp.broadcast_to(by, (batch, 2)))
  if settings.scale:
    for factor in (1 + settings.scale, 1 / (1 + settings.scale)):
      yield view(eye / factor, jnp.zeros((batch, 2)))


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
  for view in _moved(preprocess.to_float(images), settings):
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
