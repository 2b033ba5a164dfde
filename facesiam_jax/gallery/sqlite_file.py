"""Making and opening the SQLite file of a gallery, and SQLite's errors."""

import contextlib
import glob
import os
import pathlib
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping

from facesiam_jax import errors
from facesiam_jax.gallery import filesystem

SCHEMA_VERSION = 1
# "FSJX", in the header of the file, tells a gallery from other databases.
APPLICATION_ID = 0x46534A58


_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE people(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE
);
CREATE TABLE templates(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  person_id INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
  digest BLOB NOT NULL UNIQUE,
  checksum INTEGER NOT NULL,
  embedding BLOB NOT NULL
);
CREATE INDEX templates_person ON templates(person_id);
"""


_MENDS = {
  sqlite3.SQLITE_FULL: "has no space left on its device; free some and run "
  "the command again (the gallery is as it was before)",
  sqlite3.SQLITE_BUSY: "is being written by another program; wait for that to "
  "finish and run the command again",
  sqlite3.SQLITE_LOCKED: "is being written by another program; wait for that "
  "to finish and run the command again",
  sqlite3.SQLITE_READONLY: "cannot be written; give this user write permission "
  "on the file and its folder",
  sqlite3.SQLITE_CANTOPEN: "cannot be opened; give this user read and write "
  "permission on the file and its folder",
  sqlite3.SQLITE_PERM: "cannot be opened; give this user read and write "
  "permission on the file and its folder",
  sqlite3.SQLITE_NOTADB: "is not a gallery; name a file made by `facesiam "
  "enroll`, or a new one",
  sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup or enroll the "
  "people again",
  sqlite3.SQLITE_IOERR: "could not be read or written; look whether its device "
  "is full or failing",
}


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
  """Turns what SQLite says about the user's file into a UserError."""
  try:
    yield
  except sqlite3.Error as error:
    code = getattr(error, "sqlite_errorcode", None)
    # The low byte is the kind of error, the rest is detail.
    mend = None if code is None else _MENDS.get(code & 0xFF)
    if mend is None:
      raise
    raise errors.UserError(f"{path} {mend} ({error}).") from error


def _connect(path: pathlib.Path, timeout_s: float) -> sqlite3.Connection:
  uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
  connection = sqlite3.connect(
    uri, uri=True, timeout=timeout_s, isolation_level=None
  )
  try:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")
  except sqlite3.Error:
    connection.close()
    raise
  return connection


def _sync_folder(folder: pathlib.Path) -> None:
  """Makes a new name in a folder survive a power cut."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _check_place(path: pathlib.Path) -> None:
  if ":/" in str(path):
    raise errors.UserError(
      f"{path} is not a local path; a gallery is a file on a local disk."
    )
  if path.is_dir():
    raise errors.UserError(f"{path} is a folder; name a gallery file in it.")
  kind = filesystem.network_type(path)
  if kind is not None:
    raise errors.UserError(
      f"{path} lies on a network file system ({kind}), where a gallery could "
      "be damaged; use a path on a local disk."
    )


def _drop_second_names(path: pathlib.Path) -> None:
  """Unlinks what a process killed in `create` left: the same file twice.

  Whoever deletes the gallery file must not leave its content behind.
  """
  if path.stat().st_nlink == 1:
    return
  for other in path.parent.glob(f".{glob.escape(path.name)}.*"):
    if other.samefile(path):
      other.unlink(missing_ok=True)


def _check_format(path: pathlib.Path, connection: sqlite3.Connection) -> None:
  (application,) = connection.execute("PRAGMA application_id").fetchone()
  (version,) = connection.execute("PRAGMA user_version").fetchone()
  if application != APPLICATION_ID:
    raise errors.UserError(
      f"{path} is not a gallery; name a file made by `facesiam enroll`, or "
      "a new one."
    )
  if version != SCHEMA_VERSION:
    raise errors.UserError(
      f"{path} is a gallery of version {version}, and this program reads "
      f"version {SCHEMA_VERSION}; use the facesiam_jax that made it."
    )


def connect(path: pathlib.Path, timeout_s: float) -> sqlite3.Connection:
  """Opens the file of a gallery.

  Args:
    path: a file made by `create`.
    timeout_s: how long to wait for another writer, in seconds.

  Returns:
    A connection in autocommit mode, with the write-ahead log on.

  Raises:
    UserError: if there is no such file, it is not a gallery, is of another
      version, lies on a network file system or cannot be opened.
  """
  _check_place(path)
  if not path.is_file():
    raise errors.UserError(
      f"{path}: no such gallery; `facesiam enroll` makes one."
    )
  with explained(path), contextlib.ExitStack() as undo:
    connection = _connect(path, timeout_s)
    undo.callback(connection.close)
    _check_format(path, connection)
    connection.execute("PRAGMA journal_mode = WAL")
    _drop_second_names(path)
    undo.pop_all()
  return connection


def _temporary_beside(path: pathlib.Path) -> pathlib.Path:
  if not path.parent.is_dir():
    raise errors.UserError(
      f"{path}: the folder {path.parent} does not exist; make it first."
    )
  try:
    descriptor, temporary = tempfile.mkstemp(
      prefix=f".{path.name}.", dir=path.parent
    )
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be made ({error.strerror}); give this user write "
      f"permission on {path.parent}, or free space on its device."
    ) from error
  os.close(descriptor)
  return pathlib.Path(temporary)


def create(path: pathlib.Path, meta: Mapping[str, str]) -> None:
  """Makes an empty gallery where there is no file yet.

  The file appears whole or not at all, readable by its owner only, since it
  will hold biometric data.

  Args:
    path: where; a file that is there already is left as it is.
    meta: what the file records of itself.

  Raises:
    UserError: if the folder is missing or cannot be written.
  """
  _check_place(path)
  if path.exists():
    return
  temporary = _temporary_beside(path)
  try:
    with (
      explained(path),
      contextlib.closing(_connect(temporary, timeout_s=5.0)) as new,
    ):
      new.executescript(f"BEGIN; {_SCHEMA}")
      new.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
      new.execute(f"PRAGMA application_id = {APPLICATION_ID}")
      new.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
      new.execute("COMMIT")
    # Unlike a rename, a link never replaces what another process has made.
    with contextlib.suppress(FileExistsError):
      os.link(temporary, path)
    _sync_folder(path.parent)
  finally:
    temporary.unlink(missing_ok=True)
