"""Reads photos from files and cuts the faces out of them.

Everything that can be wrong with a user's file is told here as a `UserError` of
one sentence that names the file and the mend.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from facesiam_jax import errors
from facesiam_jax.faces import cutting, detectors
from facesiam_jax.faces.pixels import read_image, to_gray, to_rgb

SUFFIXES = (
  ".bmp",
  ".gif",
  ".jpeg",
  ".jpg",
  ".pgm",
  ".png",
  ".pnm",
  ".ppm",
  ".tif",
  ".tiff",
  ".webp",
)

# A cropped face may be this much longer than wide, or the reverse.
_MAX_ASPECT = 1.1

# A face less wide than this part of the widest is a bystander's.
_BYSTANDER = 0.5


class NoUsableFace(errors.UserError):
  """A photo that is sound, but whose one face cannot be told.

  Attributes:
    reason: "no face", "several faces" or "poor face".
    detail: the same with the number of faces, or what is poor.
  """

  def __init__(self, reason: str, sentence: str, *, detail: str | None = None):
    """Makes the error; the sentence is what the user reads."""
    super().__init__(sentence)
    self.reason = reason
    self.detail = detail or reason


class Cut(NamedTuple):
  """A face as a network takes it.

  Attributes:
    pixels: uint8 [size, size, channels]; colour is RGB.
    face: where in the photo it was found; None where the photo was a cropped
      face already.
  """

  pixels: np.ndarray
  face: detectors.Face | None


def near(faces: Sequence[detectors.Face]) -> list[detectors.Face]:
  """Returns the faces that are no bystanders', the largest first."""
  widest = max((face.box[2] for face in faces), default=0.0)
  return [face for face in faces if face.box[2] >= _BYSTANDER * widest]


@dataclasses.dataclass(frozen=True)
class Reader:
  """Finds the faces of photos and cuts them out, all in one way.

  Attributes:
    size: side of the faces in pixels.
    channels: 1 makes them grey (0.299 R + 0.587 G + 0.114 B), 3 leaves them in
      colour; a grey photo then has three equal channels.
    alignment: "olivetti" or a template of `facesiam_jax.alignment`.
    detector: from `detectors.create`; None takes each photo for a face that is
      cropped and aligned already, and only scales it.

  Raises:
    UserError: if faces are to be found and the alignment is unknown.
    ValueError: if channels is neither 1 nor 3.
  """

  size: int
  channels: int
  alignment: str
  detector: detectors.Detector | None

  def __post_init__(self) -> None:
    if self.channels not in (1, 3):
      raise ValueError(f"channels must be 1 or 3, got {self.channels}.")
    if self.detector is not None:
      cutting.check_alignment(self.alignment)

  def read(self, path: str | os.PathLike[str]) -> tuple[np.ndarray, list[Cut]]:
    """Reads all faces of a photo.

    Args:
      path: the photo.

    Returns:
      Its pixels, uint8 [H, W] or [H, W, 3] (RGB), and its faces, the largest
      first; none where none is seen.

    Raises:
      UserError: as `read_image` does, or if a cropped face is not about square.
    """
    pixels = read_image(path)
    return pixels, self.find(pixels, path)

  def find(self, pixels: np.ndarray, path: str | os.PathLike[str]) -> list[Cut]:
    """Does what `read` does, with a photo's pixels.

    Args:
      pixels: from `decode`.
      path: what to call the photo in messages.

    Returns:
      Its faces, the largest first.

    Raises:
      UserError: if a cropped face is not about square.
    """
    if self.detector is None:
      wanted = self._in_channels(pixels)
      return [Cut(_resize(path, wanted, self.size), None)]
    return [self._cut(pixels, f) for f in self.detector(pixels)]

  def read_one(
    self, path: str | os.PathLike[str], *, largest: bool = False
  ) -> Cut:
    """Reads the one face of a photo.

    Faces less than half as wide as the widest are taken for bystanders.

    Args:
      path: the photo.
      largest: take the largest face where there are several.

    Returns:
      The face.

    Raises:
      NoUsableFace: if no face is found, or several and not `largest`.
      UserError: as `read`.
    """
    if self.detector is None:
      return self.read(path)[1][0]
    pixels = read_image(path)
    faces = self.detector(pixels)
    if not faces:
      raise NoUsableFace(
        "no face",
        f"No face was found in {path}: give another photo, upright and from the"
        " front, or an already cropped face with --cropped.",
      )
    count = len(near(faces))
    if count > 1 and not largest:
      raise NoUsableFace(
        "several faces",
        f"{count} faces of like size were found in {path}: give a photo of"
        " one person, cut out the one that is meant, or take the largest with"
        " --largest.",
        detail=f"{count} faces of like size",
      )
    return self._cut(pixels, faces[0])

  def _in_channels(self, pixels: np.ndarray) -> np.ndarray:
    gray = self.channels == 1
    return to_gray(pixels)[..., None] if gray else to_rgb(pixels)

  def _cut(self, pixels: np.ndarray, face: detectors.Face) -> Cut:
    wanted = self._in_channels(pixels)
    return Cut(
      cutting.cut(wanted, face, alignment=self.alignment, size=self.size), face
    )


def reader(
  *,
  size: int,
  channels: int,
  alignment: str,
  detector: str | None,
  model: str | None = None,
  cropped: bool = False,
) -> Reader:
  """Makes a reader of names; a bundle's are `bundle.framing`.

  Args:
    size: side of the faces in pixels.
    channels: 1 for grey faces, 3 for colour.
    alignment: the template that the faces are aligned to.
    detector: one of `detectors.NAMES`; None takes the alignment's default.
    model: the detector's model file, where it needs one.
    cropped: the photos are such faces already: they are only scaled.

  Returns:
    The reader.

  Raises:
    UserError: if no face can be cut out like that, or the detector cannot be
      had.
    ValueError: if channels is neither 1 nor 3.
  """
  find = None
  if not cropped:
    cutting.check_alignment(alignment)
    name = detector or detectors.DEFAULTS[alignment]
    find = detectors.create(name, model=model)
  return Reader(size, channels, alignment, find)


def load_face(
  path: str | os.PathLike[str],
  *,
  size: int = 64,
  cropped: bool = False,
  channels: int = 1,
  alignment: str = "olivetti",
  detector: str | None = None,
  largest: bool = False,
) -> np.ndarray:
  """Returns the one face of a photo, aligned as the training faces are.

  Args:
    path: the photo.
    size: side of the result in pixels.
    cropped: the file is such a face already: it is only scaled.
    channels: 1 for a grey face, 3 for one in colour.
    alignment: as a bundle's: "olivetti", "dlib_150" or "arcface_112".
    detector: one of `detectors.NAMES`; None takes the alignment's default.
    largest: take the largest face where there are several.

  Returns:
    uint8 [size, size, channels]; colour is RGB.

  Raises:
    UserError: as `Reader.read_one` does.
    ValueError: if channels is neither 1 nor 3.
  """
  read = reader(
    size=size,
    channels=channels,
    alignment=alignment,
    detector=detector,
    cropped=cropped,
  )
  return read.read_one(path, largest=largest).pixels


def list_people(
  folder: str | os.PathLike[str],
) -> dict[str, list[pathlib.Path]]:
  """Returns the images of each person in PEOPLE/<name>/<image>.

  Hidden files and files with other suffixes than `SUFFIXES` are passed over.

  Args:
    folder: holds one folder a person; the folder's name is the person's.

  Returns:
    Name to image files, both in sorted order.

  Raises:
    UserError: if the folder is missing, holds no folder, or if a person has no
      image.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    problem = "is not a folder" if folder.exists() else "does not exist"
    raise errors.UserError(
      f"{folder} {problem}: give a folder with one sub-folder of photos a"
      " person."
    )
  people = {
    entry.name: _images_in(entry)
    for entry in _visible(folder)
    if entry.is_dir()
  }
  if not people:
    raise errors.UserError(
      f"{folder} holds no sub-folder: put the photos of each person into"
      f" {folder}/<name>/, or name one person with --name."
    )
  for name, images in people.items():
    if not images:
      raise errors.UserError(
        f"{folder / name} holds no image: put photos of {name} into it"
        f" ({', '.join(SUFFIXES)}), or remove it."
      )
  return people


def _resize(
  path: str | os.PathLike[str], face: np.ndarray, size: int
) -> np.ndarray:
  """Returns a face [H, W, C] as [size, size, C]."""
  height, width, channels = face.shape
  if max(height, width) > _MAX_ASPECT * min(height, width):
    raise errors.UserError(
      f"{path} is {width}x{height} pixels, but --cropped expects a square"
      " picture of the face alone: cut it square, or leave --cropped away to"
      " have the face found."
    )
  reduced = min(height, width) >= size
  method = cv2.INTER_AREA if reduced else cv2.INTER_CUBIC
  # OpenCV drops the axis of a single channel.
  scaled = cv2.resize(face, (size, size), interpolation=method)
  return scaled.reshape(size, size, channels)


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    entries = sorted(folder.iterdir())
  except OSError as error:
    raise errors.UserError(
      f"{folder} cannot be read ({error.strerror}): check its permissions."
    ) from error
  return [entry for entry in entries if not entry.name.startswith(".")]


def _images_in(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    entry
    for entry in _visible(folder)
    # A pipe or a link to nothing is told of when it is read, not passed over.
    if entry.suffix.lower() in SUFFIXES and not entry.is_dir()
  ]
