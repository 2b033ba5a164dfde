"""Writing a gallery file as a shard set, and keeping account of such sets.

A gallery remembers where its sets lie. Whoever is removed from it is in none of
them any more: such a set is deleted, and is written anew from the file. A set
that was written before somebody was enrolled or removed is told by its
generation and is not searched.
"""

import contextlib
import errno
import os
import pathlib
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import parts, schema, sqlite_file, tables
from facesiam_jax.gallery.parts import Manifest, ShardSet
from facesiam_jax.gallery.records import Block

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store

# A part is held in memory whole, when it is written and when it is read.
PART_BYTES = 64 << 20
# So many parts and pieces that a device's share is even to some percent.
_PARTS, _PIECES = 64, 16
_LEAST_ROWS = 1024


def _rows_at_once(num_templates: int, row_bytes: int) -> int:
  """Returns how many rows a part is to have."""
  even = max(_LEAST_ROWS, -(-num_templates // _PARTS))
  return max(1, min(even, PART_BYTES // row_bytes))


def _parts_of(
  store: "Store", connection: sqlite3.Connection, rows: int
) -> Iterator[Block]:
  """Yields blocks of whole people, of about so many rows."""
  after = (0, 0)
  held: Block | None = None
  while True:
    block = store.block(connection, after, rows)
    full = block if held is None else held.then(block)
    if len(block.template_ids) < rows:
      if len(full.template_ids):
        yield full
      return
    after = (int(full.person_ids[-1]), int(full.template_ids[-1]))
    # Whoever is last may go on in the next rows.
    whole = int(np.searchsorted(full.person_ids, after[0]))
    if whole:
      yield full.cut(0, whole)
    held = full.cut(whole)


def _pieces(person_ids: np.ndarray) -> list[int]:
  """Returns the rows of about _PIECES pieces of whole people."""
  count = len(person_ids)
  begins = np.flatnonzero(np.diff(person_ids, prepend=-1))
  marks = np.arange(0, count, max(1, -(-count // _PIECES)))
  starts = np.unique(begins[np.searchsorted(begins, marks, side="right") - 1])
  return np.diff(np.append(starts, count)).tolist()


def _put_names(
  folder: pathlib.Path, rows: Iterable[tuple[int, str]], at_once: int
) -> tuple[list[int], int]:
  """Writes names; the first person id of each part, and how many there are."""
  firsts: list[int] = []
  held: list[tuple[int, bytes]] = []
  size = count = 0

  def put() -> None:
    texts = [text for _, text in held]
    arrays: dict[str, np.ndarray] = {
      "person_ids": np.array([person for person, _ in held], np.int32),
      "ends": np.cumsum([len(text) for text in texts], dtype=np.int64),
      "text": np.frombuffer(b"".join(texts), np.uint8),
    }
    parts.save(folder / parts.part_name("names", len(firsts)), arrays)
    firsts.append(held[0][0])

  for person, name in rows:
    held.append((person, name.encode()))
    size, count = size + len(held[-1][1]) + 12, count + 1
    if size >= at_once:
      put()
      size, held = 0, []
  if held:
    put()
  return firsts, count


def _fill(
  store: "Store", connection: sqlite3.Connection, folder: pathlib.Path
) -> Manifest:
  """Writes all files of a set, the manifest last."""
  (folder / "parts").mkdir()
  (folder / "names").mkdir()
  query = "SELECT count(*) FROM templates"
  (num_templates,) = connection.execute(query).fetchone()
  size = tables.row_bytes(store.dim, store.meta["storage"])
  pieces = []
  for number, block in enumerate(
    _parts_of(store, connection, _rows_at_once(num_templates, size))
  ):
    parts.save(folder / parts.part_name("parts", number), block.arrays())
    pieces.append(_pieces(block.person_ids))
  enrolled = (
    (row.id, row.name) for row in tables.enrolled(connection, store.codec)
  )
  people, num_people = _put_names(folder, enrolled, PART_BYTES)
  manifest = Manifest(
    format=parts.FORMAT,
    gallery=store.meta["id"],
    path=str(store.path.absolute()),
    generation=store.generation(),
    fingerprint=store.meta["fingerprint"],
    dim=store.dim,
    metric=store.meta["metric"],
    storage=store.meta["storage"],
    written=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    pieces=pieces,
    people=people,
    num_people=num_people,
    files=parts.digests(folder),
  )
  parts.write_manifest(folder, manifest)
  _sync(folder)
  return manifest


def _sync(folder: pathlib.Path) -> None:
  """Has all files of a folder survive a power cut; the owner's alone."""
  for path in [folder, *folder.rglob("*")]:
    path.chmod(0o700 if path.is_dir() else 0o600)
    descriptor = os.open(path, os.O_RDONLY)
    try:
      os.fsync(descriptor)
    finally:
      os.close(descriptor)


def _temporary(folder: pathlib.Path, generation: int) -> pathlib.Path:
  name = f".{folder.name}.{generation}.{uuid.uuid4().hex}.tmp"
  return folder.with_name(name)


def _leftovers(folder: pathlib.Path, before: int) -> list[pathlib.Path]:
  """Returns what killed writers left of sets before a generation."""
  found = []
  for path in folder.parent.glob(f".{folder.name}.*.*.tmp"):
    number = path.name.removeprefix(f".{folder.name}.").split(".")[0]
    if number.isdigit() and int(number) < before:
      found.append(path)
  return found


def _check_place(store: "Store", folder: pathlib.Path) -> None:
  if not folder.parent.is_dir():
    raise errors.UserError(
      f"--out={folder}: the folder {folder.parent} does not exist; make it "
      "first."
    )
  if not os.path.lexists(folder):
    return
  with contextlib.suppress(errors.UserError):
    if parts.read_manifest(folder).gallery == store.meta["id"]:
      return
  raise errors.UserError(
    f"--out={folder} is there and is no shard set of {store.path}; name a new "
    "folder, or delete it."
  )


def _replace(temporary: pathlib.Path, folder: pathlib.Path) -> None:
  """Gives a finished set its name, in the place of an older one."""
  if folder.exists():
    # Of generation 0, so that any erasing clears it away after a kill.
    old = _temporary(folder, 0)
    os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old)
  else:
    os.rename(temporary, folder)
  sqlite_file.sync_folder(folder.parent)


def write(
  store: "Store", folder: str | os.PathLike[str], *, in_clear: bool = False
) -> Manifest:
  """Writes a gallery as a shard set, which appears whole or not at all.

  The file is read by rows, a part at a time; others may go on reading and
  writing it.

  Args:
    store: an open gallery.
    folder: what to make; a set of the same gallery is replaced.
    in_clear: also of an encrypted gallery, the set of which is not encrypted.

  Returns:
    What the set says of itself.

  Raises:
    UserError: if the folder is something else or cannot be written, if
      somebody was enrolled or removed meanwhile, and for an encrypted gallery
      without `in_clear`.
  """
  folder = pathlib.Path(folder).absolute()
  if store.is_encrypted and not in_clear:
    raise errors.UserError(
      f"{store.path} is encrypted and a shard set is not: names and templates "
      "would lie there in clear; add --in_clear if that is wanted."
    )
  _check_place(store, folder)
  # First, so that no set is ever unknown; the time is that of a whole one.
  _record(store, folder, "")
  try:
    return _write(store, folder)
  except errors.UserError:
    raise
  # TensorStore tells of a full disk in exceptions of several kinds.
  except Exception as error:
    raise _explained(folder, error) from error


def _explained(folder: pathlib.Path, error: Exception) -> Exception:
  text = str(error).lower()
  is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
  if is_full or "no space left" in text or "resource_exhausted" in text:
    return errors.UserError(
      f"no space left for {folder}; free some and run the command again."
    )
  if isinstance(error, OSError):
    return errors.UserError(
      f"--out={folder} cannot be written ({error.strerror}); give this user "
      f"write permission on {folder.parent}."
    )
  return error


def _write(store: "Store", folder: pathlib.Path) -> Manifest:
  with contextlib.ExitStack() as undo:
    with store.transaction("DEFERRED") as connection:
      generation = store.generation()
      for leftover in _leftovers(folder, generation + 1):
        shutil.rmtree(leftover)
      temporary = _temporary(folder, generation)
      temporary.mkdir(mode=0o700)
      undo.callback(shutil.rmtree, temporary, ignore_errors=True)
      manifest = _fill(store, connection, temporary)
    # Who removes somebody from here on finds the set, and deletes it.
    with store.transaction("IMMEDIATE") as connection:
      now = store.generation()
      if now != generation:
        raise errors.UserError(
          f"{folder} was not written: people were enrolled in {store.path} or "
          f"removed meanwhile (generation {generation}, now {now}); run the "
          "command again."
        )
      _replace(temporary, folder)
      _insert(connection, folder, manifest.written)
  return manifest


def _insert(
  connection: sqlite3.Connection, folder: pathlib.Path, written: str
) -> None:
  connection.execute(
    "INSERT OR REPLACE INTO shards VALUES (?, ?)", (str(folder), written)
  )


def _record(store: "Store", folder: pathlib.Path, written: str) -> None:
  with store.transaction("IMMEDIATE") as connection:
    known = "SELECT 1 FROM shards WHERE path = ?"
    if not connection.execute(known, (str(folder),)).fetchone():
      _insert(connection, folder, written)


def known(store: "Store") -> list[pathlib.Path]:
  """Returns where the gallery's sets were written, also unfinished ones."""
  with store.transaction("DEFERRED") as connection:
    rows = connection.execute("SELECT path FROM shards ORDER BY path")
    return [pathlib.Path(path) for (path,) in rows]


def missing(store: "Store") -> list[str]:
  """Returns the sets that are not where they were written."""
  query = "SELECT path FROM shards WHERE written != '' ORDER BY path"
  with store.transaction("DEFERRED") as connection:
    paths = [path for (path,) in connection.execute(query)]
  return [path for path in paths if not os.path.exists(path)]


def sets(store: "Store") -> list[ShardSet]:
  """Returns the gallery's sets that are where they were written.

  Raises:
    UserError: if the manifest of one cannot be read.
  """
  found = [ShardSet(path) for path in known(store) if path.exists()]
  return [one for one in found if one.manifest.gallery == store.meta["id"]]


def clean(store: "Store") -> None:
  """Deletes the sets that hold somebody who is not in the gallery any more.

  Raises:
    UserError: if one cannot be deleted, or it cannot be told what it holds.
  """
  with store.transaction("DEFERRED") as connection:
    erased = int(schema.read_meta(connection)["erased"])
  for folder in known(store):
    try:
      _clean(store, folder, erased)
    except OSError as error:
      raise errors.UserError(
        f"{folder} holds people who were removed and cannot be deleted "
        f"({error.strerror}); delete it yourself."
      ) from error


def _clean(store: "Store", folder: pathlib.Path, erased: int) -> None:
  if folder.exists():
    found = parts.read_manifest(folder)
    if found.gallery == store.meta["id"] and found.generation < erased:
      # A half-deleted set has not its name.
      os.rename(folder, _temporary(folder, 0))
  for leftover in _leftovers(folder, erased):
    shutil.rmtree(leftover)
    _forget(store, folder)


def _forget(store: "Store", folder: pathlib.Path) -> None:
  if not folder.exists():
    with store.transaction("IMMEDIATE") as connection:
      connection.execute("DELETE FROM shards WHERE path = ?", (str(folder),))


def staleness(shards: ShardSet) -> str | None:
  """Says whether somebody was enrolled or removed since a set was written.

  Returns:
    A sentence with both generations and the mend; None where there is nothing
    to say, or the gallery's file cannot be reached from here.
  """
  of = shards.manifest
  told = sqlite_file.told_of(pathlib.Path(of.path))
  if told is None or told.get("id") != of.gallery:
    return None
  now = int(told["generation"])
  if now == of.generation:
    return None
  return (
    f"{shards.folder} is of generation {of.generation} of {of.path}, which is "
    f"at generation {now} now (people were enrolled or removed since); write "
    f"it anew with `facesiam gallery --gallery={of.path} shard "
    f"--out={shards.folder}`."
  )


def check_fresh(shards: ShardSet) -> None:
  """Raises UserError for a set that `staleness` says something of."""
  sentence = staleness(shards)
  if sentence:
    raise errors.UserError(sentence)
