"""Finding faces in a photo: several detectors, one interface.

  haar    OpenCV's cascades; two eyes, placed where usual if not seen. The
          default of the Olivetti framing.
  dlib    dlib's HOG detector and its 5-point predictor: eye corners and the
          base of the nose. Extra `dlib`. The default of dlib_150.
  dlib68  the same detector and the 68-point predictor, hence also ArcFace's
          five. Extra `dlib`. The default of arcface_112.
  yunet   OpenCV's FaceDetectorYN with a model file of the user's; ArcFace's
          five.

Coordinates are (x, y) in pixels with (0, 0) at the outer corner of the first
pixel. A detector's module is loaded when it is first asked for.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from facesiam_jax import errors

NAMES = ("haar", "dlib", "dlib68", "yunet")
# What finds the faces that are then aligned so, if nothing else is said.
DEFAULTS = {"olivetti": "haar", "dlib_150": "dlib", "arcface_112": "dlib68"}


class Face(NamedTuple):
  """One face of a photo.

  Attributes:
    box: left, top, width and height in pixels; may reach beyond the photo.
    score: how sure the detector is; in its own unit, more is surer.
    eyes: centres of the eyes, the picture's left first, float64 [2, 2].
    landmarks: ArcFace's five, or None: eyes, tip of the nose, mouth corners,
      the picture's left first, float64 [5, 2].
    corners: dlib's five, or None: outer and inner corner of the picture's
      right eye, the same of its left eye, base of the nose, float64 [5, 2].
  """

  box: tuple[float, float, float, float]
  score: float
  eyes: np.ndarray
  landmarks: np.ndarray | None = None
  corners: np.ndarray | None = None


Detector = Callable[[np.ndarray], list[Face]]


def create(name: str, *, model: str | None = None) -> Detector:
  """Makes a detector.

  Args:
    name: one of `NAMES`.
    model: path of its model file; for yunet, which needs one.

  Returns:
    A function from a photo, uint8 [H, W] or [H, W, 3] (RGB), to its faces, the
    largest first, in an order that does not depend on chance; an empty list
    where none is seen.

  Raises:
    UserError: for an unknown name, a missing extra, or a model file that is
      missing, not needed or not readable.
  """
  if name not in NAMES:
    raise errors.UserError(
      f"--detector={name} is not known; choose from {', '.join(NAMES)}."
    )
  if model is not None and name != "yunet":
    raise errors.UserError(
      f"--detector_model is for --detector=yunet; {name} brings its own models."
    )
  find = _make(name, model)

  def detector(image: np.ndarray) -> list[Face]:
    image = np.asarray(image)
    good = image.ndim > 1 and image.shape[2:] in ((), (3,))
    if image.dtype != np.uint8 or not good:
      raise ValueError(
        "image must be uint8 [H, W] or [H, W, 3], got "
        f"{image.dtype} {image.shape}."
      )
    area = lambda face: face.box[2] * face.box[3]
    found = _apart(find(np.ascontiguousarray(image)))
    return sorted(found, key=lambda f: (-area(f), f.box))

  return detector


def find_faces(
  image: np.ndarray, detector: str = "haar", *, model: str | None = None
) -> list[Face]:
  """Finds the faces of one photo; see `create`.

  Args:
    image: the photo, uint8 [H, W] or [H, W, 3] (RGB).
    detector: one of `NAMES`.
    model: path of the detector's model file, where it needs one.

  Returns:
    The faces, the largest first.

  Raises:
    UserError: as `create` does.
    ValueError: for an array that is no photo.
  """
  return create(detector, model=model)(image)


def _apart(faces: list[Face]) -> list[Face]:
  """Leaves out a face that shares a quarter of its box with a surer one."""
  kept: list[Face] = []
  for face in sorted(faces, key=lambda f: (-f.score, f.box)):
    if not any(_overlap(face.box, other.box) for other in kept):
      kept.append(face)
  return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
  """Says whether the boxes share a quarter of the smaller one."""
  across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  shared = max(across, 0.0) * max(down, 0.0)
  return shared > 0.25 * min(a[2] * a[3], b[2] * b[3])


def _make(name: str, model: str | None) -> Detector:
  if name == "haar":
    return _haar
  if name == "yunet":
    from facesiam_jax.faces import yunet

    return yunet.create(model)
  from facesiam_jax.faces import dlib_faces

  return dlib_faces.create(points=68 if name == "dlib68" else 5)


def _haar(image: np.ndarray) -> list[Face]:
  from facesiam_jax.faces import detect, pixels

  gray = pixels.to_gray(image)
  return [
    Face(
      (found.x, found.y, found.side, found.side),
      found.confidence,
      detect.find_eyes(gray, found),
    )
    for found in detect.find_faces(gray)
  ]
