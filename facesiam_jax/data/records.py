"""Faces of tfds data sets in ArrayRecord files, read when they are asked for.

`RecordImages` are what the rest of the code takes for faces in memory, but
they stay on the disk: indexing them gives a view, `np.asarray` of a view reads
and decodes. So one data set serves the resident feed, which takes all of it,
and the streaming feed, which takes a batch at a time. `opening` makes them of
prepared data sets, `open_faces` of any other that tfds wrote.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from facesiam_jax import errors, files
from facesiam_jax.data import encoded

_IMAGE, _IDENTITY = "image", "identity"
# Records whose bytes are in memory at once.
_BLOCK = 1024


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

  def pixels(self, records: Sequence[bytes]) -> Iterator[np.ndarray]:
    """Yields the image of each record, uint8 [h, w] or [h, w, 3]."""
    features = self.builder_and_source()[0].info.features
    if not getattr(features[_IMAGE], "encoding_format", None):
      return (_plain(features.deserialize_example_np(r)) for r in records)
    # All are parsed before the first is decoded: reader threads that go back
    # and forth between short pieces of Python wait for each other's lock, and
    # read a quarter fewer images.
    encoded_images = [_example(r)[_IMAGE].bytes_list.value[0] for r in records]
    return map(encoded.decode, encoded_images)

  def read(
    self, rows: np.ndarray, crop: float, out: np.ndarray, places: np.ndarray
  ) -> None:
    """Puts faces uint8 [H, W, C] into the given places of an array of them."""
    for first in range(0, len(rows), _BLOCK):
      some = rows[first : first + _BLOCK].tolist()
      found = self.pixels(self.records(some))
      for place, number in zip(places[first:], some, strict=False):
        try:
          out[place] = encoded.face(next(found), out.shape[1:], crop)
        except ValueError as error:
          raise errors.UserError(
            f"image {number} of {self.folder} is damaged: {error}"
            " Prepare the data set anew."
          ) from error


def _plain(example: dict[str, Any]) -> np.ndarray:
  """Returns a stored array [h, w], [h, w, 1] or [h, w, 3]; no lone axis."""
  pixels = np.asarray(example[_IMAGE])
  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
    raise ValueError(f"an array {pixels.dtype} {pixels.shape}, not uint8.")
  return pixels[..., 0] if pixels.shape[2:] == (1,) else pixels


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
    self,
    readers: Sequence[_Reader],
    counts: Sequence[int],
    shape: tuple[int, int, int],
    *,
    crop: float = 1.0,
    rows: np.ndarray | None = None,
  ) -> None:
    """Joins the images of several readers, `counts` of each."""
    self._readers, self._counts, self._crop = readers, counts, crop
    self._rows = np.arange(sum(counts)) if rows is None else rows
    self.shape = (len(self._rows), *shape)
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
    return RecordImages(
      self._readers, self._counts, self.shape[1:], crop=self._crop, rows=rows
    )

  def digests(self) -> list[str]:
    """Returns the SHA-256 of each image's record, hex.

    The same for any size, crop and order that the image is read in.
    """
    found = [""] * len(self._rows)
    ends = np.cumsum(self._counts)
    whose = np.searchsorted(ends, self._rows, side="right")
    for number in np.unique(whose):
      here = np.flatnonzero(whose == number)
      own = self._rows[here] - (ends[number] - self._counts[number])
      for first in range(0, len(own), _BLOCK):
        some = self._readers[number].records(
          own[first : first + _BLOCK].tolist()
        )
        for place, record in zip(here[first:], some, strict=False):
          found[place] = hashlib.sha256(record).hexdigest()
    return found

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    if copy is False:
      raise ValueError("images on the disk have no array to share.")
    return self._read(self._rows).astype(dtype or self.dtype, copy=False)

  def _read(self, rows: np.ndarray) -> np.ndarray:
    out = np.empty((len(rows), *self.shape[1:]), np.uint8)
    ends = np.cumsum(self._counts)
    whose = np.searchsorted(ends, rows, side="right")
    for number in np.unique(whose):
      here = np.flatnonzero(whose == number)
      own = rows[here] - (ends[number] - self._counts[number])
      self._readers[number].read(own, self._crop, out, here)
    return out


def open_images(
  parts: Sequence[tuple[pathlib.Path, str, int]],
  shape: tuple[int, int, int],
  crop: float,
) -> RecordImages:
  """Joins the images of splits of data sets, without reading any.

  Args:
    parts: folder, split and number of images of each.
    shape: (H, W, C) of a face, H = W.
    crop: as in `encoded.face`.

  Returns:
    The images, in the order of the parts.
  """
  readers = [_Reader(folder, split) for folder, split, _ in parts]
  return RecordImages(readers, [n for *_, n in parts], shape, crop=crop)


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
    RecordImages([reader], [len(labels)], (height, width, depth)),
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
      for first in range(0, count, _BLOCK)
      for record in reader.records(range(first, min(first + _BLOCK, count)))
    ]
  )
  # A data set that others own is read as well; only slower.
  with contextlib.suppress(OSError), files.replacing(kept) as file:
    np.save(file, labels)
  return labels
