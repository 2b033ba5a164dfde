"""Faces of one framing as another framing would show them.

An aligned crop has its landmarks at known places, so that it needs no detector
to be framed anew; a detector often fails on a crop that is tight.
"""

import functools
import math

import cv2
import numpy as np

from facesiam_jax import alignment
from facesiam_jax.data import encoded

# Names that data sets were prepared under before the templates had theirs.
_EARLIER = {"arcface112": "arcface_112", "dlib150": "dlib_150"}
# Both eyes in CelebA's aligned images, 178 x 218 pixels, as parts of that:
# medians of what dlib's 68 points say of some, which scatter by 1.4 pixels.
_CELEBA_EYES = np.array([(70.2, 113.0), (107.7, 113.0)]) / (178, 218)


def places(name: str) -> tuple[np.ndarray, str] | None:
  """Returns where the landmarks lie in faces of a framing.

  Args:
    name: of the framing, as a prepared data set or a bundle has it.

  Returns:
    Places as parts of width and height, float64 [N, 2], and their kind of
    `alignment.KINDS`; None where they are not known.
  """
  name = _EARLIER.get(name, name)
  if name == "celeba":
    return _CELEBA_EYES, "eyes"
  if name in alignment.TEMPLATES:
    return alignment.TEMPLATES[name].places["five"], "five"
  return None


def frame(pixels: np.ndarray, given: str, wanted: str, size: int) -> np.ndarray:
  """Frames a face anew.

  Args:
    pixels: uint8 [H, W] or [H, W, 3], a face of the framing `given`.
    given: name of its framing.
    wanted: name of the framing to make; a template of `alignment`, or the same
      as `given`, which scales the square in the middle.
    size: side of the result in pixels.

  Returns:
    uint8 [size, size] or [size, size, 3]; black where the face ends.

  Raises:
    ValueError: if one of two different framings has no known places.
  """
  if _EARLIER.get(given, given) == _EARLIER.get(wanted, wanted):
    return encoded.square(pixels, size)
  matrix = _matrix(pixels.shape[:2], given, wanted, size)
  # Where the result is smaller, pixels are read close enough and then averaged.
  fine = max(1, math.ceil(np.hypot(*matrix[:, 0])))
  dense = matrix.copy()
  dense[:, :2] /= fine
  # OpenCV's whole numbers are pixel centres, ours lie half a pixel further.
  dense[:, 2] += dense[:, :2].sum(axis=1) * 0.5 - 0.5
  shown = cv2.warpAffine(
    pixels,
    dense,
    (size * fine, size * fine),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
  )
  return cv2.resize(shown, (size, size), interpolation=cv2.INTER_AREA)


@functools.lru_cache(maxsize=1024)
def _matrix(
  shape: tuple[int, int], given: str, wanted: str, size: int
) -> np.ndarray:
  """From pixels of the new picture to those of the face, float64 [2, 3]."""
  found = places(given)
  wanted = _EARLIER.get(wanted, wanted)
  if found is None or wanted not in alignment.TEMPLATES:
    raise ValueError(f"faces framed as {given!r} cannot become {wanted!r}.")
  points, kind = found
  landmarks = (points * shape[::-1]).astype(np.float32)
  matrix = alignment.to_image(landmarks, wanted, kind=kind, size=size)
  return np.asarray(matrix, np.float64)
