"""From uint8 faces to what an encoder reads: pure, the same everywhere.

Training, evaluation and a model bundle call the same two functions, so the
preprocessing cannot differ between them.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
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


def _per_channel(
  name: str, value: float | Sequence[float], channels: int
) -> jax.Array:
  """Returns `value` as a float32 scalar or [1, 1, 1, C]."""
  values = np.asarray(value, np.float64)
  if values.ndim > 1 or values.size not in (1, channels):
    raise ValueError(
      f"{name} must be one number or a list of {channels}, one a channel, got "
      f"{value!r}."
    )
  if not np.isfinite(values).all() or (name == "std" and values.min() <= 0):
    wanted = "positive" if name == "std" else "finite"
    raise ValueError(f"{name} must be {wanted}, got {value!r}.")
  shape = (1, 1, 1, -1) if values.ndim else ()
  return jnp.asarray(values, jnp.float32).reshape(shape)


def standardize(
  images: ArrayLike,
  *,
  kind: str,
  mean: float | Sequence[float] = 0.5,
  std: float | Sequence[float] = 0.5,
) -> jax.Array:
  """Shifts and scales pixels to what the encoder was trained on.

  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C] in 0..1; colour is RGB.
    kind: "fixed", (x - mean) / std; or "per_image", each image by the mean and
      standard deviation of all its numbers (floored at 1/255, so that a flat
      image gives zeros).
    mean: for "fixed": one number, or a list with one a channel; 0..1.
    std: for "fixed": likewise, > 0.

  Returns:
    float32 [B, H, W, C].

  Raises:
    ValueError: for an unknown kind, a list of another length than C, or a mean
      or std that is not finite, or a std that is not positive.

  Degenerate input: B == 0 gives an empty result.
  """
  images = jnp.asarray(images).astype(jnp.float32)
  if kind == "fixed":
    channels = images.shape[-1]
    centred = images - _per_channel("mean", mean, channels)
    return centred / _per_channel("std", std, channels)
  if kind == "per_image":
    axes = (1, 2, 3)
    centred = images - jnp.mean(images, axis=axes, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=axes, keepdims=True)
    return centred / jnp.sqrt(jnp.maximum(variance, 1.0 / 255.0**2))
  raise ValueError(f"unknown standardize kind {kind!r}; choose from {KINDS}.")
