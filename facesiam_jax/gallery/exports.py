"""A gallery as two files for other programs: arrays (.npz) and a table (.csv).

The gallery remembers where its exports lie, so that whoever is removed from it
is taken out of them too.
"""

import csv
import io
import os
import pathlib
import sqlite3
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from facesiam_jax import errors, files
from facesiam_jax.gallery import tables
from facesiam_jax.gallery.records import (
  Added,
  Source,
  Templates,
  Terms,
  is_quality,
)

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store

_COLUMNS = (
  *("template", "person_id", "person", "source", "sha256", "digest"),
  *("enrolled", "consent", "purpose", "expires", "quality"),
)
# What exports of before do not have.
_LATER = {"quality"}


def table_of(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns where the table beside an export's arrays lies.

  Raises:
    UserError: if the path does not end in .npz.
  """
  path = pathlib.Path(path)
  if path.suffix != ".npz":
    raise errors.UserError(f"{path}: name the export with the ending .npz.")
  return path.with_suffix(".csv")


def _put(path: pathlib.Path, write: Callable[[IO[bytes]], object]) -> None:
  try:
    with files.replacing(path) as file:
      # It holds biometric data, as the gallery does.
      os.chmod(file.name, 0o600)
      write(file)
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be written ({error.strerror}); make its folder, free "
      "space, or give this user write permission."
    ) from error


def _put_both(
  path: pathlib.Path, arrays: dict[str, Any], rows: list[list[Any]]
) -> None:
  text = io.StringIO(newline="")
  csv.writer(text).writerows([_COLUMNS, *rows])
  _put(table_of(path), lambda file: file.write(text.getvalue().encode()))
  _put(path, lambda file: np.savez(file, **arrays))


def _rows(
  store: "Store", connection: sqlite3.Connection
) -> Iterator[list[Any]]:
  """Yields the lines of the table, in the order of the template ids."""
  people = {row.id: row for row in tables.people(connection, store.codec)}
  for row in tables.templates(connection, store.codec):
    person = people[row.person_id]
    hashes = ((row.file_hash or b"").hex(), row.digest.hex())
    who = (row.id, person.id, person.name, row.source)
    terms = (person.consent, person.purpose, person.expires)
    yield [*who, *hashes, row.enrolled, *terms, row.quality]


def write(
  store: "Store", path: str | os.PathLike[str], *, in_clear: bool = False
) -> int:
  """Writes a gallery as PATH.npz and PATH.csv, each whole or not at all.

  Args:
    store: an open gallery.
    path: ends in .npz; files that are there are replaced.
    in_clear: also of an encrypted gallery, the export of which is not
      encrypted.

  Returns:
    How many templates were written.

  Raises:
    UserError: for another ending, if a file cannot be written, and for an
      encrypted gallery without `in_clear`.
  """
  if store.is_encrypted and not in_clear:
    raise errors.UserError(
      f"{store.path} is encrypted and an export is not: names and templates "
      "would lie there in clear; add --in_clear if that is wanted."
    )
  path = pathlib.Path(path).absolute()
  table_of(path)
  now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
  # First, so that no export is ever unknown.
  with store.transaction("IMMEDIATE") as connection:
    connection.execute(
      "INSERT OR REPLACE INTO exports VALUES (?, ?)", (str(path), now)
    )
  # Held while writing: who is removed meanwhile waits to be taken out.
  with store.transaction("IMMEDIATE") as connection:
    records = store.read(connection)
    rows = list(_rows(store, connection))
    names = [records.names[int(person)] for person in records.person_ids]
    arrays = {
      "embeddings": records.embeddings,
      "quality": records.quality,
      "names": np.array(names, np.str_),
      "template_ids": records.template_ids,
      "person_ids": records.person_ids,
      "fingerprint": np.array(store.meta["fingerprint"]),
      "metric": np.array(store.meta["metric"]),
      "gallery": np.array(store.meta["id"]),
    }
    _put_both(path, arrays, rows)
  return len(rows)


def _read(path: pathlib.Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
  table = table_of(path)
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = dict(archive)
    with table.open(encoding="utf-8", newline="") as file:
      rows = list(csv.DictReader(file))
    ids = [int(row["template"]) for row in rows]
    if arrays["template_ids"].tolist() != ids:
      raise ValueError("the two have not the same templates")
    for name in ("embeddings", "person_ids", "fingerprint", "metric"):
      _ = arrays[name]
    if any(set(row) | _LATER != set(_COLUMNS) for row in rows):
      raise ValueError("the table has other columns")
  except OSError as error:
    raise errors.UserError(
      f"{error.filename or path} cannot be read ({error.strerror}); an export "
      f"is two files, {path.name} and {table.name}, in one folder."
    ) from error
  except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as e:
    raise errors.UserError(
      f"{path} and {table.name} are no export of a gallery ({e}); write them "
      "anew with `facesiam gallery export`."
    ) from e
  return arrays, rows


def clean(store: "Store") -> None:
  """Takes out of the exports whoever is not in the gallery any more.

  Raises:
    UserError: if an export that is there cannot be read or written.
  """
  with store.transaction("DEFERRED") as connection:
    paths = connection.execute("SELECT path FROM exports").fetchall()
    people = {row[0] for row in connection.execute("SELECT id FROM people")}
  for (text,) in paths:
    path = pathlib.Path(text)
    if not path.exists() and not table_of(path).exists():
      continue
    arrays, rows = _read(path)
    if str(arrays.get("gallery")) != store.meta["id"]:
      continue
    kept = np.isin(arrays["person_ids"], list(people))
    if kept.all():
      continue
    each = {"embeddings", "quality", "names", "template_ids", "person_ids"}
    for name in each & arrays.keys():
      arrays[name] = arrays[name][kept]
    left = [
      [row.get(column) for column in _COLUMNS]
      for row, keep in zip(rows, kept, strict=True)
      if keep
    ]
    _put_both(path, arrays, left)


def missing(store: "Store") -> list[str]:
  """Returns the exports that are not where they were written."""
  with store.transaction("DEFERRED") as connection:
    found = connection.execute("SELECT path FROM exports ORDER BY path")
    return [path for (path,) in found if not os.path.exists(path)]


def _source(row: dict[str, str]) -> Source:
  return Source(
    row["source"] or None,
    bytes.fromhex(row["sha256"]) or None,
    int(row["enrolled"]) if row["enrolled"] else None,
  )


def _quality(row: dict[str, str]) -> float | None:
  text = row.get("quality")
  if not text:
    return None
  if not is_quality(quality := float(text)):
    raise ValueError(f"a quality of {text}")
  return quality


def read(
  path: str | os.PathLike[str],
) -> tuple[dict[str, str], dict[str, Templates], dict[str, Terms]]:
  """Reads an export.

  Args:
    path: of the arrays; the table lies beside it, and its names count.

  Returns:
    fingerprint, metric and dim for `Store.create`; name -> templates and
    name -> terms for `Store.add`.

  Raises:
    UserError: if one of the two files is missing or they are no export.
  """
  path = pathlib.Path(path)
  arrays, rows = _read(path)
  places: dict[str, list[int]] = {}
  for place, row in enumerate(rows):
    places.setdefault(row["person"], []).append(place)
  people, terms = {}, {}
  try:
    embeddings = np.asarray(arrays["embeddings"], np.float32)
    dim = str(embeddings.shape[1])
    for name, own in places.items():
      people[name] = Templates(
        embeddings[own],
        [bytes.fromhex(rows[i]["digest"]) for i in own],
        [f"line {i + 2} of {table_of(path)}" for i in own],
        [_source(rows[i]) for i in own],
        [_quality(rows[i]) for i in own],
      )
      last = rows[own[-1]]
      words = (last["consent"], last["purpose"], last["expires"])
      terms[name] = Terms(*(word or None for word in words))
  except (ValueError, IndexError) as error:
    raise errors.UserError(
      f"{table_of(path)} is no table of an export ({error}); write it anew "
      "with `facesiam gallery export`."
    ) from error
  made = {name: str(arrays[name]) for name in ("fingerprint", "metric")}
  return {**made, "dim": dim}, people, terms


def bring(
  path: str | os.PathLike[str],
  gallery: str | os.PathLike[str],
  *,
  storage: str = "float32",
  key_file: str | os.PathLike[str] | None = None,
) -> Added:
  """Enrols what an export holds, in one transaction.

  Args:
    path: of the export's arrays.
    gallery: a gallery of the same bundle, or where to make one.
    storage: of a new one; see `Store.create`.
    key_file: the same.

  Returns:
    Added, as `Store.add`.

  Raises:
    UserError: as `read` and `Store.add`, and for another bundle's gallery.
  """
  from facesiam_jax.gallery.store import Store

  made, people, terms = read(path)
  with Store.create(
    gallery,
    fingerprint=made["fingerprint"],
    dim=int(made["dim"]),
    metric=made["metric"],
    storage=storage,
    key_file=key_file,
  ) as store:
    store.check_bundle(made["fingerprint"])
    return store.add(people, terms)
