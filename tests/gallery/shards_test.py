"""Tests of shard sets: writing, reading by rows, damage, erasing."""

import contextlib
import json
import os
import shutil
import sqlite3
import stat

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.cli import main
from facesiam_jax.gallery import parts, sharding, tables
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import create, templates

DIM = 48
ROWS = 100
CROWD = 120


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
  monkeypatch.setattr(sharding, "_LEAST_ROWS", ROWS)


def _fill(store):
  people = {f"Person {i}": templates(1 + i % 5, i, DIM) for i in range(50)}
  quality = np.random.default_rng(0).uniform(0.1, 1, CROWD)
  people["Crowd"] = templates(CROWD, 99, DIM)._replace(quality=quality)
  store.add(people)
  # So that not all templates of a person follow each other.
  store.add({f"Person {i}": templates(1, 200 + i, DIM) for i in range(9)})


@pytest.fixture(name="made", params=["float32", "int8"])
def _made(request, tmp_path):
  """An open gallery of 279 templates and its shard set."""
  with create(
    tmp_path / "g.db", DIM, storage=request.param, timeout_s=0.1
  ) as store:
    _fill(store)
    sharding.write(store, tmp_path / "set")
    yield store, parts.ShardSet(tmp_path / "set")


@pytest.fixture(name="plain")
def _plain(tmp_path):
  with create(tmp_path / "g.db", DIM, timeout_s=0.1) as store:
    _fill(store)
    sharding.write(store, tmp_path / "set")
    yield store, tmp_path / "set"


def test_all_rows_are_there_and_people_are_whole(made):
  store, shards = made
  records = store.records()
  order = np.lexsort((records.template_ids, records.person_ids))
  rows, found = store.meta["storage"], list(shards.rows(0, 10**9))
  assert {block.vectors.dtype.name for _, block in found} == {rows}
  join = lambda name: np.concatenate([getattr(b, name) for _, b in found])
  vectors = [tables.join(b.vectors, b.scales) for _, b in found]
  np.testing.assert_array_equal(
    np.concatenate(vectors), records.embeddings[order]
  )
  np.testing.assert_array_equal(
    join("template_ids"), records.template_ids[order]
  )
  np.testing.assert_array_equal(join("person_ids"), records.person_ids[order])
  np.testing.assert_array_equal(join("quality"), records.quality[order])
  assert len(set(records.quality.tolist())) > 100
  starts = shards.bounds[:-1]
  people = join("person_ids")
  assert len(starts) > 20 and shards.bounds[-1] == len(people) == 279
  assert all(people[s] != people[s - 1] for s in starts[1:])
  assert {p: shards.name(p) for p in set(people.tolist())} == records.names
  told = shards.manifest
  assert told.fingerprint == "f" * 64 and told.num_people == 51
  assert told.generation == store.generation() == 2
  assert told.gallery == store.meta["id"] and told.metric == "cosine"
  assert shards.problems() == [] and sharding.staleness(shards) is None
  with pytest.raises(KeyError):
    shards.name(10**6)


def test_some_rows_read_no_other_part(made, monkeypatch):
  _, shards = made
  read = []
  load = shards._load
  monkeypatch.setattr(shards, "_load", lambda name: read.append(name) or
                      load(name))  # fmt: skip
  sizes = list(map(sum, shards.manifest.pieces))
  first, last = sizes[0] - 3, sizes[0] + 4
  (a, b) = shards.rows(first, last)
  assert (a[0], b[0]) == (first, sizes[0])
  assert len(a[1].person_ids) == 3 and len(b[1].person_ids) == 4
  assert read == ["parts/00000", "parts/00001"]
  assert list(shards.rows(5, 5)) == []


def test_the_file_is_read_by_rows(plain, tmp_path, monkeypatch):
  store, _ = plain
  asked = []
  embeddings = tables.embeddings
  monkeypatch.setattr(
    tables,
    "embeddings",
    lambda c, codec, after, most: (
      asked.append(most) or embeddings(c, codec, after, most)
    ),
  )
  sharding.write(store, tmp_path / "other")
  assert asked == [ROWS] * 3
  # 100 million rows of 128 bytes: never more than a part of 64 MiB.
  rows = sharding._rows_at_once(100_000_000, tables.row_bytes(128, "int8"))
  assert 400_000 < rows < 600_000
  assert sharding._rows_at_once(10, 2**30) == 1


def test_an_empty_gallery(tmp_path):
  with create(tmp_path / "g.db", DIM) as store:
    sharding.write(store, tmp_path / "set")
  shards = parts.ShardSet(tmp_path / "set")
  assert shards.bounds == [0] and shards.problems() == []


def test_it_is_its_owners_alone(plain):
  _, folder = plain
  modes = {stat.S_IMODE(p.stat().st_mode) for p in [folder, *folder.rglob("*")]}
  assert modes == {0o700, 0o600}


def test_a_set_is_replaced_and_nothing_else(plain, tmp_path):
  store, folder = plain
  store.add({"New": templates(1, 300, DIM)})
  sharding.write(store, folder)
  assert parts.ShardSet(folder).manifest.generation == 3
  assert sorted(os.listdir(tmp_path)) == ["g.db", "g.db-shm", "g.db-wal", "set"]
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "photo.jpg").write_text("mine")
  with create(tmp_path / "h.db", DIM) as other:
    for taken in (tmp_path / "other", folder, tmp_path / "g.db"):
      with pytest.raises(errors.UserError, match="--out=.* is no shard set of"):
        sharding.write(other, taken)
  with pytest.raises(errors.UserError, match="none does not exist"):
    sharding.write(store, tmp_path / "none" / "set")
  assert parts.ShardSet(folder).problems() == []


def test_who_is_enrolled_while_it_is_written_makes_it_fail(plain, monkeypatch):
  store, folder = plain
  shutil.rmtree(folder)
  fill = sharding._fill

  def and_enroll(*args):
    with Store.open(store.path) as other:
      other.add({"New": templates(1, 300, DIM)})
    return fill(*args)

  monkeypatch.setattr(sharding, "_fill", and_enroll)
  with pytest.raises(errors.UserError, match=r"generation 2, now 3\).*again"):
    sharding.write(store, folder)
  assert sorted(os.listdir(folder.parent)) == ["g.db", "g.db-shm", "g.db-wal"]


def test_a_stale_set_names_both_generations_and_the_mend(plain, capsys):
  store, folder = plain
  shards = parts.ShardSet(folder)
  store.add({"New": templates(1, 300, DIM)})
  with pytest.raises(errors.UserError) as caught:
    sharding.check_fresh(shards)
  told = str(caught.value)
  assert "of generation 2 of" in told and "at generation 3 now" in told
  mend = f"facesiam gallery --gallery={store.path} shard --out={folder}"
  assert mend in told
  assert main.main(["gallery", f"--gallery={folder}", "check"]) == 1
  assert "at generation 3 now" in capsys.readouterr().err
  assert main.main(["gallery", f"--gallery={store.path}", "check"]) == 0
  assert "at generation 3 now" in capsys.readouterr().out
  # Duplicates and terms change nobody.
  assert store.add({"New": templates(1, 300, DIM)}).templates == 0
  assert store.generation() == 3
  # Another gallery at that place, or none, tells nothing.
  store.close()
  for suffix in ("", "-wal", "-shm"):
    (folder.parent / f"g.db{suffix}").unlink(missing_ok=True)
  sharding.check_fresh(shards)
  create(store.path, DIM).close()
  sharding.check_fresh(shards)


def _content(folder):
  paths = [path for path in folder.rglob("*") if path.is_file()]
  return b"".join(path.read_bytes() for path in paths)


def _traces(rows, storage):
  for row in rows.embeddings:
    if storage == "int8":
      row = np.rint(row * (127 / np.abs(row).max())).astype(np.int8)
    yield row[:16].tobytes()


def test_erasing_reaches_shard_sets(made, tmp_path):
  store, shards = made
  traces = list(_traces(templates(CROWD, 99, DIM),
                        store.meta["storage"]))  # fmt: skip
  killed = sharding._temporary(shards.folder, 2)
  shutil.copytree(shards.folder, killed)
  moved = tmp_path / "elsewhere"
  sharding.write(store, tmp_path / "second")
  os.rename(tmp_path / "second", moved)
  in_set = _content(shards.folder)
  assert all(trace in in_set for trace in traces)
  # Names are short enough that Orbax may store them compressed.
  assert "Crowd" in map(shards.name, range(1, 52))
  traces.append(b"Crowd")
  other = tmp_path / "other"
  with create(tmp_path / "h.db", DIM) as another:
    another.add({"Eve": templates(1, 1, DIM)})
    sharding.write(another, other)
  store.remove("Crowd")
  assert not shards.folder.exists() and not killed.exists()
  assert sharding.missing(store) == [str(tmp_path / "second")]
  assert other.is_dir()
  shutil.rmtree(moved)
  content = _content(tmp_path)
  assert not [trace for trace in traces if trace in content]
  assert sharding.known(store) == [tmp_path / "second"]
  sharding.write(store, shards.folder)
  assert not [trace for trace in traces if trace in _content(tmp_path)]


def test_erasing_with_a_reader_goes_as_far_as_it_can(plain, capsys, tmp_path):
  store, folder = plain
  traces = list(_traces(templates(CROWD, 99, DIM), "float32"))
  with contextlib.closing(
    sqlite3.connect(store.path, isolation_level=None)
  ) as reader:
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM templates").fetchall()
    with pytest.raises(errors.UserError, match="not erased.*-wal.*check"):
      store.remove("Crowd")
    assert not folder.exists()
  assert main.main(["gallery", f"--gallery={store.path}", "check"]) == 0
  assert not [trace for trace in traces if trace in _content(tmp_path)]


def test_the_command_tells_of_sets(plain, capsys, tmp_path):
  store, folder = plain
  flag = f"--gallery={store.path}"
  assert main.main(["gallery", flag, "shard"]) == 2
  assert "--out" in capsys.readouterr().err
  out = f"--out={tmp_path / 'two'}"
  assert main.main(["gallery", flag, out, "shard"]) == 0
  assert "Wrote 279 photos of 51 people" in capsys.readouterr().out
  assert main.main(["gallery", f"--gallery={tmp_path / 'two'}", "check"]) == 0
  assert "is sound: 279 photos of 51" in capsys.readouterr().out
  assert main.main(["gallery", f"--gallery={folder}", "list"]) == 1
  assert f"the gallery's file, {store.path}" in capsys.readouterr().err
  shutil.rmtree(folder)
  assert main.main(["gallery", flag, "remove", "Crowd"]) == 0
  said = capsys.readouterr().out
  assert f"{tmp_path / 'two'}: the shard set held who was removed" in said
  assert f"{folder}: a shard set was written here and is not here" in said


def test_a_set_that_cannot_be_told_is_not_deleted(plain):
  store, folder = plain
  (folder / parts.MANIFEST).write_text("{}")
  with pytest.raises(errors.UserError, match="manifest.json is damaged"):
    store.remove("Crowd")
  assert folder.exists() and "Crowd" not in store.people()


@pytest.mark.parametrize(
  "flips", [30, pytest.param(1000, marks=pytest.mark.soak)]
)
def test_a_flipped_bit_is_told_of(plain, flips, monkeypatch):
  _, folder = plain
  # Files are compared before Orbax reads them, which this is not about.
  paths = sorted(path for path in folder.rglob("*") if path.is_file())
  rng, missed = np.random.default_rng(0), []
  for number in range(flips):
    path = paths[number % len(paths)]
    content = path.read_bytes()
    if not content:
      continue
    changed = bytearray(content)
    changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    path.write_bytes(changed)
    try:
      parts.ShardSet(folder)._check_files("")
      missed.append(path)
    except errors.UserError as error:
      assert "damaged" in str(error) or "is no shard set" in str(error) or (
        "format" in str(error)
      )  # fmt: skip
    path.write_bytes(content)
  assert not missed
  assert parts.ShardSet(folder).problems() == []


def test_what_is_missing_cut_or_added_is_named(plain, capsys):
  store, folder = plain
  one = sorted((folder / "parts" / "00001").rglob("*"))[-1]
  content = one.read_bytes()
  name = one.relative_to(folder).as_posix()
  one.write_bytes(content[:-1])
  (problem,) = parts.ShardSet(folder).problems()
  assert (
    f"the SHA-256 of {name} differs" in problem and "shard --out" in problem
  )
  with pytest.raises(errors.UserError, match="is damaged"):
    list(parts.ShardSet(folder).rows(0, 200))
  one.unlink()
  assert f"{name} is missing" in parts.ShardSet(folder).problems()[0]
  one.write_bytes(content)
  (folder / "parts" / "more").write_text("")
  assert "knows no parts/more" in parts.ShardSet(folder).problems()[0]
  assert main.main(["gallery", f"--gallery={store.path}", "check"]) == 1
  assert "knows no parts/more" in capsys.readouterr().out
  (folder / "parts" / "more").unlink()
  told = json.loads((folder / parts.MANIFEST).read_text())
  told["format"] = 2
  (folder / parts.MANIFEST).write_text(json.dumps(told))
  with pytest.raises(errors.UserError, match="format 2, and this program"):
    parts.ShardSet(folder)
  with pytest.raises(errors.UserError, match="is no shard set"):
    parts.ShardSet(folder / "parts")
