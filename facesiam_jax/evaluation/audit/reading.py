"""Data sets as an audit reads them: once, image by image, none of them kept."""

import contextlib
import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import PIL.Image
import tqdm

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.data import encoded, listing, prepared, trees
from facesiam_jax.data import place as place_lib
from facesiam_jax.data.sources import folder as folder_source
from facesiam_jax.evaluation.audit import frames, hashing
from facesiam_jax.faces import photo

# The framing that images of different framings are hashed in.
COMMON = "arcface_112"
# Faces in memory at once while they are embedded.
_BATCH = 256
_UNKNOWN = "unknown"


class Row(NamedTuple):
  """One image, still encoded.

  Attributes:
    data: the bytes of the image; None where they cannot be read.
    person: name of who is in it.
    file: where it is from.
    identity: number of the person, in the data set.
    number: of the image, in the data set.
  """

  data: bytes | None
  person: str
  file: str
  identity: int
  number: int


@dataclasses.dataclass(frozen=True)
class Source:
  """A data set that can be read again and again.

  Attributes:
    name: as the user gave it.
    alignment: name of the way its faces are framed.
    total: number of its images, at most.
    root: of the prepared data set; None for a folder.
    split: to read; "" means all.
    path: of the folder or archive; None for a prepared data set.
  """

  name: str
  alignment: str
  total: int
  root: pathlib.Path | None = None
  split: str = ""
  path: pathlib.Path | None = None

  def rows(self) -> Iterator[Row]:
    """Yields its images, the same order each time."""
    if self.path is not None:
      yield from _folder_rows(self.path)
      return
    assert self.root is not None
    found = prepared.open_prepared(self.name.split(":")[0], self.root)
    rows = found.examples(self.split) if self.split else found.rows()
    for example in rows:
      yield Row(
        example.image,
        example.name,
        example.file,
        example.identity,
        example.image_number,
      )


@dataclasses.dataclass(frozen=True)
class Images:
  """What an audit knows of the images of a data set.

  Attributes:
    source: where they are from.
    people: names, in the order of their numbers here.
    person: number of each image's person, int32 [N].
    files: name of each image, length N.
    identities: number of each image's person in the data set, int64 [N].
    numbers: of each image in the data set, int64 [N].
    places: of the images among the source's rows, int64 [N].
    digests: SHA-256 of each image's decoded pixels, length N.
    small: grey, in the framing of all sets compared, uint8 [N, S, S] with S =
      `hashing.SIDE`.
    hashes: of `hashing.phash`, uint64 [N, W].
    mirrored: hashes of the mirrored images, uint64 [N, W].
    embeddings: float32 [N, D]; None without a bundle.
    unreadable: what was left out, counted.
  """

  source: Source
  people: tuple[str, ...]
  person: np.ndarray
  files: tuple[str, ...]
  identities: np.ndarray
  numbers: np.ndarray
  places: np.ndarray
  digests: tuple[bytes, ...]
  small: np.ndarray
  hashes: np.ndarray
  mirrored: np.ndarray
  embeddings: np.ndarray | None
  unreadable: dict[str, int]


def _folder_rows(path: pathlib.Path) -> Iterator[Row]:
  with trees.open_tree(path) as tree:
    content = folder_source.read(
      tree, listing.Problems(), num_validation=0, num_test=0
    )
    for item in listing.in_order(content.items):
      data: bytes | None = None
      with contextlib.suppress(trees.Unreadable):
        data = tree.read(item.file)
      yield Row(data, item.name, item.file, item.identity, item.number)


def open_source(name: str, data_dir: str | None, alignment: str) -> Source:
  """Finds a data set by the name a user gives it.

  Args:
    name: a folder or archive of <person>/<image>, or a prepared data set as
      config.dataset.name has it, with ":train", ":validation" or ":test" after
      it where only that split is meant.
    data_dir: folder of tfds data sets, or None.
    alignment: how the faces of a folder are framed; "" means unknown.

  Returns:
    The source; no image is read yet.

  Raises:
    UserError: if there is no such data set or folder, or it does not say who
      is who.
  """
  path = pathlib.Path(name)
  if path.exists():
    with trees.open_tree(path) as tree:
      content = folder_source.read(tree, listing.Problems())
    total = len(content.items)
    return Source(name, alignment or _UNKNOWN, total, path=path)
  plain, _, split = name.partition(":")
  if split and split not in listing.SPLITS:
    raise errors.UserError(
      f"{name}: after the colon stands a split, one of"
      f" {', '.join(listing.SPLITS)}."
    )
  root = place_lib.data_root(data_dir, plain)
  found = prepared.open_prepared(plain, root)
  if not found.has_identities:
    raise errors.UserError(
      f"{plain} has pairs but does not say who is who, so that its people"
      " cannot be audited: give another data set."
    )
  found.check()
  splits = [split] if split else listing.SPLITS
  total = sum(found.num_images(one) for one in splits)
  if not total:
    raise errors.UserError(
      f"{name} has no image there: give another split, or none."
    )
  return Source(name, found.alignment, total, root=root, split=split)


def overlap(a: Source, b: Source) -> bool:
  """Whether two sources have images of one data set in common."""
  if a.path is not None and b.path is not None:
    return a.path.resolve() == b.path.resolve()
  if a.path is not None or b.path is not None:
    return False
  same = a.name.split(":")[0] == b.name.split(":")[0]
  return same and (not a.split or not b.split or a.split == b.split)


def check_framing(
  sources: Sequence[Source], bundle: "bundle_lib.Bundle | None"
) -> None:
  """Raises UserError if a bundle cannot embed the faces of a data set."""
  for source in sources:
    if bundle is None or source.alignment == bundle.alignment:
      continue
    known = frames.places(source.alignment) and frames.places(bundle.alignment)
    if not known:
      raise errors.UserError(
        f"{source.name}: its faces are framed as {source.alignment!r} and"
        f" --bundle wants {bundle.alignment!r}; give --alignment, where this is"
        " a folder of aligned faces, or leave --bundle away."
      )


def hash_framing(sources: Sequence[Source]) -> str | None:
  """Returns the framing to hash all sources in; None: each as it is."""
  kinds = {source.alignment for source in sources}
  known = all(frames.places(kind) for kind in kinds)
  return COMMON if known and len(kinds) > 1 else None


def read(
  source: Source, framing: str | None, bundle: "bundle_lib.Bundle | None"
) -> Images:
  """Reads all images of a data set.

  Args:
    source: the data set.
    framing: of `hash_framing`, for all data sets that are compared.
    bundle: embeds the faces; None leaves embeddings out.

  Returns:
    What is known of them, in the order of the source's rows; images that
    cannot be decoded are counted and left out.
  """
  people: dict[str, int] = {}
  kept: list[tuple[Row, int, bytes]] = []
  grays: list[np.ndarray] = []
  embedder = _Embedder(source.alignment, bundle)
  unreadable: dict[str, int] = {}
  bar = tqdm.tqdm(
    source.rows(), total=source.total, unit="image", desc=source.name,
    leave=False, disable=None,
  )  # fmt: skip
  for place, row in enumerate(bar):
    try:
      pixels = _pixels(row, raw=source.path is not None)
    except encoded.BadImage as error:
      unreadable[error.kind] = unreadable.get(error.kind, 0) + 1
      continue
    people.setdefault(row.person, len(people))
    kept.append((row._replace(data=b""), place, digest(pixels)))
    grays.append(_small(pixels, source.alignment, framing))
    embedder.add(pixels)
  side = hashing.SIDE
  gray = np.array(grays, np.uint8).reshape(-1, side, side)
  return Images(
    source=source,
    people=tuple(people),
    person=np.array([people[row.person] for row, _, _ in kept], np.int32),
    files=tuple(row.file for row, _, _ in kept),
    identities=np.array([row.identity for row, _, _ in kept], np.int64),
    numbers=np.array([row.number for row, _, _ in kept], np.int64),
    places=np.array([place for _, place, _ in kept], np.int64),
    digests=tuple(digest for _, _, digest in kept),
    small=gray,
    hashes=hashing.phash(gray),
    mirrored=hashing.phash(gray[:, :, ::-1]),
    embeddings=embedder.result(),
    unreadable=unreadable,
  )


def _pixels(row: Row, *, raw: bool) -> np.ndarray:
  """Returns the pixels of a row; `raw` says that any file may be there."""
  if row.data is None:
    raise encoded.BadImage("cannot be read")
  data = encoded.keep(row.data).data if raw else row.data
  return encoded.decode(data)


def digest(pixels: np.ndarray) -> bytes:
  """Returns the SHA-256 of an image's size and RGB values."""
  values = np.ascontiguousarray(photo.to_rgb(pixels))
  return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).digest()


def _small(pixels: np.ndarray, given: str, framing: str | None) -> np.ndarray:
  gray = photo.to_gray(pixels)
  if framing is None:
    return cv2.resize(
      gray, (hashing.SIDE, hashing.SIDE), interpolation=cv2.INTER_AREA
    )
  return frames.frame(gray, given, framing, hashing.SIDE)


class _Embedder:
  """Frames and embeds faces, a batch at a time."""

  def __init__(self, given: str, bundle: Any) -> None:
    self._given, self._bundle = given, bundle
    self._faces: list[np.ndarray] = []
    self._done: list[np.ndarray] = []

  def add(self, pixels: np.ndarray) -> None:
    bundle = self._bundle
    if bundle is None:
      return
    gray = bundle.channels == 1
    pixels = photo.to_gray(pixels) if gray else photo.to_rgb(pixels)
    size = bundle.input_size[0]
    face = frames.frame(pixels, self._given, bundle.alignment, size)
    self._faces.append(face.reshape(size, size, bundle.channels))
    if len(self._faces) == _BATCH:
      self._flush()

  def _flush(self) -> None:
    if self._faces:
      self._done.append(self._bundle.embed(np.stack(self._faces)))
      self._faces = []

  def result(self) -> np.ndarray | None:
    if self._bundle is None:
      return None
    self._flush()
    empty = np.zeros((0, self._bundle.dim), np.float32)
    return np.concatenate([empty, *self._done])


def thumbnails(source: Source, wanted: Sequence[int]) -> dict[int, bytes]:
  """Returns some images of a data set as small JPEGs.

  Args:
    source: the data set.
    wanted: places among its rows.

  Returns:
    Place -> JPEG, at most 112 pixels a side.
  """
  found: dict[int, bytes] = {}
  left = set(wanted)
  for number, row in enumerate(source.rows() if left else ()):
    if number in left:
      image = PIL.Image.fromarray(_pixels(row, raw=source.path is not None))
      image.thumbnail((112, 112))
      jpeg = io.BytesIO()
      image.save(jpeg, format="JPEG", quality=90)
      found[number] = jpeg.getvalue()
      left.discard(number)
      if not left:
        break
  return found
