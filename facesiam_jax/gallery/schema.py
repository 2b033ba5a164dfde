"""The tables of a gallery file, their versions and the checksums of rows.

Version 1 had names, embeddings and digests. Version 2 adds where a template
came from and when, what a person agreed to, a record of removals and of
exports, embeddings of 8 bits, and checksums over whole rows. Version 3 adds
encrypted rows, a record of shard sets, and the gallery's generation: a number
that grows with each enrolment and removal. Version 4 adds what a template
weighs in a weighted mean.
"""

import sqlite3
import uuid
import zlib
from collections.abc import Mapping

SCHEMA_VERSION = 4
# "FSJX", in the header of the file, tells a gallery from other databases.
APPLICATION_ID = 0x46534A58

_VERSION_1 = """
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

# A template's time is in seconds since 1970; its file's hash is a SHA-256.
_VERSION_2 = """
ALTER TABLE people ADD COLUMN consent TEXT;
ALTER TABLE people ADD COLUMN purpose TEXT;
ALTER TABLE people ADD COLUMN expires TEXT;
ALTER TABLE people ADD COLUMN checksum INTEGER;
ALTER TABLE templates ADD COLUMN source TEXT;
ALTER TABLE templates ADD COLUMN file_hash BLOB;
ALTER TABLE templates ADD COLUMN enrolled INTEGER;
CREATE INDEX templates_file ON templates(file_hash)
  WHERE file_hash IS NOT NULL;
CREATE TABLE removals(person_id INTEGER PRIMARY KEY, removed TEXT NOT NULL);
CREATE TABLE exports(path TEXT PRIMARY KEY, written TEXT NOT NULL);
"""

_VERSION_3 = """
ALTER TABLE people ADD COLUMN sealed BLOB;
CREATE TABLE shards(path TEXT PRIMARY KEY, written TEXT NOT NULL);
"""
# NULL where it is not known.
_VERSION_4 = "ALTER TABLE templates ADD COLUMN quality REAL;"
# The generation at hand, and that of the last removal.
_GENERATIONS = {"generation": "0", "erased": "0"}


def _checksum(values: tuple[object, ...], start: int = 0) -> int:
  return zlib.crc32(repr(values).encode("utf-8", "surrogatepass"), start)


def meta_checksum(meta: Mapping[str, str]) -> str:
  """Returns the checksum over what a file records of itself."""
  items = sorted(item for item in meta.items() if item[0] != "checksum")
  return str(_checksum(tuple(items)))


def person_checksum(*columns: object) -> int:
  """Returns the checksum over id, name, consent, purpose, expires, sealed."""
  # Rows of before there was the last column have not got it in theirs.
  return _checksum(columns[:5] if columns[5] is None else columns)


def template_checksum(embedding_checksum: int, *columns: object) -> int:
  """Returns the checksum over a template.

  Args:
    embedding_checksum: CRC-32 of the embedding's bytes.
    *columns: person_id, digest, source, file_hash, enrolled and quality.
  """
  # As of people: rows of version 3 have no quality, nor has their checksum.
  known = columns[:5] if columns[5] is None else columns
  return _checksum(known, embedding_checksum)


def _statements(connection: sqlite3.Connection, script: str) -> None:
  # Not executescript, which commits what went before.
  for statement in script.split(";"):
    if statement.strip():
      connection.execute(statement)


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
  """Stores what a file records of itself, with its checksum."""
  full = {**meta, "checksum": meta_checksum(meta)}
  connection.executemany(
    "INSERT OR REPLACE INTO meta VALUES (?, ?)", full.items()
  )


def read_meta(connection: sqlite3.Connection) -> dict[str, str]:
  """Returns what a file records of itself, its checksum among it."""
  return dict(connection.execute("SELECT key, value FROM meta"))


def next_generation(
  connection: sqlite3.Connection, *, erased: bool = False
) -> None:
  """Counts a change of who is in the gallery, in the caller's transaction.

  Args:
    connection: in a transaction that changes templates.
    erased: whether some were removed.
  """
  meta = read_meta(connection)
  number = str(int(meta["generation"]) + 1)
  removal = {"erased": number} if erased else {}
  write_meta(connection, {**meta, "generation": number, **removal})


def make(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
  """Makes the tables of an empty gallery, in the caller's transaction.

  Args:
    connection: of an empty database.
    meta: what the file records of itself: fingerprint, dim, metric, created,
      storage, id.
  """
  _statements(connection, _VERSION_1 + _VERSION_2 + _VERSION_3 + _VERSION_4)
  write_meta(connection, {**meta, **_GENERATIONS})
  connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
  connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def migrate(connection: sqlite3.Connection) -> None:
  """Brings an older gallery to this version, in the caller's transaction.

  What was damaged before is seen to be damaged after.
  """
  (version,) = connection.execute("PRAGMA user_version").fetchone()
  if version == 1:
    _to_version_2(connection)
  if version <= 2:
    _to_version_3(connection)
  _statements(connection, _VERSION_4)
  connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _to_version_2(connection: sqlite3.Connection) -> None:
  """A template whose checksum was wrong keeps a wrong one.

  The new checksum goes on from the old, and does not look at the embedding.
  """
  _statements(connection, _VERSION_2)
  people = connection.execute("SELECT id, name FROM people").fetchall()
  none = (None,) * 4
  connection.executemany(
    "UPDATE people SET checksum = ? WHERE id = ?",
    [(person_checksum(*row, *none), row[0]) for row in people],
  )
  rows = connection.execute(
    "SELECT id, checksum, person_id, digest FROM templates"
  ).fetchall()
  connection.executemany(
    "UPDATE templates SET checksum = ? WHERE id = ?",
    [(template_checksum(*row[1:], *none), row[0]) for row in rows],
  )
  new = {"storage": "float32", "id": uuid.uuid4().hex}
  write_meta(connection, {**read_meta(connection), **new})


def _to_version_3(connection: sqlite3.Connection) -> None:
  _statements(connection, _VERSION_3)
  meta = read_meta(connection)
  if meta["checksum"] == meta_checksum(meta):
    write_meta(connection, {**meta, **_GENERATIONS})
