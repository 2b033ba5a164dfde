"""What is written to and read from the tables of a gallery file.

Rows are stored and read through the gallery's codec, each function in the
caller's transaction. An embedding is stored as float32, or as int8 with one
float32 scale in front: x = scale q, with scale = max |x| / 127, so that no
value is off by more than scale / 2.
"""

import itertools
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import codec as codec_lib
from facesiam_jax.gallery import schema
from facesiam_jax.gallery.codec import Clear
from facesiam_jax.gallery.records import Source, Templates, Terms

STORAGES = ("float32", "int8")
_MAX_ID = 2**31 - 2
_UNKNOWN = Source()
# SQLite takes at least 999 values in one statement.
_AT_ONCE = 900
_PERSON = ", ".join(codec_lib.PersonRow._fields)
_TEMPLATE = ", ".join(codec_lib.TemplateRow._fields)


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


def split(
  blob: bytes, dim: int, storage: str
) -> tuple[np.ndarray, np.ndarray | None]:
  """Returns vectors and scales of the bytes of `encode`, joined.

  Returns:
    For float32 the embeddings, float32 [N, D], and None; for int8 the levels,
    int8 [N, D], and their scales, float32 [N].
  """
  if storage == "float32":
    rows = np.frombuffer(blob, "<f4").reshape(-1, dim)
    return rows.astype(np.float32, copy=False), None
  raw = np.frombuffer(blob, np.uint8).reshape(-1, 4 + dim)
  scales = np.ascontiguousarray(raw[:, :4]).view("<f4")[:, 0]
  levels = np.ascontiguousarray(raw[:, 4:]).view(np.int8)
  return levels, scales.astype(np.float32)


def join(vectors: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
  """Returns embeddings float32 [N, D] of what `split` returns."""
  return vectors if scales is None else scales[:, None] * vectors


def decode(blob: bytes, dim: int, storage: str) -> np.ndarray:
  """Returns embeddings float32 [N, D] of the bytes of `encode`, joined."""
  return join(*split(blob, dim, storage))


def people(
  connection: sqlite3.Connection, codec: Clear
) -> Iterator[codec_lib.PersonRow]:
  """Reads everybody, in the order of their ids; UserError for damage."""
  for row in connection.execute(f"SELECT {_PERSON} FROM people ORDER BY id"):
    yield codec.open_person(codec_lib.PersonRow(*row))


def names(connection: sqlite3.Connection, codec: Clear) -> dict[int, str]:
  """Returns person id -> name of everybody."""
  if not codec.is_sealed:
    return dict(connection.execute("SELECT id, name FROM people"))
  return {row.id: row.name for row in people(connection, codec)}


def templates(
  connection: sqlite3.Connection, codec: Clear
) -> Iterator[codec_lib.TemplateRow]:
  """Reads all templates, in the order of their ids; UserError for damage."""
  query = f"SELECT {_TEMPLATE} FROM templates ORDER BY id"
  for row in connection.execute(query):
    yield codec.open_template(codec_lib.TemplateRow(*row))


def enrolled(
  connection: sqlite3.Connection, codec: Clear
) -> Iterator[codec_lib.PersonRow]:
  """Reads those who have a template, in the order of their ids."""
  query = (
    f"SELECT {_PERSON} FROM people WHERE EXISTS (SELECT 1 FROM templates WHERE "
    "person_id = people.id) ORDER BY id"
  )
  for row in connection.execute(query):
    yield codec.open_person(codec_lib.PersonRow(*row))


def embeddings(
  connection: sqlite3.Connection,
  codec: Clear,
  after: int | tuple[int, int] = 0,
  most: int = -1,
) -> list[tuple[int, int, bytes, float | None]]:
  """Reads stored embeddings in the order of their ids, or person by person.

  Args:
    connection: in a transaction.
    codec: of the gallery.
    after: only templates with a larger id; or with a larger (person id, id),
      and in that order.
    most: how many at most; -1 for all.

  Returns:
    Template id, person id, what `encode` made and the quality, each.

  Raises:
    UserError: if one cannot be decrypted.
  """
  where = "id > ? ORDER BY id"
  given: tuple[int, ...] = (after,) if isinstance(after, int) else after
  if len(given) > 1:
    where = "(person_id, id) > (?, ?) ORDER BY person_id, id"
  rest = f"FROM templates WHERE {where} LIMIT ?"
  if not codec.is_sealed:
    query = f"SELECT id, person_id, embedding, quality {rest}"
    return connection.execute(query, (*given, most)).fetchall()
  found = []
  for stored in connection.execute(
    f"SELECT {_TEMPLATE} {rest}", (*given, most)
  ):
    row = codec.open_template(codec_lib.TemplateRow(*stored))
    found.append((row.id, row.person_id, row.embedding, row.quality))
  return found


def files(connection: sqlite3.Connection, codec: Clear) -> dict[bytes, str]:
  """Returns SHA-256 of a photo's file -> who is enrolled from it."""
  if not codec.is_sealed:
    query = (
      "SELECT file_hash, name FROM templates JOIN people "
      "ON people.id = person_id WHERE file_hash IS NOT NULL"
    )
    return dict(connection.execute(query))
  of = names(connection, codec)
  return {
    row.file_hash: of[row.person_id]
    for row in templates(connection, codec)
    if row.file_hash is not None
  }


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


def name_of(connection: sqlite3.Connection, codec: Clear, person: int) -> str:
  """Returns the name of a person id that is enrolled."""
  query = f"SELECT {_PERSON} FROM people WHERE id = ?"
  row = connection.execute(query, (person,)).fetchone()
  return codec.open_person(codec_lib.PersonRow(*row)).name


def _next_id(connection: sqlite3.Connection, table: str) -> int:
  row = connection.execute(
    "SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)
  ).fetchone()
  return 1 if row is None else int(row[0]) + 1


def _known(
  connection: sqlite3.Connection, codec: Clear, names: Sequence[str]
) -> Iterator[codec_lib.PersonRow]:
  """Reads those of the names that are enrolled."""
  for first in range(0, len(names), _AT_ONCE):
    part = [codec.index(name) for name in names[first : first + _AT_ONCE]]
    marks = ",".join("?" * len(part))
    query = f"SELECT {_PERSON} FROM people WHERE name IN ({marks})"
    for row in connection.execute(query, part):
      yield codec.open_person(codec_lib.PersonRow(*row))


def put_people(
  connection: sqlite3.Connection, terms: Mapping[str, Terms], codec: Clear
) -> dict[str, int]:
  """Enrols the names that are new, and sets the terms that are not None.

  Returns:
    name -> person id.
  """
  known = list(_known(connection, codec, list(terms)))
  ids = {row.name: row.id for row in known}
  rows = [row for row in known if any(terms[row.name])]
  first = _next_id(connection, "people")
  for name in terms:
    if name not in ids:
      ids[name] = first + len(ids) - len(known)
      rows.append(codec_lib.PersonRow(ids[name], name))
  wanted = []
  for row in rows:
    given = terms[row.name]
    if any(given):
      new = {field: text for field, text in given._asdict().items() if text}
      row = row._replace(**new)
    stored = codec.seal_person(row)
    wanted.append((*stored, schema.person_checksum(*stored)))
  connection.executemany(
    f"INSERT INTO people({_PERSON}, checksum) VALUES (?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT(id) DO UPDATE SET consent = excluded.consent, purpose = "
    "excluded.purpose, expires = excluded.expires, sealed = excluded.sealed, "
    "checksum = excluded.checksum",
    wanted,
  )
  return ids


def _given(
  people: Sequence[tuple[int, Templates]],
) -> Iterator[tuple[int, bytes, str, Source, float | None]]:
  """Yields person id, digest, label, source and quality of each template."""
  for person, templates in people:
    count = len(templates.digests)
    unknown = itertools.repeat(_UNKNOWN, count)
    nothing = itertools.repeat(None, count)
    for facts in zip(
      templates.digests,
      templates.labels,
      templates.sources or unknown,
      templates.quality if len(templates.quality) else nothing,
      strict=True,
    ):
      yield person, *facts


def put_templates(
  connection: sqlite3.Connection,
  people: Sequence[tuple[int, Templates]],
  storage: str,
  codec: Clear,
) -> tuple[list[str], int]:
  """Inserts templates, each digest once.

  Args:
    connection: in a transaction.
    people: person ids with their templates.
    storage: one of STORAGES.
    codec: of the gallery.

  Returns:
    Labels of the sources that the same person had already, and how many
    templates are new.

  Raises:
    UserError: if a source is enrolled as somebody else, or no number is left.
  """
  if not people:
    return [], 0
  digests = {d: codec.blind(d) for _, t in people for d in t.digests}
  owners = _owners(connection, list(digests.values()))
  known = set(owners)
  template, now = _next_id(connection, "templates"), int(time.time())
  blobs = iter(
    encode(np.concatenate([t.embeddings for _, t in people]), storage)
  )
  duplicates: list[str] = []
  rows: list[codec_lib.TemplateRow] = []
  for person, digest, label, source, weight in _given(people):
    blind, blob = digests[digest], next(blobs)
    owner = owners.setdefault(blind, person)
    if owner != person:
      raise errors.UserError(
        f"{label}: the same picture is enrolled as "
        f"{name_of(connection, codec, owner)!r}; take it out of one of the "
        "two, or remove that name first."
      )
    if blind in known:
      duplicates.append(label)
      continue
    known.add(blind)
    when = now if source.enrolled is None else source.enrolled
    facts = (digest, source.name, source.sha256, when)
    number = template + len(rows)
    # Neither SQLite nor the checksum takes NumPy's numbers.
    weight = None if weight is None else float(weight)
    rows.append(codec_lib.TemplateRow(number, person, *facts, blob, weight))
  if template + len(rows) > _MAX_ID + 1:
    raise errors.UserError(
      f"The gallery has used up its {_MAX_ID} template numbers; enroll the "
      "people into a new one."
    )
  _insert(connection, map(codec.seal_template, rows))
  return duplicates, len(rows)


def _insert(
  connection: sqlite3.Connection, rows: Iterable[codec_lib.TemplateRow]
) -> None:
  connection.executemany(
    f"INSERT INTO templates({_TEMPLATE}, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ((*row, checksum(row)) for row in rows),
  )


def checksum(row: codec_lib.TemplateRow) -> int:
  """Returns the checksum over a template as it is stored."""
  embedding = zlib.crc32(row.embedding)
  return schema.template_checksum(embedding, *row[1:6], row.quality)


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
