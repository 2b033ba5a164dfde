"""Reading a gallery file."""

import contextlib
import difflib
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import encryption, schema, sqlite_file, tables
from facesiam_jax.gallery.codec import PersonRow
from facesiam_jax.gallery.records import (
  Block,
  Member,
  Records,
  Terms,
  clean_name,
  is_quality,
)


class Reader:
  """One open gallery file, as far as it is read; `store.Store` is the whole.

  Attributes:
    path: the file.
    meta: what the file records of itself: fingerprint (of the bundle), dim,
      metric, storage ("float32" or "int8"), created, id, generation (as it
      was when the file was opened).
    codec: how its rows are stored.
  """

  def __init__(
    self,
    path: pathlib.Path,
    connection: sqlite3.Connection,
    key_file: str | os.PathLike[str] | None = None,
  ):
    """Wraps a checked connection; use `Store.open` or `Store.create`."""
    self.path = path
    self._connection = connection
    self.meta = self._read_meta()
    self.codec = encryption.codec_of(path, self.meta, key_file)

  def close(self) -> None:
    """Closes the file; the last to close it folds the log into it."""
    self._connection.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  @property
  def dim(self) -> int:
    """D of the embeddings."""
    return int(self.meta["dim"])

  @property
  def is_encrypted(self) -> bool:
    """Whether names and templates are encrypted in the file."""
    return self.codec.is_sealed

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
      meta = schema.read_meta(self._connection)
    if meta.get("checksum") != schema.meta_checksum(meta):
      raise self._damaged(
        "what it records of itself does not match its checksum"
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

  def id_of(self, name: str) -> int:
    """Returns a person's id, or raises UserError for an unknown name."""
    name = clean_name(name)
    with sqlite_file.explained(self.path):
      row = self._connection.execute(
        "SELECT id FROM people WHERE name = ?", (self.codec.index(name),)
      ).fetchone()
    if row is None:
      close = difflib.get_close_matches(name, list(self.people()), n=1)
      mend = f"did you mean {close[0]!r}?" if close else "list shows who is."
      raise errors.UserError(
        f"Nobody called {name!r} is enrolled in {self.path}; {mend}"
      )
    return int(row[0])

  def reload(self) -> None:
    """Reads again what the file records of itself."""
    self.meta = self._read_meta()

  def people(self) -> dict[str, int]:
    """Returns name -> number of templates, by name."""
    return {member.name: member.templates for member in self.members()}

  def members(self) -> list[Member]:
    """Returns what is known of each person, by name."""
    columns = ", ".join(f"people.{name}" for name in PersonRow._fields)
    with sqlite_file.explained(self.path):
      rows = self._connection.execute(
        f"SELECT count(templates.id), min(enrolled), max(enrolled), {columns} "
        "FROM people LEFT JOIN templates ON person_id = people.id "
        "GROUP BY people.id"
      ).fetchall()
    found = []
    for count, oldest, newest, *stored in rows:
      row = self.codec.open_person(PersonRow(*stored))
      terms = Terms(row.consent, row.purpose, row.expires)
      found.append(Member(row.name, count, oldest, newest, terms))
    return sorted(found, key=lambda member: member.name)

  def removals(self) -> list[tuple[int, str]]:
    """Returns the person ids that were removed and when, oldest first."""
    with sqlite_file.explained(self.path):
      return self._connection.execute(
        "SELECT person_id, removed FROM removals ORDER BY removed, person_id"
      ).fetchall()

  def files(self) -> dict[bytes, str]:
    """Returns SHA-256 of a photo's file -> who is enrolled from it."""
    with self.transaction("DEFERRED") as connection:
      return tables.files(connection, self.codec)

  def generation(self) -> int:
    """Returns a number that grows with each enrolment and removal."""
    return int(self._read_meta()["generation"])

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
      UserError: if an embedding has not D finite values or cannot be decrypted,
        or the gallery was moved to another bundle since it was opened.
    """
    with self.transaction("DEFERRED") as connection:
      return self.read(connection)

  def read(self, connection: sqlite3.Connection, after: int = 0) -> Records:
    """Does what `records` does, of ids > after, in the caller's transaction."""
    self.check_not_moved()
    names = tables.names(connection, self.codec)
    block = self.block(connection, after)
    return Records(
      block.template_ids,
      block.person_ids,
      tables.join(block.vectors, block.scales),
      block.quality,
      names,
    )

  def block(
    self,
    connection: sqlite3.Connection,
    after: int | tuple[int, int] = 0,
    most: int = -1,
  ) -> Block:
    """Reads templates as they are stored, in the caller's transaction.

    Args:
      connection: from `transaction`.
      after: only templates with a larger id; or with a larger (person id, id),
        and in that order.
      most: how many at most; -1 for all.

    Returns:
      Block, in the order of the template ids, or of (person id, id).

    Raises:
      UserError: if an embedding has not D finite values, or a quality is none.
    """
    rows = tables.embeddings(connection, self.codec, after, most)
    ids, people, blobs, stored = zip(*rows, strict=True) if rows else [()] * 4
    storage = self.meta["storage"]
    size = tables.row_bytes(self.dim, storage)
    if {*map(type, blobs)} <= {bytes} and {*map(len, blobs)} <= {size}:
      vectors, scales = tables.split(b"".join(blobs), self.dim, storage)
      if np.isfinite(vectors if scales is None else scales).all():
        return Block(
          np.array(ids, np.int32),
          np.array(people, np.int32),
          vectors,
          scales,
          self._quality(stored),
        )
    raise self._damaged(f"an embedding has not {self.dim} finite values")

  def _quality(self, stored: Sequence[float | None]) -> np.ndarray:
    # A flipped bit can make text of a number.
    if {*map(type, stored)} <= {float, type(None)}:
      weights = np.array(stored, np.float64)
      weights = np.where(np.isnan(weights), 1.0, weights)
      if is_quality(weights):
        return weights.astype(np.float32)
    raise self._damaged("a quality is not in 0 to 1")

  def _damaged(self, what: str) -> errors.UserError:
    return errors.UserError(
      f"{self.path} is damaged: {what}; restore it from a backup or enroll the "
      "people again."
    )
