"""Tests of exports and imports, and of moving to another bundle."""

import contextlib
import csv
import os
import sqlite3
import stat

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import erasing, exports
from facesiam_jax.gallery.records import Source, Terms
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import DIM, create, templates


def _fill(store):
  sources = [Source(f"{i}, x.jpg", bytes([i]) * 32, 1000 + i) for i in range(3)]
  ada = templates(3, 1)._replace(sources=sources, quality=[1 / 3, 1, None])
  store.add({"Ada": ada}, Terms("a, b", 'so "called"', "2031-01-02"))
  store.add({"Zoë": templates(2, 2)})


def _all(store):
  records = store.records()
  names = [records.names[int(person)] for person in records.person_ids]
  query = "SELECT quality FROM templates ORDER BY id"
  quality = store._connection.execute(query).fetchall()
  told = (records.embeddings.tolist(), records.quality.tolist(), quality)
  return store.members(), store.files(), names, *told


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_there_and_back(tmp_path, storage):
  with create(tmp_path / "g.db", storage=storage) as store:
    _fill(store)
    assert exports.write(store, tmp_path / "all.npz") == 5
    wanted = _all(store)
  for name in ("all.npz", "all.csv"):
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
  added = exports.bring(tmp_path / "all.npz", tmp_path / "h.db")
  assert added == (5, [])
  with Store.open(tmp_path / "h.db") as store:
    assert _all(store) == wanted and store.check() == []
  again = exports.bring(tmp_path / "all.npz", tmp_path / "h.db")
  assert again.templates == 0 and len(again.duplicates) == 5
  with Store.create(
    tmp_path / "o.db", fingerprint="e" * 64, dim=DIM, metric="cosine"
  ):
    pass
  with pytest.raises(errors.UserError, match="another bundle"):
    exports.bring(tmp_path / "all.npz", tmp_path / "o.db")


def _as_before_there_was_a_quality(path):
  with np.load(path) as archive:
    arrays = dict(archive)
  third = np.float32(1 / 3)
  assert arrays.pop("quality").tolist() == [third, 1, 1, 1, 1]
  np.savez(path, **arrays)
  table = path.with_suffix(".csv")
  with table.open(encoding="utf-8", newline="") as file:
    rows = list(csv.reader(file))
  assert [row.pop() for row in rows] == ["quality", str(1 / 3), "1.0", *"", "",
                                         "", ""]  # fmt: skip
  with table.open("w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows(rows)


def test_an_export_of_before_there_was_a_quality(store, tmp_path):
  _fill(store)
  path = tmp_path / "all.npz"
  exports.write(store, path)
  _as_before_there_was_a_quality(path)
  assert exports.bring(path, tmp_path / "h.db").templates == 5
  with Store.open(tmp_path / "h.db") as other:
    found, wanted = _all(other), _all(store)
    assert found[-1] == [(None,)] * 5 and found[-2] == [1] * 5
    assert found[:-2] == wanted[:-2] and other.check() == []
  # It is cleaned as it is.
  store.remove("Ada")
  made, people, _ = exports.read(path)
  assert list(people) == ["Zoë"] and made["metric"] == "cosine"


@pytest.mark.parametrize("text", ["0", "-0.5", "1.5", "nan", "inf", "good"])
def test_an_export_with_a_quality_that_is_none(store, tmp_path, text):
  _fill(store)
  exports.write(store, tmp_path / "all.npz")
  table = tmp_path / "all.csv"
  content = table.read_text(encoding="utf-8")
  table.write_text(content.replace(str(1 / 3), text), encoding="utf-8")
  with pytest.raises(errors.UserError, match="no table of an export"):
    exports.bring(tmp_path / "all.npz", tmp_path / "h.db")
  assert not (tmp_path / "h.db").exists()


def test_what_is_no_export(store, tmp_path):
  with pytest.raises(errors.UserError, match=r"ending \.npz"):
    exports.write(store, tmp_path / "all.zip")
  with pytest.raises(errors.UserError, match="two files"):
    exports.read(tmp_path / "none.npz")
  _fill(store)
  exports.write(store, tmp_path / "all.npz")
  table = (tmp_path / "all.csv").read_text(encoding="utf-8")
  for wrong in (
    "\n".join(table.splitlines()[:-1]),
    table.replace("person,", "who,"),
    table.replace("2031", "nonsense,2031"),
    "",
  ):
    (tmp_path / "all.csv").write_text(wrong, encoding="utf-8")
    with pytest.raises(errors.UserError, match=r"no (export|table)"):
      exports.read(tmp_path / "all.npz")
  (tmp_path / "all.csv").write_text(table.replace("01" * 32, "zz"))
  with pytest.raises(errors.UserError, match="no table"):
    exports.read(tmp_path / "all.npz")
  (tmp_path / "all.npz").write_bytes(b"PK text")
  with pytest.raises(errors.UserError, match="no export"):
    exports.read(tmp_path / "all.npz")
  with pytest.raises(errors.UserError, match="cannot be written"):
    exports.write(store, tmp_path / "none" / "all.npz")


def test_removal_reaches_exports(store, tmp_path):
  _fill(store)
  ada = templates(3, 1)
  for name in ("one.npz", "two.npz", "gone.npz"):
    exports.write(store, tmp_path / name)
  os.unlink(tmp_path / "gone.npz")
  os.unlink(tmp_path / "gone.csv")
  (before,) = exports.read(tmp_path / "one.npz")[1]["Ada"].embeddings[:1]
  assert (before == ada.embeddings[0]).all()
  store.remove("Ada")
  assert exports.missing(store) == [str(tmp_path / "gone.npz")]
  content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
  digest = ada.digests[0]
  traces = [ada.embeddings[0].tobytes(), digest, digest.hex().encode()]
  traces += [b"Ada", "Ada".encode("utf-32-le"), b"called", b"x.jpg"]
  assert not any(trace in content for trace in traces)
  for name in ("one.npz", "two.npz"):
    people = exports.read(tmp_path / name)[1]
    assert list(people) == ["Zoë"] and len(people["Zoë"].digests) == 2
    with np.load(tmp_path / name) as archive:
      assert len(archive["quality"]) == len(archive["embeddings"]) == 2


def test_another_gallerys_export_is_left_alone(store, tmp_path):
  _fill(store)
  exports.write(store, tmp_path / "all.npz")
  with create(tmp_path / "h.db") as other:
    other.add({"Bob": templates(1, 9)})
    exports.write(other, tmp_path / "all.npz")
  store.remove("Ada")
  assert list(exports.read(tmp_path / "all.npz")[1]) == ["Bob"]


def test_an_export_that_cannot_be_cleaned_is_told_of(store, tmp_path):
  _fill(store)
  exports.write(store, tmp_path / "all.npz")
  os.unlink(tmp_path / "all.csv")
  with pytest.raises(errors.UserError, match="all.csv"):
    store.remove("Ada")
  assert list(store.people()) == ["Zoë"]


_NEW = {"fingerprint": "e" * 64, "dim": 4, "metric": "euclidean"}


def test_a_gallery_is_moved_whole(store):
  _fill(store)
  terms = [member.terms for member in store.members()]
  with Store.open(store.path) as other:
    new = {"Ada": templates(1, 5, 4)}
    assert erasing.move(store, new, **_NEW) == ["Zoë"]
    assert other.records().embeddings.shape == (5, DIM)
    new["Zoe\u0308"] = templates(2, 6, 4)
    assert erasing.move(store, new, **_NEW) == []
    with pytest.raises(errors.UserError, match="moved to another bundle"):
      other.records()
    with pytest.raises(errors.UserError, match="moved to another bundle"):
      other.add({"Bob": templates(1, 7)})
  assert [member.terms for member in store.members()] == terms
  records = store.records()
  assert records.embeddings.shape == (3, 4) and store.check() == []
  assert records.template_ids.tolist() == [6, 7, 8]
  with Store.open(store.path) as again:
    again.check_bundle("e" * 64)
    assert again.meta["metric"] == "euclidean"


def test_who_cannot_follow_can_be_dropped(store):
  _fill(store)
  new = {"Zoë": templates(2, 6, 4)}
  assert erasing.move(store, new, **_NEW, drop=True) == ["Ada"]
  assert store.people() == {"Zoë": 2}
  assert [person for person, _ in store.removals()] == [1]
  old = templates(3, 1)
  content = b"".join(p.read_bytes() for p in store.path.parent.glob("g.db*"))
  assert old.embeddings[0].tobytes() not in content


def test_a_failed_move_leaves_the_old_gallery(store):
  _fill(store)
  before = _all(store)
  for people in ({"Nobody": templates(1, 1, 4)}, {}):
    with pytest.raises(errors.UserError, match="Nobody"):
      erasing.move(store, people, **_NEW, drop=True)
  twice = {"Ada": templates(1, 5, 4), "Zoë": templates(1, 5, 4)}
  with pytest.raises(errors.UserError, match="same picture"):
    erasing.move(store, twice, **_NEW)
  with pytest.raises(ValueError, match="shape"):
    erasing.move(store, {"Ada": templates(1, 5)}, **_NEW)
  assert _all(store) == before
  store.check_bundle("f" * 64)


def test_erased_is_said_only_of_an_empty_log(store, monkeypatch):
  _fill(store)
  with contextlib.closing(
    sqlite3.connect(store.path, isolation_level=None)
  ) as reader:
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM people").fetchall()
    # Even if SQLite called it done.
    monkeypatch.setattr(store, "checkpoint", lambda: False)
    with pytest.raises(errors.UserError, match="not erased"):
      store.remove("Ada")
