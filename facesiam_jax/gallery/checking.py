"""Looking for damage in a gallery file."""

import sqlite3

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery import schema, tables
from facesiam_jax.gallery.codec import Clear, PersonRow, TemplateRow
from facesiam_jax.gallery.records import clean_name


def _people_problems(connection: sqlite3.Connection, codec: Clear) -> list[str]:
  problems = []
  columns = ", ".join(PersonRow._fields)
  query = f"SELECT {columns}, checksum FROM people"
  for *stored, checksum in connection.execute(query):
    row = PersonRow(*stored)
    if schema.person_checksum(*row) != checksum:
      name = "" if codec.is_sealed else f" ({row.name!r})"
      problems.append(f"Person {row.id}{name} is damaged.")
      continue
    try:
      opened = codec.open_person(row)
      clean_name(opened.name)
      if codec.index(opened.name) != row.name:
        problems.append(f"Person {row.id} is looked up by another name.")
    except errors.UserError as error:
      problems.append(f"Person {row.id}: {error}")
  return problems


def _vector_problem(row: np.ndarray, metric: str) -> str | None:
  if not np.isfinite(row).all():
    return "its embedding is not finite."
  if metric == "cosine" and not row.any():
    return "its embedding is zero."
  return None


def _template_problems(
  connection: sqlite3.Connection,
  codec: Clear,
  dim: int,
  storage: str,
  metric: str,
) -> list[str]:
  problems = []
  columns = ", ".join(TemplateRow._fields)
  query = f"SELECT {columns}, checksum FROM templates"
  for *stored, checksum in connection.execute(query):
    row = TemplateRow(*stored)
    problem: str | None = "it is damaged."
    # A flipped bit can make text of bytes.
    if isinstance(row.embedding, bytes) and checksum == tables.checksum(row):
      try:
        blob = codec.open_template(row).embedding
        if len(blob) == tables.row_bytes(dim, storage):
          vector = tables.decode(blob, dim, storage)
          problem = _vector_problem(vector, metric)
      except errors.UserError as error:
        problem = str(error)
    if problem:
      problems.append(f"Template {row.id}: {problem}")
  return problems


def problems(
  connection: sqlite3.Connection,
  codec: Clear,
  dim: int,
  storage: str,
  metric: str,
) -> list[str]:
  """Looks for damage everywhere in the file.

  Args:
    connection: in a transaction.
    codec: of the gallery.
    dim: D of its embeddings.
    storage: one of `tables.STORAGES`.
    metric: by "cosine" a zero vector is like nothing.

  Returns:
    One sentence a problem.
  """
  found = connection.execute("PRAGMA integrity_check").fetchall()
  told = [f"SQLite: {row[0]}." for row in found if row[0] != "ok"]
  found = connection.execute("PRAGMA foreign_key_check").fetchall()
  told += [f"Template {row[1]} belongs to nobody." for row in found]
  told += _people_problems(connection, codec)
  return told + _template_problems(connection, codec, dim, storage, metric)
