"""The gallery file: people and their embeddings in one SQLite database.

Write-ahead log, full synchronisation: what a call has returned from is on the
disk, and a process killed at any moment leaves the state before or after a
call. Ids are never used twice. Photos are not stored; of each its file's name
and SHA-256 digests, so that the same one is not enrolled twice.
"""

import contextlib
import datetime
import difflib
import os
import pathlib
import sqlite3
import time
from collections.abc import Iterator, Mapping

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import erasing, schema, sqlite_file, tables
from facesiam_jax.gallery.records import (
  Added,
  Member,
  Records,
  Templates,
  Terms,
  check_templates,
  clean_name,
  clean_terms,
)

_NO_TERMS = Terms()


class Store:
  """One open gallery file, for one thread.

  Attributes:
    path: the file.
    meta: what the file records of itself: fingerprint (of the bundle), dim,
      metric, storage ("float32" or "int8"), created, id.
  """

  def __init__(self, path: pathlib.Path, connection: sqlite3.Connection):
    """Wraps a checked connection; use `Store.open` or `Store.create`."""
    self.path = path
    self._connection = connection
    self.meta = self._read_meta()

  @classmethod
  def open(
    cls, path: str | os.PathLike[str], *, timeout_s: float = 30.0
  ) -> "Store":
    """Opens a gallery file.

    Args:
      path: a file made by `create`.
      timeout_s: how long to wait for another writer, in seconds.

    Returns:
      The open store; close it, or use it in a `with` statement.

    Raises:
      UserError: if there is no such file, it is not a gallery, is of a newer
        version, lies on a network file system or cannot be opened.
    """
    path = pathlib.Path(path)
    connection = sqlite_file.connect(path, timeout_s)
    try:
      return cls(path, connection)
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
    meta = {
      "fingerprint": fingerprint,
      "dim": str(dim),
      "metric": metric,
      "storage": storage,
      "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    sqlite_file.create(path, meta)
    return cls.open(path, timeout_s=timeout_s)

  def close(self) -> None:
    """Closes the file; the last to close it folds the log into it."""
    self._connection.close()

  def __enter__(self) -> "Store":
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  @property
  def dim(self) -> int:
    """D of the embeddings."""
    return int(self.meta["dim"])

  def check_bundle(self, fingerprint: str) -> None:
    """Refuses a bundle other than the one that filled the gallery.

    Args:
      fingerprint: of the bundle at hand.

    Raises:
      UserError: if it differs; embeddings of two networks do not compare.
    """
    if fingerprint != self.meta["fingerprint"]:
      raise errors.UserError(
        f"{self.path} was filled by another bundle (fingerprint "
        f"{self.meta['fingerprint'][:12]}, not {fingerprint[:12]}); use that "
        "bundle, or enroll the people into a new gallery."
      )

  def _read_meta(self) -> dict[str, str]:
    with sqlite_file.explained(self.path):
      meta = dict(self._connection.execute("SELECT key, value FROM meta"))
    if meta.get("checksum") != schema.meta_checksum(meta):
      raise errors.UserError(
        f"{self.path} is damaged (what it records of itself does not match its "
        "checksum); restore it from a backup or enroll the people again."
      )
    return meta

  def check_not_moved(self) -> None:
    """Raises if another process has moved the gallery to another bundle."""
    before, now = self.meta["fingerprint"], self._read_meta()["fingerprint"]
    if now != before:
      raise errors.UserError(
        f"{self.path} was moved to another bundle meanwhile (fingerprint "
        f"{now[:12]}, not {before[:12]}); open it anew with that bundle."
      )

  @contextlib.contextmanager
  def transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
    """Runs statements as one transaction, "IMMEDIATE" or "DEFERRED"."""
    with sqlite_file.explained(self.path):
      self._connection.execute(f"BEGIN {kind}")
      try:
        yield self._connection
        self._connection.execute("COMMIT")
      except BaseException:
        # A full disk makes SQLite roll back by itself.
        if self._connection.in_transaction:
          self._connection.execute("ROLLBACK")
        raise

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
    if isinstance(terms, Terms):
      terms = dict.fromkeys(people, terms)
    agreed = {
      clean_name(name): clean_terms(terms.get(name, _NO_TERMS))
      for name in people
    }
    # A folder can hold both spellings of one accented name.
    cleaned = [(clean_name(name), people[name]) for name in people]
    check_templates(cleaned, self.dim, self.meta["metric"])
    with self.transaction("IMMEDIATE") as connection:
      self.check_not_moved()
      ids = tables.put_people(connection, agreed)
      rows = [(ids[name], templates) for name, templates in cleaned]
      storage = self.meta["storage"]
      duplicates, count = tables.put_templates(connection, rows, storage)
    return Added(count, duplicates)

  def set_terms(self, name: str, terms: Terms) -> None:
    """Changes the terms that are not None; UserError for an unknown name."""
    terms = clean_terms(terms)
    with self.transaction("IMMEDIATE") as connection:
      self.id_of(name)
      tables.put_people(connection, {clean_name(name): terms})

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
        "SELECT id, name FROM people WHERE expires <= ? ORDER BY name", (today,)
      ).fetchall()
      removed = {
        name: tables.delete(connection, [person]) for person, name in gone
      }
    if removed:
      self.erase()
    return removed

  def id_of(self, name: str) -> int:
    """Returns a person's id, or raises UserError for an unknown name."""
    name = clean_name(name)
    with sqlite_file.explained(self.path):
      row = self._connection.execute(
        "SELECT id FROM people WHERE name = ?", (name,)
      ).fetchone()
    if row is None:
      close = difflib.get_close_matches(name, list(self.people()), n=1)
      mend = f"did you mean {close[0]!r}?" if close else "list shows who is."
      raise errors.UserError(
        f"Nobody called {name!r} is enrolled in {self.path}; {mend}"
      )
    return int(row[0])

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

  def reload(self) -> None:
    """Reads again what the file records of itself."""
    self.meta = self._read_meta()

  def people(self) -> dict[str, int]:
    """Returns name -> number of templates, by name."""
    return {member.name: member.templates for member in self.members()}

  def members(self) -> list[Member]:
    """Returns what is known of each person, by name."""
    with sqlite_file.explained(self.path):
      rows = self._connection.execute(
        "SELECT name, count(templates.id), min(enrolled), max(enrolled), "
        "consent, purpose, expires FROM people LEFT JOIN templates "
        "ON person_id = people.id GROUP BY people.id ORDER BY name"
      ).fetchall()
    return [
      Member(name, count, oldest, newest, Terms(*terms))
      for name, count, oldest, newest, *terms in rows
    ]

  def removals(self) -> list[tuple[int, str]]:
    """Returns the person ids that were removed and when, oldest first."""
    with sqlite_file.explained(self.path):
      return self._connection.execute(
        "SELECT person_id, removed FROM removals ORDER BY removed, person_id"
      ).fetchall()

  def files(self) -> dict[bytes, str]:
    """Returns SHA-256 of a photo's file -> who is enrolled from it."""
    with sqlite_file.explained(self.path):
      return dict(
        self._connection.execute(
          "SELECT file_hash, name FROM templates JOIN people "
          "ON people.id = person_id WHERE file_hash IS NOT NULL"
        )
      )

  def version(self) -> tuple[int, int]:
    """Returns a value that changes when anybody has changed the file."""
    with sqlite_file.explained(self.path):
      (others,) = self._connection.execute("PRAGMA data_version").fetchone()
    return others, self._connection.total_changes

  def records(self) -> Records:
    """Reads the whole gallery.

    Returns:
      Records, in the order of the template ids.

    Raises:
      UserError: if an embedding has not D finite values, or the gallery was
        moved to another bundle since it was opened.
    """
    with self.transaction("DEFERRED") as connection:
      return self.read(connection)

  def read(self, connection: sqlite3.Connection) -> Records:
    """Does what `records` does, in the caller's transaction."""
    self.check_not_moved()
    names = dict(connection.execute("SELECT id, name FROM people"))
    rows = connection.execute(
      "SELECT id, person_id, embedding FROM templates ORDER BY id"
    ).fetchall()
    blob = b"".join(row[2] for row in rows)
    numbers = np.array([row[:2] for row in rows], np.int32).reshape(-1, 2)
    storage = self.meta["storage"]
    size = tables.row_bytes(self.dim, storage)
    embeddings = np.full((1, 1), np.nan, np.float32)
    if all(len(row[2]) == size for row in rows):
      embeddings = tables.decode(blob, self.dim, storage)
    if not np.isfinite(embeddings).all():
      raise errors.UserError(
        f"{self.path} is damaged: an embedding has not {self.dim} finite "
        "values; restore it from a backup or enroll the people again."
      )
    return Records(numbers[:, 0], numbers[:, 1], embeddings, names)

  def check(self) -> list[str]:
    """Looks for damage and finishes interrupted erasing.

    Returns:
      One sentence a problem; empty if the file is sound.

    Raises:
      UserError: if the file cannot be read at all.
    """
    with self.transaction("DEFERRED") as connection:
      self._read_meta()
      problems = tables.problems(
        connection, self.dim, self.meta["storage"], self.meta["metric"]
      )
    self.erase()
    return problems
