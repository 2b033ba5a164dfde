"""YuNet, a small convolutional detector, through OpenCV.

OpenCV ships the code (cv2.FaceDetectorYN) but not the model: the user gives
the ONNX file, face_detection_yunet_*.onnx of OpenCV's model zoo. It was trained
on faces of 10 to 300 pixels, so photos are searched at a fixed length.

References: Wu, Peng and Yu 2023, YuNet: a tiny millisecond-level face detector.
"""

import os
from typing import Any

import cv2
import numpy as np

from facesiam_jax import errors
from facesiam_jax.faces import pixels
from facesiam_jax.faces.detectors import Detector, Face

_SEARCH_SIDE = 640
_LEAST_SCORE = 0.7
_MOST_OVERLAP = 0.3
_MOST_FACES = 5000


def create(model: str | None) -> Detector:
  """Makes the detector.

  Args:
    model: path of the ONNX file.

  Returns:
    As `detectors.create`; a photo's longer side is searched at 640 pixels.

  Raises:
    UserError: if there is no such file, it is no model of YuNet, or this OpenCV
      cannot run it.
  """
  if model is None:
    raise errors.UserError(
      "--detector=yunet needs --detector_model=FILE, the ONNX file "
      "face_detection_yunet of OpenCV's model zoo."
    )
  if not os.path.isfile(model):
    raise errors.UserError(
      f"--detector_model={model} is no file; give YuNet's ONNX file."
    )
  network = _network(model)
  # Files of other networks load too, and fail when run.
  _detect(network, np.zeros((64, 64, 3), np.uint8), model)
  return lambda image: _find(network, image, model)


def _network(model: str) -> Any:
  if not hasattr(cv2, "FaceDetectorYN"):
    raise errors.UserError(
      f"OpenCV {cv2.__version__} has no FaceDetectorYN: install a release 4.8 "
      'or later with `pip install "opencv-python-headless<5"`.'
    )
  try:
    return cv2.FaceDetectorYN.create(
      model, "", (_SEARCH_SIDE,) * 2, _LEAST_SCORE, _MOST_OVERLAP, _MOST_FACES
    )
  except cv2.error as error:
    raise _not_yunet(model) from error


def _not_yunet(model: str) -> errors.UserError:
  return errors.UserError(
    f"--detector_model={model} is not a model of YuNet that OpenCV "
    f"{cv2.__version__} can run; give face_detection_yunet_2023mar.onnx."
  )


def _detect(network: Any, image: np.ndarray, model: str) -> np.ndarray:
  """Returns the rows of YuNet, float [N, 15], for an RGB image."""
  network.setInputSize(image.shape[1::-1])
  try:
    _, rows = network.detect(np.ascontiguousarray(image[..., ::-1]))
  except cv2.error as error:
    raise _not_yunet(model) from error
  return np.zeros((0, 15)) if rows is None else np.asarray(rows, np.float64)


def _find(network: Any, image: np.ndarray, model: str) -> list[Face]:
  if min(image.shape) < 1:
    return []
  height, width = image.shape[:2]
  zoom = _SEARCH_SIDE / max(height, width)
  size = (max(1, round(width * zoom)), max(1, round(height * zoom)))
  method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
  small = cv2.resize(pixels.to_rgb(image), size, interpolation=method)
  # The sides are rounded, so each has a scale of its own.
  scale = np.array([width / size[0], height / size[1]])
  faces = []
  for row in _detect(network, small, model):
    box = (row[:4].reshape(2, 2) * scale).ravel()
    # Whole numbers are pixel centres of the searched picture.
    five = (row[4:14].reshape(5, 2) + 0.5) * scale
    faces.append(Face(tuple(box.tolist()), float(row[14]), five[:2], five))
  return faces
