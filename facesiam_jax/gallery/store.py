"""The gallery file: people and their embeddings in one SQLite database.

Write-ahead log, full synchronisation: what a call has returned from is on the
disk, and a process killed at any moment leaves the state before or after a
call. A file records the bundle that filled it. Template ids are never used
twice. Photos are not stored; of each only a SHA-256 digest, so that the same
one is not enrolled twice.
"""

import contextlib
import difflib
import os
import pathlib
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import sqlite_file
from facesiam_jax.gallery.records import (
  Added,
  Records,
  Templates,
  clean_name,
)

_MAX_ID = 2**31 - 2


class Store:
  """One open gallery file, for one thread.

  Attributes:
    path: the file.
    meta: what the file records of itself: fingerprint (of the bundle), dim,
      metric, created.
  """

  def __init__(self, path: pathlib.Path, connection: sqlite3.Connection):
    """Wraps a checked connection; use `Store.open` or `Store.create`."""
    self.path = path
    self._connection = connection
    self.meta = dict(connection.execute("SELECT key, value FROM meta"))

  @classmethod
  def open(
    cls, path: str | os.PathLike[str], *, timeout_s: float = 5.0
  ) -> "Store":
    """Opens a gallery file.

    Args:
      path: a file made by `create`.
      timeout_s: how long to wait for another writer, in seconds.

    Returns:
      The open store; close it, or use it in a `with` statement.

    Raises:
      UserError: if there is no such file, it is not a gallery, is of another
        version, lies on a network file system or cannot be opened.
    """
    path = pathlib.Path(path)
    return cls(path, sqlite_file.connect(path, timeout_s))

  @classmethod
  def create(
    cls,
    path: str | os.PathLike[str],
    *,
    fingerprint: str,
    dim: int,
    metric: str,
    timeout_s: float = 5.0,
  ) -> "Store":
    """Opens a gallery file, making an empty one where there is none.

    The file appears whole or not at all, readable by its owner only, since it
    holds biometric data.

    Args:
      path: where; its folder must exist.
      fingerprint: of the bundle that makes the embeddings.
      dim: D of the embeddings.
      metric: "cosine" or "euclidean".
      timeout_s: how long to wait for another writer, in seconds.

    Returns:
      The open store.

    Raises:
      UserError: as `open`, and if the folder is missing or cannot be written.
    """
    path = pathlib.Path(path)
    meta = {
      "fingerprint": fingerprint,
      "dim": str(dim),
      "metric": metric,
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

  @contextlib.contextmanager
  def _transaction(self, kind: str) -> Iterator[sqlite3.Connection]:
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

  def _check_templates(self, name: str, templates: Templates) -> None:
    embeddings = templates.embeddings
    count = len(templates.digests)
    if embeddings.shape != (count, self.dim) or count == 0:
      raise ValueError(
        f"{name}: embeddings must have shape [{count or 'N > 0'}, {self.dim}], "
        f"got {embeddings.shape}."
      )
    if embeddings.dtype != np.float32:
      raise ValueError(
        f"{name}: embeddings must be float32, got {embeddings.dtype}."
      )
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
      label = templates.labels[int(np.argmin(finite))]
      raise errors.UserError(
        f"{label}: its embedding is not finite; look at the picture, and "
        "evaluate the bundle."
      )

  def add(self, people: Mapping[str, Templates]) -> Added:
    """Enrols people in one transaction: all of them or none.

    Args:
      people: name -> templates; a known name gets more templates.

    Returns:
      Added: the number of new templates and the labels of those sources that
      the same person had already.

    Raises:
      UserError: for a bad name, an embedding that is not finite, a source
        that is enrolled under another name, no space left, or another writer.
      ValueError: for a wrong shape or dtype.
    """
    # A folder can hold both spellings of one accented name.
    cleaned = [(clean_name(name), people[name]) for name in people]
    for name, templates in cleaned:
      self._check_templates(name, templates)
    duplicates: list[str] = []
    added = 0
    with self._transaction("IMMEDIATE") as connection:
      for name, templates in cleaned:
        connection.execute(
          "INSERT INTO people(name) VALUES (?) ON CONFLICT DO NOTHING", (name,)
        )
        (person,) = connection.execute(
          "SELECT id FROM people WHERE name = ?", (name,)
        ).fetchone()
        for row in zip(*templates, strict=True):
          if self._add_one(connection, person, *row):
            added += 1
          else:
            duplicates.append(row[2])
    return Added(added, duplicates)

  def _add_one(
    self,
    connection: sqlite3.Connection,
    person: int,
    embedding: np.ndarray,
    digest: bytes,
    label: str,
  ) -> bool:
    """Inserts one template; False if this person has it already."""
    known = connection.execute(
      "SELECT person_id, name FROM templates JOIN people ON people.id = "
      "person_id WHERE digest = ?",
      (digest,),
    ).fetchone()
    if known is not None and known[0] == person:
      return False
    if known is not None:
      raise errors.UserError(
        f"{label}: the same picture is enrolled as {known[1]!r}; take it out "
        "of one of the two, or remove that name first."
      )
    blob = embedding.astype("<f4").tobytes()
    cursor = connection.execute(
      "INSERT INTO templates(person_id, digest, checksum, embedding) "
      "VALUES (?, ?, ?, ?)",
      (person, digest, zlib.crc32(blob), blob),
    )
    if (cursor.lastrowid or 0) > _MAX_ID:
      raise errors.UserError(
        f"{self.path} has used up its {_MAX_ID} template numbers; enroll the "
        "people into a new gallery."
      )
    return True

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
    name = clean_name(name)
    with self._transaction("IMMEDIATE") as connection:
      row = connection.execute(
        "SELECT id FROM people WHERE name = ?", (name,)
      ).fetchone()
      if row is None:
        raise errors.UserError(self._unknown(name))
      removed = connection.execute(
        "DELETE FROM templates WHERE person_id = ?", row
      ).rowcount
      connection.execute("DELETE FROM people WHERE id = ?", row)
    self.erase()
    return removed

  def _unknown(self, name: str) -> str:
    close = difflib.get_close_matches(name, list(self.people()), n=1)
    mend = f"did you mean {close[0]!r}?" if close else "list shows who is."
    return f"Nobody called {name!r} is enrolled in {self.path}; {mend}"

  def erase(self) -> None:
    """Empties the log, which keeps removed bytes until then.

    Raises:
      UserError: if another program is still reading the gallery.
    """
    with sqlite_file.explained(self.path):
      (busy, _, _) = self._connection.execute(
        "PRAGMA wal_checkpoint(TRUNCATE)"
      ).fetchone()
    if busy:
      raise errors.UserError(
        f"{self.path}: what was removed is still in {self.path}-wal because "
        "another program is reading the gallery; close that and run "
        f"`facesiam gallery --gallery={self.path} check`."
      )

  def people(self) -> dict[str, int]:
    """Returns name -> number of templates, by name."""
    with sqlite_file.explained(self.path):
      return dict(
        self._connection.execute(
          "SELECT name, count(templates.id) FROM people LEFT JOIN templates "
          "ON person_id = people.id GROUP BY people.id ORDER BY name"
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
      UserError: if an embedding has not D finite values.
    """
    with self._transaction("DEFERRED") as connection:
      names = dict(connection.execute("SELECT id, name FROM people"))
      rows = connection.execute(
        "SELECT id, person_id, embedding FROM templates ORDER BY id"
      ).fetchall()
    blob = b"".join(row[2] for row in rows)
    numbers = np.array([row[:2] for row in rows], np.int32).reshape(-1, 2)
    whole = all(len(row[2]) == 4 * self.dim for row in rows)
    embeddings = np.frombuffer(blob, "<f4") if whole else np.full(1, np.nan)
    if not np.isfinite(embeddings).all():
      raise errors.UserError(
        f"{self.path} is damaged: an embedding has not {self.dim} finite "
        "values; restore it from a backup or enroll the people again."
      )
    embeddings = embeddings.astype(np.float32, copy=False)
    return Records(
      numbers[:, 0], numbers[:, 1], embeddings.reshape(-1, self.dim), names
    )

  def check(self) -> list[str]:
    """Looks for damage and finishes interrupted erasing.

    Returns:
      One sentence a problem; empty if the file is sound.

    Raises:
      UserError: if the file cannot be read at all.
    """
    with self._transaction("DEFERRED") as connection:
      found = connection.execute("PRAGMA integrity_check").fetchall()
      problems = [f"SQLite: {row[0]}." for row in found if row[0] != "ok"]
      found = connection.execute("PRAGMA foreign_key_check").fetchall()
      problems += [f"Template {row[1]} belongs to nobody." for row in found]
      rows = connection.execute("SELECT id, checksum, embedding FROM templates")
      for template, checksum, blob in rows:
        if len(blob) != 4 * self.dim or zlib.crc32(blob) != checksum:
          problems.append(f"Template {template}: its embedding is damaged.")
        elif not np.isfinite(np.frombuffer(blob, "<f4")).all():
          problems.append(f"Template {template}: its embedding is not finite.")
    self.erase()
    return problems
