"""The gallery file: people and their embeddings in one SQLite database.

Write-ahead log, full synchronisation: what a call has returned from is on the
disk, and a process killed at any moment leaves the state before or after a
call. Ids are never used twice. Photos are not stored; of each its file's name
and SHA-256 digests, so that the same one is not enrolled twice.
"""

import datetime
import os
import pathlib
import time
import uuid
from collections.abc import Mapping

from facesiam_jax.gallery import (
  checking,
  encryption,
  erasing,
  schema,
  sqlite_file,
  tables,
)
from facesiam_jax.gallery.reader import Reader
from facesiam_jax.gallery.records import (
  Added,
  Templates,
  Terms,
  check_templates,
  clean_name,
  clean_terms,
)

_NO_TERMS = Terms()


class Store(Reader):
  """One open gallery file, for one thread; see `Reader` for its attributes."""

  @classmethod
  def open(
    cls,
    path: str | os.PathLike[str],
    *,
    key_file: str | os.PathLike[str] | None = None,
    timeout_s: float = 30.0,
  ) -> "Store":
    """Opens a gallery file.

    Args:
      path: a file made by `create`.
      key_file: of an encrypted gallery's key.
      timeout_s: how long to wait for another writer, in seconds.

    Returns:
      The open store; close it, or use it in a `with` statement.

    Raises:
      UserError: if there is no such file, it is not a gallery, is of a newer
        version, lies on a network file system or cannot be opened, or the key
        is missing, wrong, not needed or readable by others.
    """
    path = pathlib.Path(path)
    connection = sqlite_file.connect(path, timeout_s)
    try:
      return cls(path, connection, key_file)
    except BaseException:
      connection.close()
      raise

  @classmethod
  def create(
    cls,
    path: str | os.PathLike[str],
    *,
    fingerprint: str,
    dim: int,
    metric: str,
    storage: str = "float32",
    key_file: str | os.PathLike[str] | None = None,
    timeout_s: float = 30.0,
  ) -> "Store":
    """Opens a gallery file, making an empty one where there is none.

    The file appears whole or not at all, readable by its owner only, since it
    holds biometric data.

    Args:
      path: where; its folder must exist.
      fingerprint: of the bundle that makes the embeddings.
      dim: D of the embeddings.
      metric: "cosine" or "euclidean".
      storage: "float32", or "int8" for a quarter of the size; each value is
        then off by at most 1/254 of the largest of its embedding. Of a file
        that is there it stays what it was.
      key_file: encrypt names and templates with this file's key, which is made
        where there is none and no gallery yet; None for a gallery in the clear.
      timeout_s: how long to wait for another writer, in seconds.

    Returns:
      The open store.

    Raises:
      UserError: as `open`, and if the folder is missing or cannot be written.
      ValueError: for an unknown storage.
    """
    if storage not in tables.STORAGES:
      raise ValueError(f"storage must be float32 or int8, got {storage!r}.")
    path = pathlib.Path(path)
    if path.exists():
      return cls.open(path, key_file=key_file, timeout_s=timeout_s)
    meta = {
      "id": uuid.uuid4().hex,
      "fingerprint": fingerprint,
      "dim": str(dim),
      "metric": metric,
      "storage": storage,
      "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    if key_file is not None:
      meta |= encryption.new_meta(key_file, meta["id"])
    sqlite_file.create(path, meta)
    return cls.open(path, key_file=key_file, timeout_s=timeout_s)

  def add(
    self,
    people: Mapping[str, Templates],
    terms: Terms | Mapping[str, Terms] = _NO_TERMS,
  ) -> Added:
    """Enrols people in one transaction: all of them or none.

    Args:
      people: name -> templates; a known name gets more templates.
      terms: on what terms, of all of them or by name; what is None stays as it
        is.

    Returns:
      Added: the number of new templates and the labels of those sources that
      the same person had already.

    Raises:
      UserError: for a bad name or term, an embedding that is not finite, or is
        zero where the metric is cosine, a source that is enrolled under another
        name, no space left, or another writer.
      ValueError: for a wrong shape or dtype.
    """
    # A folder can hold both spellings of one accented name.
    names = {name: clean_name(name) for name in people}
    cleaned = [(names[name], people[name]) for name in people]
    if isinstance(terms, Terms):
      agreed = dict.fromkeys(names.values(), clean_terms(terms))
    else:
      agreed = {
        own: clean_terms(terms.get(name, _NO_TERMS))
        for name, own in names.items()
      }
    check_templates(cleaned, self.dim, self.meta["metric"])
    with self.transaction("IMMEDIATE") as connection:
      self.check_not_moved()
      ids = tables.put_people(connection, agreed, self.codec)
      rows = [(ids[name], templates) for name, templates in cleaned]
      duplicates, count = tables.put_templates(
        connection, rows, self.meta["storage"], self.codec
      )
      if count:
        schema.next_generation(connection)
    return Added(count, duplicates)

  def set_terms(self, name: str, terms: Terms) -> None:
    """Changes the terms that are not None; UserError for an unknown name."""
    terms = clean_terms(terms)
    with self.transaction("IMMEDIATE") as connection:
      self.id_of(name)
      tables.put_people(connection, {clean_name(name): terms}, self.codec)

  def remove(self, name: str) -> int:
    """Removes a person and overwrites what the files held of them.

    Args:
      name: as enrolled.

    Returns:
      How many templates were removed.

    Raises:
      UserError: for an unknown name; if another program holds the gallery, so
        that the removed bytes are still in the log; no space left.
    """
    with self.transaction("IMMEDIATE") as connection:
      removed = tables.delete(connection, [self.id_of(name)])
      schema.next_generation(connection, erased=True)
    self.erase()
    return removed

  def expire(self, today: str | None = None) -> dict[str, int]:
    """Removes everybody whose day has come, and erases them like `remove`.

    Args:
      today: YYYY-MM-DD; None asks the clock.

    Returns:
      name -> number of templates of those who were removed.

    Raises:
      UserError: as `remove`.
    """
    today = today or datetime.date.today().isoformat()
    with self.transaction("IMMEDIATE") as connection:
      gone = connection.execute(
        "SELECT id FROM people WHERE expires <= ?", (today,)
      ).fetchall()
      removed = {
        tables.name_of(connection, self.codec, person): tables.delete(
          connection, [person]
        )
        for (person,) in gone
      }
      if removed:
        schema.next_generation(connection, erased=True)
    if removed:
      self.erase()
    return dict(sorted(removed.items()))

  def erase(self) -> None:
    """Empties the log, which keeps removed bytes until then, and the exports.

    Raises:
      UserError: if another program is still reading the gallery, or an export
        cannot be written.
    """
    erasing.erase(self)

  def checkpoint(self) -> bool:
    """Folds the log into the file and empties it; whether that was held up."""
    (busy, _, _) = self._connection.execute(
      "PRAGMA wal_checkpoint(TRUNCATE)"
    ).fetchone()
    return bool(busy)

  def check(self) -> list[str]:
    """Looks for damage and finishes interrupted erasing.

    Returns:
      One sentence a problem; empty if the file is sound.

    Raises:
      UserError: if the file cannot be read at all.
    """
    with self.transaction("DEFERRED") as connection:
      self._read_meta()
      problems = checking.problems(
        connection,
        self.codec,
        self.dim,
        self.meta["storage"],
        self.meta["metric"],
      )
    self.erase()
    return problems
