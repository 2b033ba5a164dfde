"""Cuts a found face out of its photo, as a network's template wants it."""

import functools
import math
from typing import Any

import cv2
import numpy as np

from facesiam_jax import errors
from facesiam_jax.faces import framing
from facesiam_jax.faces.detectors import DEFAULTS, Face

# Sides of the part of a photo that is given to JAX: few sizes, so that few
# programs are compiled.
_SMALLEST_PART = 256
# Larger faces are shrunk by whole blocks of pixels first.
_LARGEST_SCALE = 4
# Pixels around the face, in those of the aligned picture, for the smoothing.
_MARGIN = 6


def check_alignment(alignment: str) -> None:
  """Raises UserError if no face can be cut out for a template."""
  if alignment not in DEFAULTS:
    raise errors.UserError(
      f"--bundle takes faces framed as {alignment!r}, and photos are not cut "
      "out that way here; give square pictures framed so already, with "
      "--cropped."
    )


def cut(
  image: np.ndarray, face: Face, *, alignment: str, size: int
) -> np.ndarray:
  """Cuts one face out of a photo.

  Args:
    image: the photo, uint8 [H, W, C].
    face: where it is.
    alignment: "olivetti", or a template of `facesiam_jax.alignment`.
    size: side of the result in pixels.

  Returns:
    uint8 [size, size, C].

  Raises:
    UserError: for another alignment, or a face without extent.
  """
  check_alignment(alignment)
  if np.ptp(face.eyes, axis=0).max() < 1e-3:
    raise errors.UserError(
      "the eyes of a face coincide; choose another --detector."
    )
  if alignment == "olivetti":
    planes = np.moveaxis(image, -1, 0)
    cut_planes = [framing.align(p, face.eyes, size=size) for p in planes]
    return np.stack(cut_planes, axis=-1)
  landmarks, kind = _landmarks(face, alignment)
  fit, warp, halvings = _compiled(alignment, kind, size)
  matrix = np.asarray(fit(landmarks.astype(np.float32)), np.float64)
  part, matrix = _part(image, matrix, size)
  level = halvings(matrix, len(part))
  aligned = warp(part[None], matrix[None].astype(np.float32), level)
  return np.clip(np.rint(np.asarray(aligned)[0]), 0, 255).astype(np.uint8)


def _landmarks(face: Face, alignment: str) -> tuple[np.ndarray, str]:
  """Returns what fits a template best, and of which kind it is."""
  first = "corners" if alignment == "dlib_150" else "five"
  given = {"five": face.landmarks, "corners": face.corners}
  for kind in (first, *given):
    points = given[kind]
    if points is not None:
      return points, kind
  return face.eyes, "eyes"


@functools.cache
def _compiled(alignment: str, kind: str, size: int) -> tuple[Any, Any, Any]:
  """Returns the fit to the template and the warp, jitted, and its level."""
  import jax

  from facesiam_jax import alignment as alignment_lib

  to_image, warp = alignment_lib.to_image, alignment_lib.warp
  return (
    jax.jit(lambda points: to_image(points, alignment, kind=kind, size=size)),
    jax.jit(
      lambda images, matrices, level: warp(
        images, matrices, size=size, level=level
      ),
      static_argnums=2,
    ),
    functools.partial(alignment_lib.halvings, size=size),
  )


def _part(
  image: np.ndarray, matrix: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts the square that the face needs, and shrinks it if it is large.

  What lies beyond the photo is black, as `alignment.warp` has it.

  Args:
    image: the photo, uint8 [H, W, C].
    matrix: from the aligned picture to the photo, float64 [2, 3].
    size: side of the aligned picture in pixels.

  Returns:
    The square, and the matrix that leads to it instead of to the photo.
  """
  scale = np.hypot(*matrix[:, 0])
  shrink = 1
  while scale > _LARGEST_SCALE * shrink:
    shrink *= 2
  reach = scale * (math.hypot(size, size) / 2 + _MARGIN)
  # More than the whole photo is never needed.
  needed = min(2 * reach, 2 * max(image.shape)) / shrink
  side = _SMALLEST_PART
  while side < needed:
    side *= 2
  centre = matrix @ (size / 2, size / 2, 1)
  # On whole blocks, so that what lies left and above of the photo is blocks.
  corner = np.floor(centre / shrink - side / 2).astype(int) * shrink
  start = np.clip(corner, 0, image.shape[1::-1])
  end = np.clip(corner + side * shrink, 0, image.shape[1::-1])
  inside = image[start[1] : end[1], start[0] : end[0]]
  inside = _shrunk(inside, shrink)
  part = np.zeros((side, side, image.shape[2]), np.uint8)
  left, top = (start - corner) // shrink
  height, width = inside.shape[:2]
  part[top : top + height, left : left + width] = inside
  moved = matrix.copy()
  moved[:, 2] -= corner
  return part, moved / shrink


def _shrunk(image: np.ndarray, times: int) -> np.ndarray:
  """Takes the mean of each block of pixels; black ones fill the last blocks."""
  if times == 1 or not image.size:
    return image
  height, width, channels = image.shape
  bottom, right = -height % times, -width % times
  padded = np.pad(image, ((0, bottom), (0, right), (0, 0)))
  size = (padded.shape[1] // times, padded.shape[0] // times)
  small = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
  # OpenCV drops the axis of a single channel.
  return small.reshape(*size[::-1], channels)
