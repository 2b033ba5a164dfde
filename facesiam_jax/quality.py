"""How good a picture of a face is for recognising it.

Pure functions of aligned faces and of landmarks, each a number that needs no
training: sharpness, light, contrast, evenness of the light, and proxies of the
pose. None of them is a probability; they order pictures of like kind, and a
floor under each keeps the hopeless ones out.

References: ISO/IEC 29794-5 (what to measure); Pech-Pacheco et al. 2000, Diatom
autofocusing in brightfield microscopy (the Laplacian as a measure of focus).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

# ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)
_LAPLACIAN = ((0, 1, 0), (1, -4, 1), (0, 1, 0))
# Where the nose's tip lies between eyes and mouth in dlib's mean face.
_LEVEL_NOSE = 0.531


def _gray(images: ArrayLike) -> jax.Array:
  """Returns [B, H, W] in 0..1 of uint8 [B, H, W, C]."""
  images = jnp.asarray(images)
  if images.dtype != jnp.uint8 or images.ndim != 4:
    raise ValueError(
      f"images must be uint8 [B, H, W, C], got {images.dtype} {images.shape}."
    )
  if images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
    raise ValueError(
      f"images must have 1 or 3 channels and pixels, got {images.shape}."
    )
  weights = jnp.asarray(_LUMA if images.shape[3] == 3 else (1.0,))
  # A sum, not a matrix product, which some devices round.
  return (images * weights.reshape(1, 1, 1, -1)).sum(-1) / 255


def sharpness(images: ArrayLike) -> jax.Array:
  """Measures how sharp faces are.

  Standard deviation of the Laplacian over that of the picture: fine detail in
  parts of all detail, so that neither light nor contrast matter.
  Batch meaning: rows are independent.

  Args:
    images: aligned faces of one size, uint8 [B, H, W, C].

  Returns:
    float32 [B], >= 0. Of faces of 150 pixels: 0.1 to 0.7 in photos of usual
    size, 0.05 where a face of 25 pixels was enlarged.

  Raises:
    ValueError: for other images.

  Degenerate input: a picture of one grey is not sharp: 0. So is one of less
  than 3x3 pixels.
  """
  gray = _gray(images)
  height, width = gray.shape[1:]
  if min(height, width) < 3:
    return jnp.zeros(gray.shape[0])
  part = lambda y, x: gray[:, y : height - 2 + y, x : width - 2 + x]
  laplacian = jnp.zeros_like(part(1, 1))
  for y, row in enumerate(_LAPLACIAN):
    for x, weight in enumerate(row):
      laplacian += weight * part(y, x)
  # Below one grey level there is nothing but rounding.
  spread = jnp.maximum(gray.std(axis=(1, 2)), 1 / 255)
  return laplacian.std(axis=(1, 2)) / spread


def light(images: ArrayLike) -> jax.Array:
  """Returns the mean brightness of faces.

  Args:
    images: aligned faces, uint8 [B, H, W, C].

  Returns:
    float32 [B], 0 for black to 1 for white.

  Raises:
    ValueError: for other images.
  """
  return _gray(images).mean(axis=(1, 2))


def contrast(images: ArrayLike) -> jax.Array:
  """Returns the standard deviation of the brightness of faces.

  Args:
    images: aligned faces, uint8 [B, H, W, C].

  Returns:
    float32 [B], 0 for an even grey to 0.5 for black and white.

  Raises:
    ValueError: for other images.
  """
  return _gray(images).std(axis=(1, 2))


def evenness(images: ArrayLike) -> jax.Array:
  """Compares the light on both halves of faces.

  Args:
    images: aligned faces, uint8 [B, H, W, C].

  Returns:
    The darker half's mean over the brighter half's, float32 [B], in 0..1; 1
    where light falls from the front.

  Raises:
    ValueError: for other images.

  Degenerate input: black pictures are even: 1.
  """
  gray = _gray(images)
  half = max(gray.shape[2] // 2, 1)
  sides = jnp.stack(
    [gray[:, :, :half].mean(axis=(1, 2)), gray[:, :, -half:].mean(axis=(1, 2))]
  )
  brighter = sides.max(axis=0)
  known = brighter > 0
  return jnp.where(known, sides.min(axis=0) / jnp.where(known, brighter, 1), 1)


def _across_and_down(eyes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the eyes' distance [B], and unit vectors [B, 2] of a face."""
  line = eyes[:, 1] - eyes[:, 0]
  squared = (line**2).sum(-1)
  apart = jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
  across = line / apart[:, None]
  down = jnp.stack([-across[:, 1], across[:, 0]], axis=-1)
  return jnp.where(squared > 0, apart, jnp.nan), across, down


def roll(eyes: ArrayLike) -> jax.Array:
  """Returns by how much faces are turned in the picture's plane.

  Args:
    eyes: (x, y) in pixels, the picture's left one first, float [B, 2, 2].

  Returns:
    Radians, float32 [B], in -pi..pi; 0 upright, positive clockwise as seen. NaN
    where the eyes coincide.

  Raises:
    ValueError: for another shape.
  """
  eyes = _points("eyes", eyes, 2)
  apart, across, _ = _across_and_down(eyes)
  return jnp.where(
    jnp.isnan(apart), jnp.nan, jnp.arctan2(across[:, 1], across[:, 0])
  )


def yaw(eyes: ArrayLike, nose: ArrayLike) -> jax.Array:
  """Tells how far faces are turned to a side, from eyes and nose.

  The nose's place along the line of the eyes, from their middle, in distances
  of the eyes. A proxy: no angle, and near faces and long noses have more of it.

  Args:
    eyes: (x, y) in pixels, the picture's left one first, float [B, 2, 2].
    nose: its tip or base, float [B, 2].

  Returns:
    float32 [B]; 0 from the front, about 0.5 in half profile, positive to the
    picture's right. NaN where the eyes coincide.

  Raises:
    ValueError: for another shape.
  """
  eyes = _points("eyes", eyes, 2)
  nose = _points("nose", jnp.asarray(nose)[:, None], 1)[:, 0]
  apart, across, _ = _across_and_down(eyes)
  return ((nose - eyes.mean(axis=1)) * across).sum(-1) / apart


def pitch(landmarks: ArrayLike) -> jax.Array:
  """Tells how far faces look up or down, from ArcFace's five landmarks.

  The nose tip's place on the way from the eyes to the mouth, 0..1, less what it
  is in a face held level. A proxy, no angle.

  Args:
    landmarks: eyes, tip of the nose, mouth corners, (x, y), float [B, 5, 2].

  Returns:
    float32 [B]; 0 level, positive looking down. NaN where eyes and mouth lie on
    one line or the eyes coincide.

  Raises:
    ValueError: for another shape.
  """
  landmarks = _points("landmarks", landmarks, 5)
  apart, _, down = _across_and_down(landmarks[:, :2])
  middle = landmarks[:, :2].mean(axis=1)
  mouth = ((landmarks[:, 3:].mean(axis=1) - middle) * down).sum(-1)
  nose = ((landmarks[:, 2] - middle) * down).sum(-1)
  # A tenth of the eyes' distance: the mouth is elsewhere than in any face.
  known = jnp.abs(mouth) > 0.1 * apart
  place = nose / jnp.where(known, mouth, 1)
  return jnp.where(known, place - _LEVEL_NOSE, jnp.nan)


def _points(name: str, points: ArrayLike, count: int) -> jax.Array:
  points = jnp.asarray(points, jnp.float32)
  if points.ndim != 3 or points.shape[1:] != (count, 2):
    raise ValueError(
      f"{name} must be [B, {count}, 2] points, got shape {points.shape}."
    )
  return points
