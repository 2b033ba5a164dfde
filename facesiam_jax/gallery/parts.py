"""A shard set: a gallery as a folder of Orbax checkpoints, each of some rows.

  parts/00000/  vectors, scales (of int8 alone), template_ids, person_ids,
                quality
  names/00000/  person_ids, ends, text: names of people, UTF-8 after each other
  manifest.json what the set is of, its generation, and a SHA-256 of each file

Rows stand in the order of (person, template id). A part is made of pieces, and
a piece of whole people, so that a device that takes whole pieces holds all
templates of its people. Nobody reads more than a part at a time. Orbax restores
flipped bits without a word, so what is read is compared with its SHA-256.
"""

import bisect
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import errors, files
from facesiam_jax.gallery import tables
from facesiam_jax.gallery.records import Block

MANIFEST = "manifest.json"
FORMAT = 1


class Manifest(NamedTuple):
  """What a shard set says of itself.

  Attributes:
    format: of the set, FORMAT.
    gallery: id of the gallery.
    path: where the gallery's file lay.
    generation: of the gallery when it was written.
    fingerprint: of the bundle.
    dim: D of the embeddings.
    metric: "cosine" or "euclidean".
    storage: "float32" or "int8".
    written: when.
    pieces: of each part the rows of its pieces.
    people: of each names' part the first person id.
    num_people: how many there are.
    files: path -> SHA-256, hex.
  """

  format: int
  gallery: str
  path: str
  generation: int
  fingerprint: str
  dim: int
  metric: str
  storage: str
  written: str
  pieces: list[list[int]]
  people: list[int]
  num_people: int
  files: dict[str, str]

  @property
  def num_templates(self) -> int:
    """How many templates the set holds."""
    return sum(map(sum, self.pieces))


def _checkpointer() -> Any:
  """Returns what reads and writes arrays for this process alone."""
  import jax
  import orbax.checkpoint as ocp

  own = jax.process_index()
  alone = ocp.options.MultiprocessingOptions(
    primary_host=own,
    active_processes={own},
    barrier_sync_key_prefix=f"process_{own}",
  )
  # Embeddings hardly compress.
  handler = ocp.PyTreeCheckpointHandler(
    use_compression=False, multiprocessing_options=alone
  )
  return ocp.Checkpointer(handler, multiprocessing_options=alone)


def save(folder: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays as an Orbax checkpoint; the folder above exists."""
  with _checkpointer() as checkpointer:
    checkpointer.save(folder, arrays)


def part_name(kind: str, number: int) -> str:
  """Returns where a part lies in the set; `kind` is "parts" or "names"."""
  return f"{kind}/{number:05d}"


def digests(folder: pathlib.Path, below: str = "") -> dict[str, str]:
  """Returns path in the set -> SHA-256 of all files in or below a folder."""
  return {
    path.relative_to(folder).as_posix(): files.sha256(path)
    for path in sorted((folder / below).rglob("*"))
    if path.is_file() and path != folder / MANIFEST
  }


def read_manifest(folder: pathlib.Path) -> Manifest:
  """Reads what a set says of itself.

  Raises:
    UserError: if the folder holds no set that this program can read.
  """
  mend = "name a folder made by `facesiam gallery --gallery=FILE shard`"
  try:
    told = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if told["format"] != FORMAT:
      raise errors.UserError(
        f"{folder} is a shard set of format {told['format']}, and this program "
        f"reads {FORMAT}; write it anew with this program."
      )
    checksum = told.pop("checksum")
    manifest = Manifest(**told)
  except OSError as error:
    raise errors.UserError(
      f"{folder} is no shard set ({MANIFEST}: {error.strerror}); {mend}."
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise errors.UserError(
      f"{folder / MANIFEST} is damaged; write the shard set anew, or {mend}."
    ) from error
  if checksum != _checksum(manifest):
    raise errors.UserError(
      f"{folder / MANIFEST} is damaged (its checksum differs); write the shard "
      "set anew."
    )
  return manifest


def _checksum(manifest: Manifest) -> str:
  text = json.dumps(manifest._asdict(), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(folder: pathlib.Path, manifest: Manifest) -> None:
  """Writes what a set says of itself; the last of its files."""
  told = {**manifest._asdict(), "checksum": _checksum(manifest)}
  files.write(folder / MANIFEST, json.dumps(told, indent=1))


class ShardSet:
  """A shard set that is read part by part.

  Attributes:
    folder: where it lies.
    manifest: what it says of itself.
    part: reads a part by its number and keeps the last one.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    """Reads the manifest of a set, and nothing else.

    Args:
      folder: written by `sharding.write`.

    Raises:
      UserError: if it holds no set.
    """
    self.folder = pathlib.Path(folder).absolute()
    self.manifest = read_manifest(self.folder)
    self._names = functools.lru_cache(4)(self._read_names)
    # Two devices often share a part.
    self.part = functools.lru_cache(1)(self._read_part)

  @property
  def bounds(self) -> list[int]:
    """The first row of each piece, and the number of rows."""
    rows = [rows for part in self.manifest.pieces for rows in part]
    return [0, *np.cumsum(rows, dtype=np.int64).tolist()]

  def check_bundle(self, fingerprint: str) -> None:
    """Raises UserError for a bundle other than the one that filled it."""
    own = self.manifest.fingerprint
    if fingerprint != own:
      raise errors.UserError(
        f"{self.folder} was filled by another bundle (fingerprint {own[:12]}, "
        f"not {fingerprint[:12]}); use that bundle, or shard a gallery of this."
      )

  def _damaged(self, what: str) -> errors.UserError:
    return errors.UserError(
      f"{self.folder} is damaged ({what}); write it anew with `facesiam "
      f"gallery --gallery={self.manifest.path} shard --out={self.folder}`."
    )

  def _load(self, name: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a part, having checked its files."""
    self._check_files(name)
    try:
      with _checkpointer() as checkpointer:
        return dict(checkpointer.restore(self.folder / name))
    except (OSError, ValueError, KeyError) as error:
      raise self._damaged(f"{name} cannot be read: {error}") from error

  def _check_files(self, below: str) -> None:
    try:
      found = digests(self.folder, below)
    except OSError as error:
      raise self._damaged(f"{error.filename}: {error.strerror}") from error
    recorded = {
      name: digest
      for name, digest in self.manifest.files.items()
      if name.startswith(f"{below}/") or not below
    }
    for name in sorted(recorded.keys() | found.keys()):
      if name not in found:
        raise self._damaged(f"{name} is missing")
      if name not in recorded:
        raise self._damaged(f"the manifest knows no {name}")
      if found[name] != recorded[name]:
        raise self._damaged(f"the SHA-256 of {name} differs from the manifest")

  def _read_part(self, number: int) -> Block:
    """Reads a part.

    Args:
      number: of the part, from 0.

    Returns:
      Block, in the order of (person, template id).

    Raises:
      UserError: if it is damaged.
    """
    arrays = self._load(part_name("parts", number))
    # Of galleries of before there was a quality, none is known.
    unknown = np.ones(len(arrays["template_ids"]), np.float32)
    block = Block(
      arrays["template_ids"],
      arrays["person_ids"],
      arrays["vectors"],
      arrays.get("scales"),
      arrays.get("quality", unknown),
    )
    shape = (sum(self.manifest.pieces[number]), self.manifest.dim)
    if block.vectors.shape != shape or len(block.person_ids) != shape[0]:
      raise self._damaged(f"part {number} has not the shape {shape}")
    return block

  def rows(self, first: int, last: int) -> Iterator[tuple[int, Block]]:
    """Reads some rows, a part at a time.

    Args:
      first: row of the set.
      last: the row after the last that is wanted.

    Yields:
      The row that a block starts at, and the block.

    Raises:
      UserError: if a part is damaged.
    """
    start = 0
    for number, pieces in enumerate(self.manifest.pieces):
      size = sum(pieces)
      low, high = max(first, start), min(last, start + size)
      if low < high:
        yield low, self.part(number).cut(low - start, high - start)
      start += size

  def _read_names(self, number: int) -> dict[int, str]:
    arrays = self._load(part_name("names", number))
    text = arrays["text"].tobytes()
    ends = arrays["ends"].tolist()
    starts = [0, *ends[:-1]]
    people = arrays["person_ids"].tolist()
    return {
      person: text[start:end].decode()
      for person, start, end in zip(people, starts, ends, strict=True)
    }

  def name(self, person: int) -> str:
    """Returns a person's name; reads the part of the names that it is in.

    Raises:
      KeyError: for an unknown person.
      UserError: if that part is damaged.
    """
    number = bisect.bisect_right(self.manifest.people, person) - 1
    if number < 0:
      raise KeyError(person)
    return self._names(number)[person]

  def problems(self) -> list[str]:
    """Looks for damage everywhere in the set, part by part.

    Returns:
      One sentence a problem.
    """
    try:
      self._check_files("")
      found = sum(map(self._check_part, range(len(self.manifest.pieces))))
      names = range(len(self.manifest.people))
      people = sum(len(self._read_names(number)) for number in names)
      if (found, people) != (people, self.manifest.num_people):
        raise self._damaged(f"it has names of {people} people, not of {found}")
    except errors.UserError as error:
      return [str(error)]
    return []

  def _check_part(self, number: int) -> int:
    """Returns how many people a part holds; UserError if it is damaged."""
    block = self.part(number)
    rows = tables.join(block.vectors, block.scales)
    if not np.isfinite(rows).all():
      raise self._damaged(f"an embedding of part {number} is not finite")
    return len(np.unique(block.person_ids))
