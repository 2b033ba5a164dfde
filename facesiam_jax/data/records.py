"""Faces of a tfds data set in ArrayRecord files, read when they are asked for.

`open_faces` gives what the rest of the code takes for faces in memory, but
its images stay on the disk: indexing them gives a view, `np.asarray` of a view
reads and decodes. So one data set serves the resident feed, which takes all of
it, and the streaming feed, which takes a batch at a time.

Encoded images are decoded by OpenCV: 0.14 ms of processor time for a JPEG of
112x112, where Pillow takes 0.27 (the same pixels), and it lets other threads
run meanwhile.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facesiam_jax import errors, files

_IMAGE, _IDENTITY = "image", "identity"
# Records read at once where only the identities are wanted.
_SCAN = 1024


def decode(encoded: bytes, channels: int) -> np.ndarray:
  """Decodes a JPEG or PNG.

  Args:
    encoded: the file's bytes.
    channels: 3 for RGB, 1 for grey (of a colour JPEG, its luma).

  Returns:
    uint8 [H, W, channels]; alpha is dropped, 16 bits become 8.

  Raises:
    ValueError: if the bytes are no image that OpenCV reads.
  """
  import cv2

  # EXIF is for photos; a prepared face lies as it is meant to.
  flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
  raw = np.frombuffer(encoded, np.uint8)
  flags = flag | cv2.IMREAD_IGNORE_ORIENTATION
  pixels = cv2.imdecode(raw, flags) if raw.size else None
  if pixels is None:
    raise ValueError(f"{len(encoded)} bytes that are no JPEG or PNG.")
  return pixels.reshape(*pixels.shape[:2], channels)


def fit(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
  """Cuts the middle of an image to the shape's proportions and resizes it.

  Args:
    pixels: uint8 [h, w, C].
    height: H, pixels.
    width: W, pixels.

  Returns:
    uint8 [H, W, C]; the image itself where its shape is right.
  """
  if pixels.shape[:2] == (height, width):
    return pixels
  import cv2

  old_height, old_width, channels = pixels.shape
  scale = min(old_height / height, old_width / width)
  tall = max(1, round(height * scale))
  wide = max(1, round(width * scale))
  top, left = (old_height - tall) // 2, (old_width - wide) // 2
  middle = pixels[top : top + tall, left : left + wide]
  how = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
  resized = cv2.resize(middle, (width, height), interpolation=how)
  return resized.reshape(height, width, channels)


def _example(record: bytes) -> Any:
  """Parses a tf.train.Example, by tfds's own protobuf: no TensorFlow."""
  from tensorflow_datasets.proto import tf_example_pb2

  return tf_example_pb2.Example.FromString(record).features.feature


@dataclasses.dataclass
class _Reader:
  """One split on the disk; sent to another process it opens it anew."""

  folder: pathlib.Path
  split: str
  _opened: Any = dataclasses.field(default=None, repr=False)

  def __getstate__(self) -> dict[str, Any]:
    return {**self.__dict__, "_opened": None}

  def builder_and_source(self) -> tuple[Any, Any]:
    if self._opened is None:
      with warnings.catch_warnings():
        # tfds and what it imports warn about their own deprecations.
        warnings.simplefilter("ignore")
        self._opened = self._open()
    return self._opened

  def _open(self) -> tuple[Any, Any]:
    import tensorflow_datasets as tfds

    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
      builder = tfds.builder_from_directory(os.fspath(self.folder))
      source = builder.as_data_source(
        split=self.split, deserialize_method=raw
      ).data_source
    # tfds has no error class of its own for what it cannot read.
    except Exception as error:
      raise errors.UserError(
        f"{self.folder} holds no tfds data set with a split {self.split!r} in"
        " ArrayRecord files; name the folder of its version, the one with"
        " dataset_info.json."
      ) from error
    return builder, source

  def records(self, rows: Sequence[int]) -> list[bytes]:
    return self.builder_and_source()[1].__getitems__(rows)

  def decoder(self, channels: int) -> Callable[[bytes], np.ndarray]:
    """Returns a function: record -> uint8 [h, w, channels]."""
    features = self.builder_and_source()[0].info.features
    if getattr(features[_IMAGE], "encoding_format", None):
      return lambda record: decode(
        _example(record)[_IMAGE].bytes_list.value[0], channels
      )
    return lambda record: _with_channels(
      np.asarray(features.deserialize_example_np(record)[_IMAGE]), channels
    )


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
  """Makes a stored array [h, w] or [h, w, c] grey or RGB, as `decode` does."""
  import cv2

  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
    raise ValueError(f"an array {pixels.dtype} {pixels.shape}, not uint8.")
  pixels = pixels.reshape(*pixels.shape[:2], -1)
  if pixels.shape[2] == channels:
    return pixels
  if channels == 3:
    return pixels[..., :1].repeat(3, axis=2)
  return cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2GRAY)[..., None]


class RecordImages:
  """Images on the disk that behave like an array uint8 [N, H, W, C].

  `images[rows]`, with a slice, indices or a mask, is a view that reads
  nothing; `np.asarray` reads. `images[i]` with one number reads one image.
  Threads may read at once.

  Attributes:
    shape: (N, H, W, C).
    dtype: uint8.
  """

  def __init__(
    self, reader: _Reader, rows: np.ndarray, shape: tuple[int, int, int]
  ) -> None:
    self._reader, self._rows, self._face = reader, rows, shape
    self.shape = (len(rows), *shape)
    self.dtype = np.dtype(np.uint8)

  @property
  def ndim(self) -> int:
    """4."""
    return 4

  @property
  def nbytes(self) -> int:
    """Bytes that all images take in memory."""
    return int(np.prod(self.shape))

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, key: Any) -> "RecordImages | np.ndarray":
    rows = self._rows[key]
    if np.ndim(rows) == 0:
      return self._read(rows[None])[0]
    return RecordImages(self._reader, rows, self._face)

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    if copy is False:
      raise ValueError("images on the disk have no array to share.")
    return self._read(self._rows).astype(dtype or self.dtype, copy=False)

  def _read(self, rows: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), *self._face), np.uint8)
    if not len(rows):
      return out
    height, width, channels = self._face
    to_pixels = self._reader.decoder(channels)
    found = self._reader.records(rows.tolist())
    for row, (number, record) in enumerate(zip(rows, found, strict=True)):
      try:
        out[row] = fit(to_pixels(record), height, width)
      except ValueError as error:
        raise errors.UserError(
          f"image {number} of {self._reader.folder} is damaged: {error}"
          " Prepare the data set anew."
        ) from error
    return out


@dataclasses.dataclass(frozen=True)
class RecordFaces:
  """Faces on the disk with who they show.

  Attributes:
    images: uint8 [N, H, W, C], read when asked for.
    identity_ids: person of each image, 0..M-1, int32 [N].
    names: the data set's own number or name of each person, by identity id.
  """

  images: RecordImages
  identity_ids: np.ndarray
  names: tuple[str, ...]


def open_faces(
  folder: str | os.PathLike[str],
  *,
  split: str = "train",
  size: int | None = None,
  channels: int | None = None,
) -> RecordFaces:
  """Opens a tfds data set of faces without reading its images.

  The identities are read once and kept beside the data set, so that the next
  opening takes no time.

  Args:
    folder: of the data set's version, with dataset_info.json. Its features
      include `image` (an encoded image, or a uint8 array) and `identity` (a
      number or a text).
    split: which split; tfds's slices, such as "train[:10%]", work too.
    size: side of the faces in pixels; None keeps their shape, which must then
      be the same for all.
    channels: 1 or 3; None keeps theirs.

  Returns:
    The faces, in the order of the files.

  Raises:
    UserError: if there is no such data set, or it lacks what is needed.
  """
  reader = _Reader(pathlib.Path(folder).expanduser(), split)
  builder, source = reader.builder_and_source()
  features = builder.info.features
  for name in (_IMAGE, _IDENTITY):
    if name not in features:
      raise errors.UserError(
        f"the data set in {folder} has no feature {name!r}, only"
        f" {sorted(features)}."
      )
  if not len(source):
    raise errors.UserError(f"split {split!r} of {folder} holds no image.")
  stored = (*(features[_IMAGE].shape or ()), 1)[:3]
  height, width = (size or side for side in stored[:2])
  depth = channels or stored[2]
  if not (height and width and depth):
    raise errors.UserError(
      f"the images in {folder} differ in shape; say which size and channels."
    )
  labels = _identities(reader)
  people, numbers = np.unique(labels, return_inverse=True)
  name_of = getattr(features[_IDENTITY], "int2str", str)
  return RecordFaces(
    RecordImages(reader, np.arange(len(labels)), (height, width, depth)),
    numbers.astype(np.int32),
    tuple(str(name_of(person)) for person in people),
  )


def _label(record: bytes) -> int | str:
  feature = _example(record)[_IDENTITY]
  if feature.bytes_list.value:
    return feature.bytes_list.value[0].decode("utf-8")
  return feature.int64_list.value[0]


def _stamp(folder: pathlib.Path, split: str) -> str:
  """A hash of what the identities depend on, the images left unread."""
  parts = [split]
  for path in sorted(folder.glob("*.array_record*")):
    status = path.stat()
    parts.append(f"{path.name} {status.st_size} {status.st_mtime_ns}")
  return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _identities(reader: _Reader) -> np.ndarray:
  """Returns each record's identity, from the file of an earlier call."""
  kept = reader.folder / f".identities-{_stamp(reader.folder, reader.split)}"
  with contextlib.suppress(OSError, ValueError):
    return np.load(kept, allow_pickle=False)
  count = len(reader.builder_and_source()[1])
  labels = np.array(
    [
      _label(record)
      for first in range(0, count, _SCAN)
      for record in reader.records(range(first, min(first + _SCAN, count)))
    ]
  )
  # A data set that others own is read as well; only slower.
  with contextlib.suppress(OSError), files.replacing(kept) as file:
    np.save(file, labels)
  return labels
