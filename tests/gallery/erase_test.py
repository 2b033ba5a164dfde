"""What is removed from a gallery is in none of its files."""

import contextlib
import sqlite3

import pytest

from facesiam_jax import errors
from tests.gallery.stores import create, templates


def _bytes_of_files(path):
  return b"".join(p.read_bytes() for p in path.parent.glob(path.name + "*"))


def _traces(templates, name):
  rows = templates.embeddings.astype("<f4")
  pieces = [row[i : i + 8].tobytes() for row in rows for i in (0, 8, 40)]
  return [name.encode(), *templates.digests, *pieces]


@pytest.mark.parametrize("dim", [48, 2048])
def test_removed_bytes_are_gone(tmp_path, dim):
  path = tmp_path / "g.db"
  people = {f"Person {i}": templates(1 + i % 5, i, dim) for i in range(60)}
  with create(path, dim) as store:
    store.add(people)
    for gone in (17, 3, 59, 0, 29):
      name = f"Person {gone} of old"
      mine = templates(7, 100 + gone, dim)
      store.add({name: mine})
      content = _bytes_of_files(path)
      assert all(trace in content for trace in _traces(mine, name))
      assert store.remove(name) == 7
      content = _bytes_of_files(path)
      assert not any(trace in content for trace in _traces(mine, name))
    assert store.check() == []
    assert store.people() == {n: len(t.digests) for n, t in people.items()}


def test_without_erasing_the_log_keeps_what_was_removed(store, monkeypatch):
  mine = templates(2, 1)
  store.add({"Ada": mine})
  monkeypatch.setattr(store, "erase", lambda: None)
  store.remove("Ada")
  assert mine.embeddings[0].tobytes() in _bytes_of_files(store.path)


def test_a_reader_that_holds_up_the_erasing_is_reported(store):
  mine = templates(2, 1)
  store.add({"Ada": mine})
  with contextlib.closing(
    sqlite3.connect(store.path, isolation_level=None)
  ) as reader:
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM templates").fetchall()
    with pytest.raises(errors.UserError, match="-wal.*check"):
      store.remove("Ada")
  assert store.people() == {}
  assert store.check() == []
  assert mine.embeddings[0].tobytes() not in _bytes_of_files(store.path)
