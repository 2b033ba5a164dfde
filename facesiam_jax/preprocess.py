"""From uint8 faces to what an encoder reads: pure, the same everywhere.

Training, evaluation and a model bundle call the same two functions, so the
preprocessing cannot differ between them.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

KINDS = ("fixed", "per_image")


def to_float(images: ArrayLike) -> jax.Array:
  """Scales uint8 images to 0..1.

  Args:
    images: uint8 [B, H, W, C].

  Returns:
    float32 [B, H, W, C] in 0..1.

  Raises:
    ValueError: if the images are not uint8 [B, H, W, C].
  """
  images = jnp.asarray(images)
  if images.dtype != jnp.uint8 or images.ndim != 4:
    raise ValueError(
      f"images must be uint8 [B, H, W, C], got {images.dtype} {images.shape}."
    )
  return images.astype(jnp.float32) / 255.0


def standardize(
  images: ArrayLike, *, kind: str, mean: float = 0.5, std: float = 0.5
) -> jax.Array:
  """Shifts and scales grey values to what the encoder was trained on.

  Args:
    images: float [B, H, W, C] in 0..1.
    kind: "fixed", (x - mean) / std; or "per_image", each image by its own
      mean and standard deviation (floored at 1/255, so that a flat image
      gives zeros).
    mean: for "fixed", in 0..1.
    std: for "fixed", > 0.

  Returns:
    float32 [B, H, W, C].

  Raises:
    ValueError: for an unknown kind.
  """
  images = jnp.asarray(images).astype(jnp.float32)
  if kind == "fixed":
    return (images - mean) / std
  if kind == "per_image":
    axes = (1, 2, 3)
    centred = images - jnp.mean(images, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred / jnp.sqrt(jnp.maximum(variance, 1.0 / 255.0**2))
  raise ValueError(f"unknown standardize kind {kind!r}; choose from {KINDS}.")
