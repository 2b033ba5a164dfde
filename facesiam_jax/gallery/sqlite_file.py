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
from facesiam_jax.gallery import filesystem, schema

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
  # Our statements are right; the tables that they name are not there.
  sqlite3.SQLITE_ERROR: "is damaged; restore it from a backup or enroll the "
  "people again",
  sqlite3.SQLITE_IOERR: "could not be read or written; look whether its device "
  "is full or failing",
}


@contextlib.contextmanager
def explained(path: pathlib.Path) -> Iterator[None]:
  """Turns what SQLite says about the user's file into a UserError."""
  try:
    yield
  # Text that is no UTF-8 raises either, by where it lies.
  except (sqlite3.Error, UnicodeDecodeError) as error:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and not isinstance(error, sqlite3.ProgrammingError):
      code = sqlite3.SQLITE_CORRUPT
    # The low byte is the kind of error, the rest is detail.
    mend = None if code is None else _MENDS.get(code & 0xFF)
    if mend is None:
      raise
    holders = ""
    if (code or 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
      names = filesystem.openers(path)
      holders = f"; open in {', '.join(names)}" if names else ""
    raise errors.UserError(f"{path} {mend} ({error}{holders}).") from error


def _connect(path: pathlib.Path, timeout_s: float) -> sqlite3.Connection:
  uri = f"file:{urllib.parse.quote(str(path))}?mode=rw"
  connection = sqlite3.connect(
    uri, uri=True, timeout=timeout_s, isolation_level=None
  )
  try:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # 64 MB, so that a large enrolment does not write its pages twice.
    connection.execute("PRAGMA cache_size = -65536")
  except BaseException:
    connection.close()
    raise
  return connection


def sync_folder(folder: pathlib.Path) -> None:
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


def _version(path: pathlib.Path, connection: sqlite3.Connection) -> int:
  """Returns the version of a gallery that this program can read."""
  (application,) = connection.execute("PRAGMA application_id").fetchone()
  (version,) = connection.execute("PRAGMA user_version").fetchone()
  if application != schema.APPLICATION_ID:
    raise errors.UserError(
      f"{path} is not a gallery; name a file made by `facesiam enroll`, or "
      "a new one."
    )
  if not 1 <= version <= schema.SCHEMA_VERSION:
    raise errors.UserError(
      f"{path} is a gallery of version {version}, and this program reads "
      f"versions 1 to {schema.SCHEMA_VERSION}; use the facesiam_jax that made "
      "it, or a newer one."
    )
  return int(version)


def _bring_up(path: pathlib.Path, connection: sqlite3.Connection) -> None:
  """Migrates an older gallery, in one transaction."""
  if _version(path, connection) == schema.SCHEMA_VERSION:
    return
  connection.execute("BEGIN IMMEDIATE")
  # Another process may have done it while this one waited.
  if _version(path, connection) < schema.SCHEMA_VERSION:
    schema.migrate(connection)
  connection.execute("COMMIT")


def connect(path: pathlib.Path, timeout_s: float) -> sqlite3.Connection:
  """Opens the file of a gallery; an older one is brought to this version.

  Args:
    path: a file made by `create`.
    timeout_s: how long to wait for another writer, in seconds.

  Returns:
    A connection in autocommit mode, with the write-ahead log on.

  Raises:
    UserError: if there is no such file, it is not a gallery, is of a newer
      version, lies on a network file system or cannot be opened.
  """
  _check_place(path)
  if not path.is_file():
    raise errors.UserError(
      f"{path}: no such gallery; `facesiam enroll` makes one."
    )
  with explained(path), contextlib.ExitStack() as undo:
    connection = _connect(path, timeout_s)
    # Closing rolls back what a failed migration has begun.
    undo.callback(connection.close)
    _version(path, connection)
    connection.execute("PRAGMA journal_mode = WAL")
    _bring_up(path, connection)
    _drop_second_names(path)
    undo.pop_all()
  return connection


def told_of(path: pathlib.Path) -> dict[str, str] | None:
  """Returns what a gallery file records of itself; None if out of reach.

  Args:
    path: where a gallery was; nobody's data is read, and no key is needed.
  """
  try:
    with contextlib.closing(connect(path, timeout_s=5.0)) as connection:
      return schema.read_meta(connection)
  except (errors.UserError, sqlite3.Error):
    return None


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
      new.execute("BEGIN")
      schema.make(new, meta)
      new.execute("COMMIT")
    # Unlike a rename, a link never replaces what another process has made.
    with contextlib.suppress(FileExistsError):
      os.link(temporary, path)
    sync_folder(path.parent)
  finally:
    temporary.unlink(missing_ok=True)
