"""Finds faces and their eyes in grey images with OpenCV's Haar cascades.

The cascades come with OpenCV 4 (its releases 5 ship none). Faces are upright or
nearly so and seen from the front; profiles and faces turned by more than some
15 degrees are missed. The eyes are looked for where they lie in most faces
and, where nothing is seen there, assumed there.

References: Viola and Jones 2001, Rapid object detection using a boosted cascade
of simple features.
"""

import functools
import pathlib
import threading
from typing import NamedTuple

import cv2
import numpy as np

from facesiam_jax import errors

# Median pupils relative to the box of the face cascade, over the AT&T images.
BOX_EYES = ((0.304, 0.389), (0.691, 0.393))

_FACE_CASCADE = "haarcascade_frontalface_alt2.xml"
_EYE_CASCADES = (
  "haarcascade_eye.xml",
  "haarcascade_eye_tree_eyeglasses.xml",
)

# Photos are searched at this length of the longer side.
_SEARCH_SIDE = 640
# Replicated border, in parts of the shorter side, so that a face that fills the
# picture has the surroundings that the cascade expects.
_SEARCH_BORDER = 0.4
_SMALLEST_FACE = 0.08
# (scale step, neighbours): the second is tried where the first sees nothing.
_SEARCHES = ((1.08, 4), (1.04, 2))

# A box less wide than this part of the widest is a bystander.
_BYSTANDER = 0.5

_EYE_PATCH = 160
# Eyes lie within about this distance (standard deviation, in box sides) of
# BOX_EYES, and a hit further off than three of them is no eye of this face.
_EYE_SPREAD = 0.04

# A box is a face if the face cascade is this sure of it, or if the eye
# cascades accept this many windows in it: hands, jewels and backgrounds that
# look like a face have neither.
_SURE = 56.0
_FEWEST_HITS = 5

# A cascade keeps state during a search, so threads take turns.
_lock = threading.Lock()


class Face(NamedTuple):
  """A square box around a face, in pixels, and how sure the cascade is.

  (0, 0) is the outer corner of the first pixel; the box may reach beyond the
  image. `confidence` has no unit and grows with the likeness to a face.
  """

  x: float
  y: float
  side: float
  confidence: float


def find_faces(gray: np.ndarray) -> list[Face]:
  """Returns the faces of an image, the widest first.

  Boxes without eyes, those that overlap a surer one, and those less than half
  as wide as the widest (bystanders) are left out.

  Args:
    gray: grey image, uint8 [H, W].

  Returns:
    The faces; an empty list where none is seen.

  Raises:
    UserError: if this OpenCV has no cascades.
  """
  height, width = gray.shape
  scale = _SEARCH_SIDE / max(height, width)
  small = cv2.resize(
    gray,
    (max(1, round(width * scale)), max(1, round(height * scale))),
    interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
  )
  border = round(_SEARCH_BORDER * min(small.shape))
  padded = cv2.copyMakeBorder(
    small, border, border, border, border, cv2.BORDER_REPLICATE
  )
  for step, neighbours in _SEARCHES:
    found = _search(padded, step, neighbours)
    faces = [
      Face((x - border) / scale, (y - border) / scale, side / scale, sure)
      for x, y, side, sure in found
      # The centre of a face lies inside the image, not in the added border.
      if 0 < x + side / 2 - border < small.shape[1]
      and 0 < y + side / 2 - border < small.shape[0]
    ]
    faces = [face for face in faces if _is_face(gray, face)]
    if faces:
      return _without_bystanders(faces)
  return []


def find_eyes(gray: np.ndarray, face: Face) -> np.ndarray:
  """Returns the pupils of a face.

  Every window that an eye cascade accepts votes for its centre, weighted by how
  usual that place is; an eye for which none votes is placed where the other
  one, or the box, says it is.

  Args:
    gray: grey image, uint8 [H, W].
    face: its box, from `find_faces`.

  Returns:
    Pupils (x, y) in pixels, the image's left one first, float64 [2, 2].

  Raises:
    UserError: if this OpenCV has no cascades.
  """
  corner = np.array((face.x, face.y))
  usual = np.array(BOX_EYES)
  near = _eye_hits(gray, face)
  votes = [_vote(h, u) for h, u in zip(near, usual, strict=True)]
  shifts = [v - u for v, u in zip(votes, usual, strict=True) if v is not None]
  shift = np.mean(shifts, axis=0) if shifts else np.zeros(2)
  eyes = [
    u + shift if v is None else v for v, u in zip(votes, usual, strict=True)
  ]
  return corner + face.side * np.array(eyes)


def _search(gray: np.ndarray, step: float, neighbours: int) -> list[Face]:
  """Returns the boxes of the face cascade in the image's own pixels."""
  smallest = max(24, round(_SMALLEST_FACE * min(gray.shape)))
  cascade = _cascade(_FACE_CASCADE)
  with _lock:
    boxes, _, weights = cascade.detectMultiScale3(
      gray,
      scaleFactor=step,
      minNeighbors=neighbours,
      minSize=(smallest, smallest),
      outputRejectLevels=True,
    )
  return [
    Face(float(x), float(y), float(side), float(weight))
    for (x, y, side, _), weight in zip(boxes, np.ravel(weights), strict=True)
  ]


def _without_bystanders(faces: list[Face]) -> list[Face]:
  """Leaves out overlapping and much smaller boxes; the widest comes first."""
  kept: list[Face] = []
  for face in sorted(faces, key=lambda f: (-f.confidence, f)):
    if not any(_overlap(face, other) for other in kept):
      kept.append(face)
  widest = max(face.side for face in kept)
  kept = [face for face in kept if face.side >= _BYSTANDER * widest]
  return sorted(kept, key=lambda f: (-f.side, f))


def _overlap(a: Face, b: Face) -> bool:
  """Says whether the boxes share a quarter of the smaller one."""
  across = min(a.x + a.side, b.x + b.side) - max(a.x, b.x)
  down = min(a.y + a.side, b.y + b.side) - max(a.y, b.y)
  return max(across, 0) * max(down, 0) > 0.25 * min(a.side, b.side) ** 2


def _box_patch(gray: np.ndarray, face: Face) -> np.ndarray:
  """Cuts the box out at a fixed size, uint8 [_EYE_PATCH, _EYE_PATCH]."""
  height, width = gray.shape
  left, top = max(0, int(face.x)), max(0, int(face.y))
  right = min(width, int(np.ceil(face.x + face.side)))
  bottom = min(height, int(np.ceil(face.y + face.side)))
  scale = _EYE_PATCH / face.side
  part = gray[top:bottom, left:right]
  if scale < 1:
    # Shrunk by area first, so that a large photo does not alias.
    size = [max(1, round(n * scale)) for n in part.shape]
    part = cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)
  zoom_x = part.shape[1] / (right - left)
  zoom_y = part.shape[0] / (bottom - top)
  grid = (np.arange(_EYE_PATCH) + 0.5) / scale
  across = (face.x + grid - left) * zoom_x - 0.5
  down = (face.y + grid - top) * zoom_y - 0.5
  map_x, map_y = np.meshgrid(across.astype(np.float32), down.astype(np.float32))
  return cv2.remap(
    part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )


def _is_face(gray: np.ndarray, face: Face) -> bool:
  """Says whether the box is a sure one or has eyes where a face has them."""
  return face.confidence >= _SURE or (
    sum(len(hits) for hits in _eye_hits(gray, face)) >= _FEWEST_HITS
  )


def _eye_hits(gray: np.ndarray, face: Face) -> list[np.ndarray]:
  """Returns the centres of the eye windows near each usual place, [N, 2].

  In parts of the box.
  """
  patch = _box_patch(gray, face)
  hits = np.concatenate([_eye_windows(patch, name) for name in _EYE_CASCADES])
  hits = hits / _EYE_PATCH
  return [
    hits[np.hypot(*(hits - place).T) < 3 * _EYE_SPREAD] for place in BOX_EYES
  ]


def _eye_windows(patch: np.ndarray, name: str) -> np.ndarray:
  """Returns the centres of all windows an eye cascade accepts, [N, 2]."""
  cascade = _cascade(name)
  with _lock:
    found = cascade.detectMultiScale(
      patch[: round(0.65 * _EYE_PATCH)],
      scaleFactor=1.05,
      minNeighbors=0,
      minSize=(24, 24),
      maxSize=(72, 72),
    )
  # On several cores they come in a chance order.
  windows = np.array(sorted(map(tuple, found)), np.float64).reshape(-1, 4)
  return windows[:, :2] + windows[:, 2:] / 2


def _vote(near: np.ndarray, usual: np.ndarray) -> np.ndarray | None:
  """Returns the place the hits agree on (mean shift), or None without hits."""
  if not len(near):
    return None
  place = usual
  prior = np.exp(-0.5 * ((near - usual) ** 2).sum(1) / _EYE_SPREAD**2)
  for width in (2 * _EYE_SPREAD, _EYE_SPREAD, _EYE_SPREAD, _EYE_SPREAD):
    weight = prior * np.exp(-0.5 * ((near - place) ** 2).sum(1) / width**2)
    if weight.sum() < 1e-12:
      break
    place = weight @ near / weight.sum()
  return place


@functools.cache
def _cascade(name: str) -> "cv2.CascadeClassifier":
  """Loads a cascade that OpenCV ships."""
  folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
  path = pathlib.Path(folder) / name
  if not hasattr(cv2, "CascadeClassifier") or not path.is_file():
    raise errors.UserError(
      f"OpenCV {cv2.__version__} has no Haar cascade {name}: install a release"
      ' 4 with `pip install "opencv-python-headless<5"`, or give cropped faces'
      " with --cropped."
    )
  return cv2.CascadeClassifier(str(path))
