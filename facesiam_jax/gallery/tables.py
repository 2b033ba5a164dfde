"""What is written to and read from the tables of a gallery file.

Each function runs in the caller's transaction. An embedding is stored as
float32, or as int8 with one float32 scale in front: x = scale q, with
scale = max |x| / 127, so that no value is off by more than scale / 2.
"""

import sqlite3
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import schema
from facesiam_jax.gallery.records import Source, Templates, Terms, clean_name

STORAGES = ("float32", "int8")
_MAX_ID = 2**31 - 2
# SQLite takes at least 999 values in one statement.
_AT_ONCE = 900


def row_bytes(dim: int, storage: str) -> int:
  """Returns how many bytes a stored embedding of D values takes."""
  return 4 * dim if storage == "float32" else 4 + dim


def encode(embeddings: np.ndarray, storage: str) -> list[bytes]:
  """Returns the bytes to store, one value a row.

  Args:
    embeddings: float32 [N, D], finite.
    storage: one of STORAGES.
  """
  if storage == "float32":
    return [row.tobytes() for row in embeddings.astype("<f4", copy=False)]
  # In float64, where the smallest float32 numbers still have an inverse.
  peaks = np.abs(embeddings).max(axis=1, keepdims=True).astype(np.float64)
  scales = (peaks / 127).astype("<f4")
  safe = np.where(peaks > 0, peaks, 1)
  levels = np.rint(embeddings * (127 / safe)).astype(np.int8)
  return [
    scale.tobytes() + row.tobytes()
    for scale, row in zip(scales, levels, strict=True)
  ]


def decode(blob: bytes, dim: int, storage: str) -> np.ndarray:
  """Returns embeddings float32 [N, D] of the bytes of `encode`, joined."""
  if storage == "float32":
    rows = np.frombuffer(blob, "<f4").reshape(-1, dim)
    return rows.astype(np.float32, copy=False)
  raw = np.frombuffer(blob, np.uint8).reshape(-1, 4 + dim)
  scales = np.ascontiguousarray(raw[:, :4]).view("<f4")
  levels = np.ascontiguousarray(raw[:, 4:]).view(np.int8)
  return scales.astype(np.float32) * levels


def _owners(
  connection: sqlite3.Connection, digests: Sequence[bytes]
) -> dict[bytes, int]:
  """Returns digest -> person id of those digests that are enrolled."""
  found: dict[bytes, int] = {}
  for first in range(0, len(digests), _AT_ONCE):
    part = list(digests[first : first + _AT_ONCE])
    marks = ",".join("?" * len(part))
    found |= connection.execute(
      f"SELECT digest, person_id FROM templates WHERE digest IN ({marks})", part
    )
  return found


def name_of(connection: sqlite3.Connection, person: int) -> str:
  """Returns the name of a person id that is enrolled."""
  query = "SELECT name FROM people WHERE id = ?"
  (name,) = connection.execute(query, (person,)).fetchone()
  return str(name)


def _next_id(connection: sqlite3.Connection, table: str) -> int:
  row = connection.execute(
    "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
  ).fetchone()
  return 1 if row is None else int(row[0]) + 1


def put_people(
  connection: sqlite3.Connection, terms: Mapping[str, Terms]
) -> dict[str, int]:
  """Enrols the names that are new, and sets the terms that are not None.

  Returns:
    name -> person id.
  """
  ids: dict[str, int] = {}
  people, names = _next_id(connection, "people"), list(terms)
  rows: list[tuple[Any, ...]] = []
  for first in range(0, len(names), _AT_ONCE):
    part = names[first : first + _AT_ONCE]
    marks = ",".join("?" * len(part))
    known = connection.execute(
      "SELECT id, name, consent, purpose, expires FROM people WHERE name IN "
      f"({marks})",
      part,
    ).fetchall()
    ids |= {name: person for person, name, *_ in known}
    new = [name for name in part if name not in ids]
    ids |= dict(zip(new, range(people, people + len(new)), strict=True))
    people += len(new)
    rows += [row for row in known if any(terms[row[1]])]
    rows += [(ids[name], name, None, None, None) for name in new]
  wanted = []
  for person, name, *before in rows:
    after = [new or old for old, new in zip(before, terms[name], strict=True)]
    checksum = schema.person_checksum(person, name, *after)
    wanted.append((person, name, *after, checksum))
  connection.executemany(
    "INSERT INTO people(id, name, consent, purpose, expires, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET consent = "
    "excluded.consent, purpose = excluded.purpose, expires = excluded.expires, "
    "checksum = excluded.checksum",
    wanted,
  )
  return ids


def put_templates(
  connection: sqlite3.Connection,
  people: Sequence[tuple[int, Templates]],
  storage: str,
) -> tuple[list[str], int]:
  """Inserts templates, each digest once.

  Args:
    connection: in a transaction.
    people: person ids with their templates.
    storage: one of STORAGES.

  Returns:
    Labels of the sources that the same person had already, and how many
    templates are new.

  Raises:
    UserError: if a source is enrolled as somebody else, or no number is left.
  """
  if not people:
    return [], 0
  owners = _owners(connection, [d for _, t in people for d in t.digests])
  known = set(owners)
  template, now = _next_id(connection, "templates"), int(time.time())
  blobs = iter(
    encode(np.concatenate([t.embeddings for _, t in people]), storage)
  )
  duplicates: list[str] = []
  rows: list[tuple[Any, ...]] = []
  for person, templates in people:
    sources = templates.sources or [Source()] * len(templates.digests)
    given = zip(templates.digests, templates.labels, sources, strict=True)
    for digest, label, source in given:
      blob, owner = next(blobs), owners.setdefault(digest, person)
      if owner != person:
        raise errors.UserError(
          f"{label}: the same picture is enrolled as "
          f"{name_of(connection, owner)!r}; take it out of one of the two, or "
          "remove that name first."
        )
      if digest in known:
        duplicates.append(label)
        continue
      known.add(digest)
      when = now if source.enrolled is None else source.enrolled
      facts = (digest, source.name, source.sha256, when)
      checksum = schema.template_checksum(zlib.crc32(blob), person, *facts)
      rows.append((template + len(rows), person, *facts, checksum, blob))
  if template + len(rows) > _MAX_ID + 1:
    raise errors.UserError(
      f"The gallery has used up its {_MAX_ID} template numbers; enroll the "
      "people into a new one."
    )
  connection.executemany(
    "INSERT INTO templates(id, person_id, digest, source, file_hash, enrolled, "
    "checksum, embedding) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    rows,
  )
  return duplicates, len(rows)


def delete(connection: sqlite3.Connection, people: Sequence[int]) -> int:
  """Deletes people and leaves a record of each id and the time, no name.

  Returns:
    How many templates they had.
  """
  now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
  templates = 0
  for person in people:
    templates += connection.execute(
      "DELETE FROM templates WHERE person_id = ?", (person,)
    ).rowcount
    connection.execute("DELETE FROM people WHERE id = ?", (person,))
    connection.execute("INSERT INTO removals VALUES (?, ?)", (person, now))
  return templates


def _people_problems(connection: sqlite3.Connection) -> list[str]:
  problems = []
  query = "SELECT id, name, consent, purpose, expires, checksum FROM people"
  for *columns, checksum in connection.execute(query):
    if schema.person_checksum(*columns) != checksum:
      problems.append(f"Person {columns[0]} ({columns[1]!r}) is damaged.")
      continue
    try:
      clean_name(columns[1])
    except errors.UserError as error:
      problems.append(f"Person {columns[0]}: {error}")
  return problems


def _template_problems(
  connection: sqlite3.Connection, dim: int, storage: str, metric: str
) -> list[str]:
  problems = []
  rows = connection.execute(
    "SELECT id, checksum, embedding, person_id, digest, source, file_hash, "
    "enrolled FROM templates"
  )
  for template, checksum, blob, *facts in rows:
    if len(blob) != row_bytes(dim, storage):
      problems.append(f"Template {template}: it is damaged.")
      continue
    if schema.template_checksum(zlib.crc32(blob), *facts) != checksum:
      problems.append(f"Template {template}: it is damaged.")
      continue
    row = decode(blob, dim, storage)
    if not np.isfinite(row).all():
      problems.append(f"Template {template}: its embedding is not finite.")
    elif metric == "cosine" and not row.any():
      problems.append(f"Template {template}: its embedding is zero.")
  return problems


def problems(
  connection: sqlite3.Connection, dim: int, storage: str, metric: str
) -> list[str]:
  """Looks for damage everywhere in the file.

  Returns:
    One sentence a problem.
  """
  found = connection.execute("PRAGMA integrity_check").fetchall()
  told = [f"SQLite: {row[0]}." for row in found if row[0] != "ok"]
  found = connection.execute("PRAGMA foreign_key_check").fetchall()
  told += [f"Template {row[1]} belongs to nobody." for row in found]
  told += _people_problems(connection)
  return told + _template_problems(connection, dim, storage, metric)
