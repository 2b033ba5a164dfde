"""The faces of the CelebA benchmark, and what a bundle makes of them.

Faces of celeba_wild112 have 112 pixels a side. celeba_manual's photos are half
the published size, 61 pixels for the same part of a face, prepared at 64.
Where both are compared, both have 64 pixels: by the mean over areas, which left
97 photos that are in both files equally sharp (the standard deviation of the
Laplacian is 2 % off in the median; by way of 56 or 61 pixels it is 8 or 11 %).
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

import celeba_people
import cv2
import numpy as np

from facesiam_jax import alignment
from facesiam_jax import bundle as bundle_lib
from facesiam_jax.data import encoded, sets
from facesiam_jax.training import config as config_lib

FINE, COARSE = 112, 64
ALIGNMENT = "arcface_112"
FRAMES = tuple(alignment.TEMPLATES)
NUM_VALIDATION = 40


@dataclasses.dataclass(frozen=True)
class People:
  """Faces of some people.

  Attributes:
    images: RGB, uint8 [N, S, S, 3].
    names: CelebA's number of the person of each, int [N].
  """

  images: np.ndarray
  names: np.ndarray


def _load(name: str, data_dir: str, size: int, **fields: Any) -> sets.DataSet:
  config = config_lib.default_config().dataset
  config.update(name=name, data_dir=data_dir, channels=3, num_validation=0)
  config.update(fields)
  return sets.load(config, image_size=size)


def _numbers(data: sets.DataSet) -> np.ndarray:
  names = [int(name) for name in data.faces.names]
  return np.array(names)[data.faces.identity_ids]


def _counts(numbers: np.ndarray) -> dict[str, int]:
  names, counts = np.unique(numbers, return_counts=True)
  return dict(zip(map(str, names), counts.tolist(), strict=True))


def coarse(images: np.ndarray) -> np.ndarray:
  """Brings faces to the side that celeba_manual's have."""
  return np.stack([encoded.square(image, COARSE) for image in images])


@dataclasses.dataclass(frozen=True)
class Faces:
  """What is measured on.

  Attributes:
    test: the 58 test people, 112 pixels.
    distractors: people of one image each, in their order, 64 pixels.
    twice: one photo from celeba_wild112, at 64 pixels, of each training person
      who is in both files.
    again: one photo of each of the same people from celeba_manual.
  """

  test: People
  distractors: People
  twice: People
  again: People


def load(data_dir: str) -> Faces:
  """Opens the prepared sets `celeba_people` names.

  Args:
    data_dir: folder of tfds data sets.
  """
  wild = _load(celeba_people.WILD, data_dir, FINE)
  manual = _load(celeba_people.CELEBA, data_dir, COARSE)
  number, other = _numbers(wild), _numbers(manual)
  chosen = celeba_people.distractors(_counts(other), _counts(number))
  row_of = {int(n): row for row, n in reversed(list(enumerate(other)))}
  rows = [row_of[int(name)] for name in chosen]
  is_in = lambda people: np.isin(wild.faces.identity_ids, people)
  both = np.intersect1d(number[is_in(wild.train)], other)
  first = [int(np.flatnonzero(number == who)[0]) for who in both]
  again = [row_of[int(who)] for who in both]
  test = is_in(wild.test)
  return Faces(
    People(wild.faces.images[test], number[test]),
    People(manual.faces.images[rows], other[rows]),
    People(coarse(wild.faces.images[first]), both),
    People(manual.faces.images[again], both),
  )


def training(data_dir: str, size: int) -> tuple[Any, Any]:
  """Returns the faces that recipes train and validate on, grey.

  Args:
    data_dir: folder of tfds data sets.
    size: side of the faces, pixels.

  Returns:
    (images uint8 [N, size, size, 1], identity ids [N]) of the training people
    and of the validation people.
  """
  names = celeba_people.CELEBA, celeba_people.WILD, celeba_people.PINS
  data = _load(
    ",".join(names),
    data_dir,
    size,
    channels=1,
    num_validation=NUM_VALIDATION,
    min_images=2,
    exclude=str(celeba_people.EXCLUDE),
  )
  return data.of(data.train), data.of(data.validation)


def kept_out(faces: Faces) -> set[str]:
  """Returns CelebA's numbers of the test people and of all distractors."""
  return {*map(str, faces.test.names), *map(str, faces.distractors.names)}


def sharpness(images: np.ndarray) -> np.ndarray:
  """Returns the standard deviation of each image's Laplacian, float64 [N].

  Args:
    images: uint8 [N, S, S, 3].
  """
  size = images.shape[1]
  return np.array(
    [cv2.Laplacian(face, cv2.CV_64F).std() for face in gray(images, size)]
  )


def gray(images: np.ndarray, size: int) -> np.ndarray:
  """Returns faces as uint8 [N, size, size, 1]."""
  return np.stack([encoded.face(image, (size, size, 1)) for image in images])


def framed(images: np.ndarray, bundle: bundle_lib.Bundle) -> np.ndarray:
  """Returns faces in ArcFace's frame as a bundle takes them.

  Args:
    images: uint8 [N, S, S, 3].
    bundle: aligned to a template that is known; its frame is cut out along the
      places of ArcFace's landmarks, what lies beyond repeats the border.

  Returns:
    uint8 [N, H, W, C].
  """
  side, (size, _) = images.shape[1], bundle.input_size
  if bundle.alignment != ALIGNMENT:
    places = alignment.TEMPLATES[ALIGNMENT].places["five"] * side
    matrix = np.asarray(
      alignment.to_image(places, bundle.alignment, size=size), np.float64
    )
    # OpenCV's pixels have whole numbers at their centres.
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    cut = lambda image: cv2.warpAffine(
      image,
      matrix,
      (size, size),
      flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
      borderMode=cv2.BORDER_REPLICATE,
    )
    images = np.stack([cut(image) for image in images])
  shape = (size, size, bundle.channels)
  return np.stack([encoded.face(image, shape) for image in images])


class Embedder:
  """Embeds with a bundle; what was embedded once is kept in a folder."""

  def __init__(self, bundle: bundle_lib.Bundle, folder: pathlib.Path) -> None:
    """Makes the folder."""
    self._bundle, self._folder = bundle, folder
    folder.mkdir(parents=True, exist_ok=True)

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Returns float32 [N, D] of faces uint8 [N, S, S, 3]."""
    faces = framed(images, self._bundle)
    digest = hashlib.sha256(self._bundle.fingerprint.encode())
    digest.update(f"{faces.shape}".encode() + faces.tobytes())
    path = self._folder / f"{digest.hexdigest()[:32]}.npy"
    if not path.is_file():
      np.save(path, self._bundle.embed(faces))
    return np.load(path)
