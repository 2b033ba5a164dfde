"""Tests of what a gallery file holds beside embeddings, and of its versions."""

import contextlib
import sqlite3
import time
import zlib

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import schema, tables
from facesiam_jax.gallery.records import Member, Source, Terms
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import DIM, create, templates

_META = {"fingerprint": "f" * 64, "dim": str(DIM), "metric": "cosine"}


def _old(path, people):
  """Writes a gallery as the first version did."""
  with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(schema._VERSION_1)
    old.executemany("INSERT INTO meta VALUES (?, ?)", _META.items())
    for name, rows in people.items():
      (person,) = old.execute(
        "INSERT INTO people(name) VALUES (?) RETURNING id", (name,)
      ).fetchone()
      for digest, row in zip(rows.digests, rows.embeddings, strict=True):
        blob = row.tobytes()
        old.execute(
          "INSERT INTO templates(person_id, digest, checksum, embedding) "
          "VALUES (?, ?, ?, ?)",
          (person, digest, zlib.crc32(blob), blob),
        )
    old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    old.execute("PRAGMA user_version = 1")


def test_a_gallery_of_version_1_goes_on(tmp_path):
  ada, bob = templates(3, 1), templates(2, 2)
  _old(tmp_path / "g.db", {"Ada": ada, "Bob": bob})
  with Store.open(tmp_path / "g.db") as store:
    assert store.check() == [] and store.meta["storage"] == "float32"
    records = store.records()
    assert store.add({"Ada": ada}) == (0, ada.labels)
    store.remove("Bob")
    assert store.add({"Cy": templates(1, 3)}).templates == 1
    assert store.records().template_ids.tolist() == [1, 2, 3, 6]
    (first, _) = store.members()
    assert first == Member("Ada", 3, None, None, Terms())
  np.testing.assert_array_equal(
    records.embeddings, np.concatenate([ada.embeddings, bob.embeddings])
  )


def _version_3(path, people):
  """Writes a gallery as the third version did."""
  meta = {**_META, "id": "0", "storage": "float32", "generation": "7"}
  with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as old:
    for script in (schema._VERSION_1, schema._VERSION_2, schema._VERSION_3):
      old.executescript(script)
    schema.write_meta(old, {**meta, "erased": "2"})
    for number, (name, rows) in enumerate(people.items(), 1):
      told = repr((number, name, "form", None, None)).encode()
      old.execute(
        "INSERT INTO people(id, name, consent, checksum) VALUES (?, ?, ?, ?)",
        (number, name, "form", zlib.crc32(told)),
      )
      for digest, row in zip(rows.digests, rows.embeddings, strict=True):
        facts = (number, digest, "a.jpg", b"h" * 32, 99)
        blob = row.tobytes()
        checksum = zlib.crc32(repr(facts).encode(), zlib.crc32(blob))
        old.execute(
          "INSERT INTO templates(person_id, digest, source, file_hash, "
          "enrolled, checksum, embedding) VALUES (?, ?, ?, ?, ?, ?, ?)",
          (*facts, checksum, blob),
        )
    old.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    old.execute("PRAGMA user_version = 3")


def test_a_gallery_of_version_3_goes_on(tmp_path):
  ada, bob = templates(3, 1), templates(2, 2)
  _version_3(tmp_path / "g.db", {"Ada": ada, "Bob": bob})
  with Store.open(tmp_path / "g.db") as store:
    assert store.check() == [] and store.generation() == 7
    assert store.members()[0] == Member("Ada", 3, 99, 99, Terms("form"))
    records = store.records()
    np.testing.assert_array_equal(records.quality, np.ones(5, np.float32))
    assert store.add({"Ada": ada}) == (0, ada.labels)
    new = templates(2, 3)._replace(quality=[0.25, None])
    store.add({"Bob": new})
    assert store.records().quality.tolist() == [1, 1, 1, 1, 1, 0.25, 1]
    assert store.check() == []
    execute = store._connection.execute
    execute("UPDATE templates SET enrolled = 98 WHERE id = 2")
    execute("UPDATE templates SET quality = 1.0 WHERE id = 4")
    damaged = "Template 2: it is damaged.", "Template 4: it is damaged."
    assert store.check() == list(damaged)
  np.testing.assert_array_equal(
    records.embeddings, np.concatenate([ada.embeddings, bob.embeddings])
  )


def test_migration_keeps_damage_visible(tmp_path):
  _old(tmp_path / "g.db", {"Ada": templates(3, 1)})
  with contextlib.closing(sqlite3.connect(tmp_path / "g.db")) as old:
    old.execute("UPDATE templates SET embedding = zeroblob(24) WHERE id = 2")
    old.commit()
  with Store.open(tmp_path / "g.db") as store:
    assert store.check() == ["Template 2: it is damaged."]


def test_a_failed_migration_leaves_version_1(tmp_path, monkeypatch):
  _old(tmp_path / "g.db", {"Ada": templates(3, 1)})
  monkeypatch.setattr(schema, "write_meta", lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    Store.open(tmp_path / "g.db")
  monkeypatch.undo()
  with Store.open(tmp_path / "g.db") as store:
    assert store.check() == [] and store.people() == {"Ada": 3}


def test_newer_versions_are_refused(tmp_path):
  with create(tmp_path / "g.db") as store:
    store._connection.execute("PRAGMA user_version = 5")
  before = (tmp_path / "g.db").read_bytes()
  with pytest.raises(errors.UserError, match=r"version 5.*1 to 4.*newer"):
    Store.open(tmp_path / "g.db")
  assert (tmp_path / "g.db").read_bytes() == before


def test_sources_and_times(store):
  sources = [Source("a.jpg", b"a" * 32, 1_000_000), Source("b.jpg", b"b" * 32)]
  store.add({"Ada": templates(2, 1)._replace(sources=sources)})
  store.add({"Bob": templates(1, 2)})
  ada, bob = store.members()
  assert ada.oldest == 1_000_000 and time.time() - ada.newest < 100
  assert bob.templates == 1 and time.time() - bob.oldest < 100
  assert store.files() == {b"a" * 32: "Ada", b"b" * 32: "Ada"}
  names = store._connection.execute("SELECT source FROM templates").fetchall()
  assert names == [("a.jpg",), ("b.jpg",), (None,)]
  assert store.check() == []


def test_quality_is_kept_to_the_last_digit(store):
  given = [1 / 3, np.float32(0.1), np.float64(1e-6), 1, None]
  store.add({"Ada": templates(5, 1)._replace(quality=given)})
  store.add({"Ada": templates(2, 2)._replace(quality=np.array([0.5, 0.75]))})
  store.add({"Bob": templates(1, 3)})
  assert store.check() == []
  wanted = [1 / 3, float(np.float32(0.1)), 1e-6, 1.0, None, 0.5, 0.75, None]
  query = "SELECT quality FROM templates"
  assert [q for (q,) in store._connection.execute(query)] == wanted
  read = store.records().quality
  assert read.dtype == np.float32
  np.testing.assert_array_equal(
    read, np.array([1.0 if q is None else q for q in wanted], np.float32)
  )


@pytest.mark.parametrize(
  "quality",
  [[0.5], [0.5, 0.0], [0.5, -0.5], [0.5, 1.01], [np.nan, 1], [1, 1, 1]],
)
def test_a_quality_that_is_none_is_refused(store, quality):
  with pytest.raises(ValueError, match="Ada: quality must be 2 numbers of"):
    store.add({"Ada": templates(2, 1)._replace(quality=quality)})
  assert store.people() == {}


def test_terms(store):
  terms = Terms(" form 12 ", "door", "2031-02-03")
  store.add({"Ada": templates(1, 1), "Bob": templates(1, 2)}, terms)
  store.add({"Bob": templates(1, 3)}, Terms(purpose="desk"))
  store.add({"Bob": templates(1, 4), "Cy": templates(1, 5)})
  store.set_terms("Cy", Terms(expires="2030-01-01"))
  assert [member.terms for member in store.members()] == [
    Terms("form 12", "door", "2031-02-03"),
    Terms("form 12", "desk", "2031-02-03"),
    Terms(None, None, "2030-01-01"),
  ]
  assert store.check() == []
  for bad in (Terms(expires="1.2.2031"), Terms(consent=" "), Terms("a\nb")):
    with pytest.raises(errors.UserError, match="--(expires|consent)="):
      store.add({"Dee": templates(1, 6)}, bad)
  with pytest.raises(errors.UserError, match="Nobody called 'Dee'"):
    store.set_terms("Dee", Terms("x"))


def test_expiry(store):
  store.add({"Ada": templates(2, 1)}, Terms(expires="2030-01-02"))
  store.add({"Bob": templates(1, 2)}, Terms(expires="2030-01-03"))
  store.add({"Cy": templates(1, 3)})
  assert store.expire("2030-01-01") == {}
  assert store.expire("2030-01-02") == {"Ada": 2}
  assert store.expire("9999-01-01") == {"Bob": 1}
  assert store.people() == {"Cy": 1}
  assert [person for person, _ in store.removals()] == [1, 2]


def test_a_removal_leaves_an_id_and_a_time(store):
  store.add({"Ada": templates(2, 1), "Bob": templates(1, 2)})
  store.remove("Bob")
  store.add({"Bob": templates(1, 2)})
  store.remove("Bob")
  assert [person for person, _ in store.removals()] == [2, 3]
  assert all(len(when) == 20 for _, when in store.removals())


def test_eight_bits(tmp_path):
  rows = templates(50, 1)
  rows.embeddings[7] = [1e-42, -1e-43, 0, 0, 0, 0]
  rows.embeddings[8] = [3e38, -3e38, 1, 0, 0, 0]
  with create(tmp_path / "g.db", storage="int8") as store:
    store.add({"Ada": rows})
    read = store.records().embeddings
    assert store.check() == []
  with create(tmp_path / "g.db", storage="float32") as store:
    assert store.meta["storage"] == "int8"
  assert read.dtype == np.float32 and read.shape == (50, DIM)
  wanted = rows.embeddings.astype(np.float64)
  peaks = np.abs(wanted).max(axis=1, keepdims=True)
  # Half a level, and of numbers near zero what float32 cannot tell apart.
  error = np.abs(read - wanted) - peaks / 254 * (1 + 1e-4)
  assert (error <= 128 * 1.5e-45).all()
  assert len(tables.encode(rows.embeddings, "int8")[0]) == 4 + DIM
  with pytest.raises(ValueError, match="storage must be"):
    create(tmp_path / "h.db", storage="bf16")


def test_a_zero_embedding_has_no_direction(store):
  rows = templates(2, 1)
  rows.embeddings[1] = 0
  with pytest.raises(errors.UserError, match="1-1.jpg.*zero"):
    store.add({"Ada": rows})
  assert store.people() == {}


def test_ten_thousand_templates_of_one_person(store):
  store.add({"Ada": templates(10_000, 1), "Bob": templates(1, 2)})
  assert store.people() == {"Ada": 10_000, "Bob": 1}
  assert store.remove("Ada") == 10_000
  assert store.people() == {"Bob": 1} and store.check() == []
