"""The quality of faces that were cut out of photos, and floors under it."""

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from facesiam_jax.faces.photo import Cut

_USUAL_SIZE = 150
_LEAST_SHARE = 0.1
# Faces measured at a time: bounds the memory.
_BLOCK = 64


class Quality(NamedTuple):
  """Measures of one face; NaN where the detector does not tell.

  Attributes:
    width: of the detector's box in the photo, pixels.
    sharpness: see `facesiam_jax.quality`; of the aligned face, as are light,
      contrast and evenness, but as a face of 150 pixels would have it, so that
      it means the same for all bundles.
    light: mean brightness, 0..1.
    contrast: standard deviation of the brightness, 0..0.5.
    evenness: of the light from both sides, 0..1.
    roll: degrees, clockwise as seen.
    yaw: proxy of the turn to a side, 0 from the front.
    pitch: proxy of looking up or down, 0 for level.
    score: the detector's, in its own unit.
  """

  width: float
  sharpness: float
  light: float
  contrast: float
  evenness: float
  roll: float
  yaw: float
  pitch: float
  score: float


class Limits(NamedTuple):
  """Beyond one of these a face is poor.

  Of 106 faces in photos of celebrities, found by dlib68, three are beyond the
  usual ones, all of them turned to a side; shrunk to 25 pixels and enlarged
  again, nine in ten are not sharp.

  Attributes:
    min_width: of the face, pixels.
    min_sharpness: as `Quality.sharpness`, and so on.
    min_light: mean brightness, 0..1.
    max_light: mean brightness, 0..1.
    min_contrast: standard deviation of the brightness, 0..0.5.
    max_yaw: proxy of the turn to a side, either way.
    max_roll: degrees, either way.
  """

  min_width: float = 40.0
  min_sharpness: float = 0.075
  min_light: float = 0.12
  max_light: float = 0.9
  min_contrast: float = 0.06
  max_yaw: float = 0.4
  max_roll: float = 45.0


_USUAL = Limits()


def measure(cuts: "Sequence[Cut]") -> list[Quality]:
  """Measures faces.

  Args:
    cuts: from `photo.Reader`; all of one size.

  Returns:
    Their qualities; of faces that were cropped already, without width, pose and
    score.
  """
  graded: list[Quality] = []
  for first in range(0, len(cuts), _BLOCK):
    block = cuts[first : first + _BLOCK]
    images = _padded(np.stack([cut.pixels for cut in block]))
    columns = np.asarray(_of_images()(images))[:, : len(block)]
    graded += [
      _one(cut, [float(value) for value in column])
      for cut, column in zip(block, columns.T, strict=True)
    ]
  return graded


def medians(cuts: "Sequence[Cut]") -> dict[str, float | None]:
  """Returns the median of each measure over faces, of turns without sign.

  Args:
    cuts: at least one, of one size.

  Returns:
    Measure to median; None where it is not known of any face.
  """
  values = np.abs(np.array(measure(cuts), np.float64))
  known = {
    name: column[~np.isnan(column)]
    for name, column in zip(Quality._fields, values.T, strict=True)
  }
  return {
    name: float(np.median(column)) if column.size else None
    for name, column in known.items()
  }


def shortcomings(quality: Quality, limits: Limits = _USUAL) -> list[str]:
  """Says what is poor about a face, for a user to read.

  Args:
    quality: of the face.
    limits: from which on it is poor.

  Returns:
    Phrases; none where all is well or not known.
  """
  q = quality
  found = (
    (q.width < limits.min_width, f"{q.width:.0f} pixels wide"),
    (q.sharpness < limits.min_sharpness, "not sharp"),
    (q.light < limits.min_light, "too dark"),
    (q.light > limits.max_light, "too bright"),
    (q.contrast < limits.min_contrast, "without contrast"),
    (abs(q.yaw) > limits.max_yaw, "turned to a side"),
    (abs(q.roll) > limits.max_roll, f"tilted by {abs(q.roll):.0f} degrees"),
  )
  return [text for is_poor, text in found if is_poor]


def weight(quality: Quality) -> float:
  """Returns what a face is worth among others of the same person, as a number.

  The product of four shares: of the sharpness, the contrast and the width, each
  a half at the usual limit and 1 from twice that on, and of the turn to a side,
  1 from the front and a half at the limit. They are what takes detail away,
  which neither alignment nor an encoder brings back; a tilt is turned back by
  alignment, and darkness without loss of contrast does little harm. No share is
  below a tenth, so that whoever has poor photos only is found by them too.

  The limits are the usual ones whatever the flags say, so that all numbers of a
  gallery mean the same.

  Args:
    quality: of the face.

  Returns:
    In 1e-4..1; it never rises as a measure gets worse.

  Degenerate input: a measure that is NaN counts as fine.
  References: ISO/IEC 29794-1 (one number for the quality of a sample).
  """
  shares = (
    quality.sharpness / (2 * _USUAL.min_sharpness),
    quality.contrast / (2 * _USUAL.min_contrast),
    quality.width / (2 * _USUAL.min_width),
    1 - abs(quality.yaw) / (2 * _USUAL.max_yaw),
  )
  # Of NaN, min takes the first it is given.
  return math.prod(max(_LEAST_SHARE, min(1.0, share)) for share in shares)


def _padded(images: np.ndarray) -> np.ndarray:
  """Repeats images to a power of two, so that few programs are compiled."""
  count = 1 << (len(images) - 1).bit_length()
  return np.resize(images, (count, *images.shape[1:]))


@functools.cache
def _of_images() -> Any:
  import jax
  import jax.numpy as jnp

  from facesiam_jax import quality

  measures = (
    quality.sharpness,
    quality.light,
    quality.contrast,
    quality.evenness,
  )
  return jax.jit(lambda images: jnp.stack([m(images) for m in measures]))


def _one(cut: "Cut", of_image: list[float]) -> Quality:
  from facesiam_jax import quality

  nan = float("nan")
  sharpness, light, contrast, evenness = of_image
  # What was enlarged to half the size has twice the detail in a pixel.
  sharpness *= cut.pixels.shape[0] / _USUAL_SIZE
  graded = Quality(
    nan, sharpness, light, contrast, evenness, nan, nan, nan, nan
  )
  face = cut.face
  if face is None:
    return graded
  eyes = face.eyes[None]
  graded = graded._replace(
    width=float(face.box[2]),
    roll=float(np.degrees(quality.roll(eyes)[0])),
    score=float(face.score),
  )
  if face.landmarks is not None:
    pitch = quality.pitch(face.landmarks[None])
    yaw = quality.yaw(eyes, face.landmarks[2:3])
    return graded._replace(yaw=float(yaw[0]), pitch=float(pitch[0]))
  if face.corners is not None:
    yaw = quality.yaw(eyes, face.corners[4:])
    return graded._replace(yaw=float(yaw[0]))
  return graded
