"""Tests of encrypted galleries."""

import os
import stat
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("cryptography", reason="the extra encrypt is not installed")

from facesiam_jax import errors  # noqa: E402
from facesiam_jax.gallery import encryption, erasing, exports  # noqa: E402
from facesiam_jax.gallery.codec import TemplateRow  # noqa: E402
from facesiam_jax.gallery.records import Source, Terms  # noqa: E402
from facesiam_jax.gallery.store import Store  # noqa: E402
from tests.gallery.stores import create, templates  # noqa: E402

DIM = 48
NAMES = ("Ada Lovelace", "Zoë Quine")
_WEIGHT = 0.7345678


def _people():
  people = {}
  for number, name in enumerate(NAMES):
    hashes = [bytes([number + 1, i + 65]) * 16 for i in range(3)]
    sources = [Source(f"{name} {i}.jpg", h) for i, h in enumerate(hashes)]
    rows = templates(3, number + 1, DIM)
    people[name] = rows._replace(sources=sources, quality=[_WEIGHT, None, 1])
  return people


def _make(path, key_file, **options):
  with create(path, DIM, key_file=key_file, **options) as store:
    store.add(_people(), Terms("form 12", "the door", "2031-01-02"))


@pytest.fixture(name="made", params=["float32", "int8"])
def _made(request, tmp_path):
  """An encrypted gallery and its key."""
  path, key_file = tmp_path / "g.db", tmp_path / "keys" / "k"
  key_file.parent.mkdir()
  _make(path, key_file, storage=request.param)
  return path, key_file


def _told(store):
  records = store.records()
  names = [records.names[int(person)] for person in records.person_ids]
  told = (records.embeddings.tobytes(), records.quality.tolist())
  return store.members(), store.files(), names, *told


def _traces(storage):
  for name, rows in _people().items():
    yield from (name.encode(), name.encode("utf-16-le"), b"form 12", b"door")
    yield from (name.encode().hex().encode(), *rows.digests)
    # As SQLite stores it.
    yield struct.pack(">d", _WEIGHT)
    yield from (source.sha256 for source in rows.sources)
    for row in rows.embeddings:
      if storage == "int8":
        row = np.rint(row * (127 / np.abs(row).max())).astype(np.int8)
      raw = row.tobytes()
      yield from (raw[i : i + 8] for i in (0, 8, 32))


def _content(folder):
  return {p.name: p.read_bytes() for p in folder.rglob("g.db*")}


def test_nothing_of_a_person_is_in_the_clear(made, tmp_path):
  path, key_file = made
  storage = "float32"
  with Store.open(path, key_file=key_file) as store:
    storage = store.meta["storage"]
    store.add({"Cy": templates(1, 7, DIM)})
    during = _content(tmp_path)
    assert len(during) == 3 and len(during["g.db-wal"]) > 0
    store.remove("Cy")
  everything = b"".join([*during.values(), *_content(tmp_path).values()])
  assert not [t for t in _traces(storage) if t in everything]
  with create(tmp_path / "c.db", DIM, storage=storage) as other:
    other.add(_people(), Terms("form 12", "the door"))
  plain = (tmp_path / "c.db").read_bytes()
  found = [trace in plain for trace in _traces(storage)]
  assert sum(found) > len(found) / 2, "the traces are none"


def test_it_tells_what_one_in_the_clear_tells(made, tmp_path):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    wanted = dict(storage=store.meta["storage"])
    told = _told(store)
    assert store.check() == []
    assert store.people() == dict.fromkeys(NAMES, 3)
    added = store.add(_people())
    assert added == (0, [x for t in _people().values() for x in t.labels])
    store.set_terms(NAMES[0], Terms(purpose="desk"))
    assert store.members()[0].terms == Terms("form 12", "desk", "2031-01-02")
    with pytest.raises(errors.UserError, match="enrolled as 'Ada Lovelace'"):
      store.add({"Eve": _people()[NAMES[0]]})
    with pytest.raises(errors.UserError, match="did you mean 'Ada Lovelace'"):
      store.remove("Ada Lovelac")
  _make(tmp_path / "c.db", None, **wanted)
  with Store.open(tmp_path / "c.db") as store:
    (members, *rest) = _told(store)
  times = lambda found: [m._replace(oldest=0, newest=0) for m in found]
  assert times(told[0]) == times(members)
  assert told[1:] == tuple(rest)
  assert rest[-1] == [np.float32(_WEIGHT), 1, 1] * 2


def test_rows_of_before_there_was_a_quality(made):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    wanted = _told(store)[:-1]
    execute = store._connection.execute
    columns = ", ".join(TemplateRow._fields)
    query = f"SELECT {columns} FROM templates"
    for stored in execute(query).fetchall():
      row = store.codec.open_template(TemplateRow(*stored))
      name = row.source.encode()
      lengths = [32, 32, len(name)]
      told = struct.pack(">HHH", *lengths) + row.digest + row.file_hash + name
      facts = (row.id, row.person_id, stored[2], None, None, row.enrolled)
      blob = store.codec._seal(told + row.embedding, ("template", *facts, b""))
      checksum = zlib.crc32(repr(facts[1:]).encode(), zlib.crc32(blob))
      execute(
        "UPDATE templates SET embedding = ?, checksum = ?, quality = NULL "
        "WHERE id = ?",
        (blob, checksum, row.id),
      )
    assert store.check() == []
    assert _told(store) == (*wanted, [1.0] * 6)


def test_removal_expiry_and_moving(made):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    new = {name: templates(1, 30 + i, 4) for i, name in enumerate(NAMES)}
    made_by = {"fingerprint": "e" * 64, "dim": 4, "metric": "euclidean"}
    assert erasing.move(store, new, **made_by) == []
    assert store.remove(NAMES[1]) == 1
    assert store.check() == []
    assert store.expire("2031-01-02") == {NAMES[0]: 1}
    assert store.people() == {} and store.check() == []


def test_exports_are_in_the_clear_and_asked_for(made, tmp_path):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    with pytest.raises(errors.UserError, match="encrypted.*--in_clear"):
      exports.write(store, tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()
    assert exports.write(store, tmp_path / "all.npz", in_clear=True) == 6
    wanted = _told(store)
    storage = store.meta["storage"]
  other = tmp_path / "other.db"
  exports.bring(tmp_path / "all.npz", other, storage=storage, key_file=key_file)
  with Store.open(other, key_file=key_file) as store:
    assert _told(store) == wanted and store.check() == []
    # The photos' own digests have travelled.
    assert store.add(_people()).templates == 0


def test_two_galleries_with_one_key_have_nothing_in_common(made, tmp_path):
  path, key_file = made
  _make(tmp_path / "h.db", key_file)
  columns = []
  for one in (path, tmp_path / "h.db"):
    with Store.open(one, key_file=key_file) as store:
      assert store.people() == dict.fromkeys(NAMES, 3)
      execute = store._connection.execute
      names = execute("SELECT name, sealed FROM people").fetchall()
      rows = execute("SELECT digest, embedding FROM templates").fetchall()
      columns.append({value for row in names + rows for value in row})
  assert not columns[0] & columns[1]
  with Store.open(path, key_file=key_file) as store:
    execute = store._connection.execute
    sealed = list(columns[1] - {None})
    blob = max((x for x in sealed if isinstance(x, bytes)), key=len)
    execute("UPDATE templates SET embedding = ? WHERE id = 1", (blob,))
    with pytest.raises(errors.UserError, match="template 1 cannot be decrypt"):
      store.records()


@pytest.mark.parametrize(
  "change, what",
  [
    ("UPDATE templates SET embedding = (SELECT embedding FROM templates "
     "WHERE id = 2) WHERE id = 1", "Template 1"),
    ("UPDATE templates SET person_id = 2 WHERE id = 1", "Template 1"),
    ("UPDATE templates SET enrolled = 5 WHERE id = 3", "Template 3"),
    ("UPDATE templates SET embedding = x'00' WHERE id = 3", "Template 3"),
    ("UPDATE templates SET quality = 0.5 WHERE id = 1", "Template 1"),
    ("UPDATE templates SET quality = NULL WHERE id = 1", "Template 1"),
    ("UPDATE templates SET quality = 1 WHERE id = 2", "Template 2"),
    ("UPDATE people SET sealed = (SELECT sealed FROM people WHERE id = 2) "
     "WHERE id = 1", "Person 1"),
    ("UPDATE people SET expires = '2099-01-01' WHERE id = 1", "Person 1"),
    ("UPDATE people SET sealed = NULL WHERE id = 1", "Person 1"),
  ],
)  # fmt: skip
def test_rows_cannot_be_changed_or_swapped(made, monkeypatch, change, what):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    store._connection.execute(change)
    (problem,) = store.check()
    assert problem.startswith(f"{what}") and "damaged" in problem
    # Also by somebody who knows how the checksums are made.
    execute = store._connection.execute
    execute("UPDATE templates SET checksum = 0")
    execute("UPDATE people SET checksum = 0")
    name = "facesiam_jax.gallery.schema"
    monkeypatch.setattr(f"{name}.person_checksum", lambda *_: 0)
    monkeypatch.setattr(f"{name}.template_checksum", lambda *_: 0)
    (problem,) = store.check()
    assert problem.startswith(what) and "cannot be decrypted" in problem


def test_each_flipped_bit_of_a_row_is_named(made):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    query = "SELECT * FROM templates WHERE id = 4"
    columns = ", ".join(TemplateRow._fields)
    row = TemplateRow(
      *store._connection.execute(query.replace("*", columns)).fetchone()
    )
    store.codec.open_template(row)
    for place in range(len(row.embedding)):
      changed = bytearray(row.embedding)
      changed[place] ^= 1 << place % 8
      with pytest.raises(errors.UserError, match="template 4 cannot be"):
        store.codec.open_template(row._replace(embedding=bytes(changed)))


def test_every_record_has_its_own_nonce(made):
  path, key_file = made
  with Store.open(path, key_file=key_file) as store:
    store.set_terms(NAMES[0], Terms(purpose="desk"))
    execute = store._connection.execute
    rows = execute("SELECT embedding FROM templates").fetchall()
    rows += execute("SELECT sealed FROM people").fetchall()
    same = store.codec.seal_template(
      TemplateRow(1, 1, b"d", None, None, 0, b"")
    )
    again = store.codec.seal_template(
      TemplateRow(1, 1, b"d", None, None, 0, b"")
    )
  nonces = {row[0][:12] for row in rows}
  assert len(nonces) == len(rows) == 8
  assert same.embedding != again.embedding


def test_the_key_must_be_right(made, tmp_path):
  path, key_file = made
  assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
  assert [p.name for p in key_file.parent.iterdir()] == ["k"]
  with pytest.raises(errors.UserError, match=r"encrypted; .*--key_file=FILE"):
    Store.open(path)
  encryption.make_key(tmp_path / "other")
  with pytest.raises(errors.UserError, match="other is not the key of .*g.db"):
    Store.open(path, key_file=tmp_path / "other")
  with pytest.raises(errors.UserError, match="none cannot be read.*nobody"):
    create(path, DIM, key_file=tmp_path / "none")
  assert not (tmp_path / "none").exists()
  before = key_file.read_bytes()
  encryption.make_key(key_file)
  assert key_file.read_bytes() == before
  for mode in (0o640, 0o604, 0o620):
    os.chmod(key_file, mode)
    with pytest.raises(errors.UserError, match=f"mode {mode:o}.*chmod 600"):
      Store.open(path, key_file=key_file)
  for text in (b"", before[:-3], before.upper(), b"\xff" * 80, before + b"00"):
    (tmp_path / "bad").write_bytes(text)
    os.chmod(tmp_path / "bad", 0o600)
    with pytest.raises(errors.UserError, match="bad holds no key"):
      Store.open(path, key_file=tmp_path / "bad")
  with pytest.raises(errors.UserError, match="none.*cannot be written"):
    create(tmp_path / "n.db", DIM, key_file=tmp_path / "none" / "k")
  assert not (tmp_path / "n.db").exists()


def test_a_gallery_in_the_clear_takes_no_key(store, tmp_path):
  encryption.make_key(tmp_path / "k")
  with pytest.raises(errors.UserError, match="not encrypted; leave out --key"):
    Store.open(store.path, key_file=tmp_path / "k")


def test_without_the_package_the_extra_is_named(made, monkeypatch):
  path, key_file = made
  monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
  with pytest.raises(errors.UserError, match=r"facesiam_jax\[encrypt\]"):
    Store.open(path, key_file=key_file)
