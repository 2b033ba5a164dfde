"""A damaged gallery file is told of, or reads as before."""

import os
import re
import struct

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery.records import Source, Terms
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import create, templates


def test_damage_is_found(store):
  store.add({"Ada": templates(3, 1)})
  execute = store._connection.execute
  execute("UPDATE templates SET embedding = zeroblob(24) WHERE id = 2")
  assert store.check() == ["Template 2: it is damaged."]
  execute("UPDATE templates SET embedding = x'00' WHERE id = 3")
  assert len(store.check()) == 2
  with pytest.raises(errors.UserError, match="damaged"):
    store.records()


@pytest.mark.parametrize(
  "change",
  [
    "UPDATE people SET name = 'Eve' WHERE id = 1",
    "UPDATE people SET expires = '2031-01-01' WHERE id = 1",
    "UPDATE templates SET person_id = 2 WHERE id = 1",
    "UPDATE templates SET source = 'x.jpg' WHERE id = 1",
    "UPDATE templates SET enrolled = 5 WHERE id = 1",
    "UPDATE templates SET digest = x'00' WHERE id = 1",
    "UPDATE templates SET quality = 0.5 WHERE id = 1",
    "UPDATE templates SET quality = NULL WHERE id = 3",
  ],
)
def test_every_column_is_under_a_checksum(store, change):
  ada = templates(3, 1)._replace(quality=[None, 0.7, 0.7])
  store.add({"Ada": ada, "Bob": templates(2, 2)})
  assert store.check() == []
  store._connection.execute(change)
  (problem,) = store.check()
  assert "damaged" in problem


def test_each_flipped_bit_of_a_quality_is_found(tmp_path):
  path, weight = tmp_path / "g.db", 0.7345678
  with create(path) as store:
    store.add({"Ada": templates(2, 1)._replace(quality=[0.25, weight])})
  content = path.read_bytes()
  # SQLite stores it in eight bytes, the highest first.
  (place,) = [m.start() for m in re.finditer(
    re.escape(struct.pack(">d", weight)), content)]  # fmt: skip
  beyond = 0
  for bit in range(64):
    changed = bytearray(content)
    changed[place + bit // 8] ^= 128 >> bit % 8
    path.write_bytes(changed)
    with Store.open(path) as store:
      assert store.check() == ["Template 2: it is damaged."], bit
      try:
        store.records()
      except errors.UserError as error:
        assert "damaged: a quality is not in 0 to 1" in str(error)
        beyond += 1
  assert 4 < beyond < 15


@pytest.mark.parametrize("value", ["'text'", "x'00'", "0", "-1", "2", "9e999"])
def test_a_quality_that_is_none_is_not_searched_with(store, value):
  store.add({"Ada": templates(2, 1)._replace(quality=[0.25, 0.5])})
  store._connection.execute(f"UPDATE templates SET quality = {value}")
  with pytest.raises(errors.UserError, match="damaged: a quality is not in"):
    store.records()


def test_what_the_file_says_of_itself_is_under_a_checksum(store):
  store._connection.execute("UPDATE meta SET value = '7' WHERE key = 'dim'")
  with pytest.raises(errors.UserError, match="damaged"):
    Store.open(store.path)
  with pytest.raises(errors.UserError, match="damaged"):
    store.check()


def _filled(path):
  with create(path) as store:
    for i in range(12):
      rows = templates(4, i)
      sources = [Source(f"{i}.jpg", bytes([i, j]) * 16, 99) for j in range(4)]
      terms = Terms("paper", "door", "2031-01-01")
      given = rows._replace(sources=sources, quality=[0.1, None, 1, 1 / 3])
      store.add({f"Person {i}": given}, terms)
    store.remove("Person 3")
  return path.read_bytes()


def _read(path):
  """Returns all that the file tells, or the one sentence."""
  try:
    with Store.open(path, timeout_s=0.1) as store:
      if problems := store.check():
        return "".join(problems)
      records = store.records()
      return [
        store.meta,
        store.members(),
        store.files(),
        records.names,
        records.embeddings.tobytes(),
        records.quality.tobytes(),
        records.person_ids.tolist(),
        records.template_ids.tolist(),
      ]
  except errors.UserError as error:
    return str(error)


def _clear(path):
  for suffix in ("", "-wal", "-shm"):
    if os.path.exists(f"{path}{suffix}"):
      os.unlink(f"{path}{suffix}")


@pytest.mark.parametrize(
  "flips", [100, pytest.param(5_000, marks=pytest.mark.soak)]
)
def test_a_flipped_bit_is_told_of_or_changes_nothing(tmp_path, flips):
  path = tmp_path / "g.db"
  content = _filled(path)
  wanted = _read(path)
  assert not isinstance(wanted, str)
  rng, told = np.random.default_rng(0), 0
  # A third of them in the header and the tables' definitions.
  places = rng.integers(0, len(content), flips)
  places[::3] = rng.integers(0, 4096, len(places[::3]))
  for place in places:
    changed = bytearray(content)
    changed[place] ^= 1 << int(rng.integers(8))
    _clear(path)
    path.write_bytes(changed)
    found = _read(path)
    told += isinstance(found, str)
    assert isinstance(found, str) or found == wanted, place
  assert told > flips / 20


@pytest.mark.parametrize("part", [0.999, 0.8, 0.5, 0.1, 0.001])
def test_a_truncated_file_is_told_of(tmp_path, part):
  path = tmp_path / "g.db"
  content = _filled(path)
  _clear(path)
  path.write_bytes(content[: int(part * len(content))])
  found = _read(path)
  assert isinstance(found, str) and ("damaged" in found or "not a ga" in found)


def test_a_flipped_page_is_reported(tmp_path):
  path = tmp_path / "g.db"
  content = bytearray(_filled(path))
  content[4096 * 3 : 4096 * 5] = b"\xff" * 8192
  path.write_bytes(content)
  assert isinstance(_read(path), str)
