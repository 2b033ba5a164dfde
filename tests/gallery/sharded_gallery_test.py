"""A shard set is searched with the bits of the gallery file it was made of."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors, parallel
from facesiam_jax.cli import main
from facesiam_jax.gallery import gallery as gallery_lib
from facesiam_jax.gallery import parts, sharded, sharding
from facesiam_jax.gallery.parts import ShardSet
from facesiam_jax.gallery.records import Templates
from facesiam_jax.gallery.store import Store
from tests import colour_bundle
from tests.gallery.fake_bundle import FakeBundle

ROOT = pathlib.Path(__file__).parents[2]


def _fill(store, num_people, seed=0):
  """Enrols people of 1 to 4 templates, some of whom are alike to the bit."""
  rng = np.random.default_rng(seed)
  people, number = {}, 0
  twin = rng.normal(size=(1, store.dim)).astype(np.float32)
  for person in range(num_people):
    count = 1 + person % 4
    rows = rng.normal(size=(count, store.dim)).astype(np.float32)
    if person % 7 == 0:
      rows[0] = twin
    digests = [b"%d" % (number + i) for i in range(count)]
    number += count
    quality = [None, *rng.uniform(0.01, 1, count - 1)]
    people[f"Person {person}"] = Templates(
      rows, digests, [""] * count, quality=quality
    )
  store.add(people)


def _store(path, bundle, storage="float32"):
  return Store.create(
    path,
    fingerprint=bundle.fingerprint,
    dim=bundle.dim,
    metric=bundle.metric,
    storage=storage,
  )


@pytest.mark.parametrize(
  "metric, storage",
  [
    ("cosine", "float32"),
    pytest.param("euclidean", "int8", marks=pytest.mark.soak),
  ],
)
def test_it_answers_as_the_file_does(tmp_path, monkeypatch, metric, storage):
  monkeypatch.setattr(sharding, "_LEAST_ROWS", 100)
  bundle = FakeBundle(metric)
  with _store(tmp_path / "g.db", bundle, storage) as store:
    _fill(store, 120)
    rows = store.records().embeddings
    sharding.write(store, tmp_path / "set")
  rng = np.random.default_rng(1)
  queries = np.concatenate([rows[::31], rng.normal(size=(3, 64))])
  mesh = parallel.make_mesh(jax.devices()[:4])
  with sharded.ShardedGallery(
    ShardSet(tmp_path / "set"), bundle, mesh=mesh
  ) as spread:
    valid = np.asarray(spread._current().slots.valid).reshape(4, -1).sum(1)
    assert valid.sum() == 300 and valid.min() > 60
    with gallery_lib.Gallery.open(tmp_path / "g.db", bundle) as gallery:
      weighted = {"k": 9, "fusion": "weighted_mean"}
      for given in (
        {"k": 5},
        {"k": 200},
        weighted,
      ):
        if metric == "euclidean" and "fusion" in given:
          continue
        assert spread.identify(embeddings=queries, **given) == (
          gallery.identify(embeddings=queries, **given)
        )
      mean = {**weighted, "fusion": "mean"}
      assert gallery.identify(embeddings=queries, **weighted) != (
        gallery.identify(embeddings=queries, **mean)
      )
    with pytest.raises(errors.UserError, match="is searched only; name the"):
      spread.remove("Person 1")


def test_a_set_of_before_there_was_a_quality(tmp_path, monkeypatch):
  save = parts.save
  monkeypatch.setattr(
    parts,
    "save",
    lambda folder, arrays: save(
      folder, {k: v for k, v in arrays.items() if k != "quality"}
    ),
  )
  bundle, query = FakeBundle(), np.ones((1, 64), np.float32)
  with _store(tmp_path / "g.db", bundle) as store:
    _fill(store, 9)
    sharding.write(store, tmp_path / "set")
  shards = ShardSet(tmp_path / "set")
  mesh = parallel.make_mesh(jax.devices()[:2])
  assert shards.problems() == [] and (shards.part(0).quality == 1).all()
  spread = sharded.ShardedGallery(shards, bundle, mesh=mesh)
  mean, weighted = (
    spread.identify(embeddings=query, fusion=fusion)
    for fusion in ("mean", "weighted_mean")
  )
  assert mean == weighted


def test_one_template_or_none(tmp_path):
  bundle = FakeBundle()
  mesh = parallel.make_mesh(jax.devices()[:2])
  query = np.ones((1, 64), np.float32)
  for count in (0, 1):
    with _store(tmp_path / f"{count}.db", bundle) as store:
      if count:
        _fill(store, count)
      sharding.write(store, tmp_path / f"{count}")
    spread = sharded.ShardedGallery(
      ShardSet(tmp_path / f"{count}"), bundle, mesh=mesh
    )
    with gallery_lib.Gallery.open(tmp_path / f"{count}.db", bundle) as gallery:
      assert spread.identify(embeddings=query) == (
        gallery.identify(embeddings=query)
      )


def test_another_bundle_and_a_stale_set_are_refused(tmp_path):
  bundle = FakeBundle()
  with _store(tmp_path / "g.db", bundle) as store:
    _fill(store, 3)
    sharding.write(store, tmp_path / "set")
    other = FakeBundle(fingerprint="b" * 64)
    with pytest.raises(errors.UserError, match="filled by another bundle"):
      sharded.ShardedGallery.load(tmp_path / "set", other)
    store.remove("Person 1")
    sharding.write(store, tmp_path / "set")
    store.add(
      {"New": Templates(np.ones((1, 64), np.float32), [b"new"], ["new"])}
    )
    with pytest.raises(errors.UserError, match="generation 2 .* generation 3"):
      sharded.ShardedGallery.load(tmp_path / "set", bundle)


@pytest.mark.parametrize("num_devices", [1, 2, 3, 8, 500])
def test_devices_take_whole_pieces_evenly(num_devices):
  sizes = np.random.default_rng(0).integers(1, 9, 300)
  bounds = [0, *np.cumsum(sizes).tolist()]
  edges = sharded.edges(bounds, num_devices)
  assert len(edges) == num_devices + 1 and (np.diff(edges) >= 0).all()
  assert (edges[0], edges[-1]) == (0, bounds[-1])
  assert set(edges.tolist()) <= set(bounds)
  assert np.diff(edges).max() <= bounds[-1] / num_devices + 9
  assert sharded.edges([0], num_devices).tolist() == [0] * (num_devices + 1)


def test_a_device_reads_its_own_rows(tmp_path, monkeypatch):
  monkeypatch.setattr(sharding, "_LEAST_ROWS", 40)
  with _store(tmp_path / "g.db", FakeBundle()) as store:
    _fill(store, 100)
    sharding.write(store, tmp_path / "set")
  shards = ShardSet(tmp_path / "set")
  starts, read = sharded.edges(shards.bounds, 4), []
  load = shards._load
  monkeypatch.setattr(
    shards, "_load", lambda name: read.append(name) or load(name)
  )
  slots = sharded._load(shards, int(starts[1]), int(starts[2]), 8192, True)
  assert slots.valid.sum() == starts[2] - starts[1]
  assert 2 <= len(read) <= 4 < 7 <= len(shards.manifest.pieces)


@pytest.fixture(name="files")
def _files(tmp_path):
  """A colour bundle and two photos."""
  colour_bundle.save(tmp_path / "bundle", threshold=0.2)
  rng = np.random.default_rng(0)
  photos = []
  for number in range(2):
    photos.append(str(tmp_path / f"{number}.png"))
    face = rng.integers(0, 256, (20, 20, 3), np.uint8)
    PIL.Image.fromarray(face).save(photos[-1])
  return tmp_path, photos


@pytest.mark.parametrize(
  "num_people",
  [1200, pytest.param(80_000, marks=pytest.mark.soak)],
)
def test_two_processes_answer_as_one(files, capsys, num_people):
  folder, photos = files
  bundle = bundle_lib.load(folder / "bundle")
  with _store(folder / "g.db", bundle) as store:
    _fill(store, num_people)
    assert len(store.records().template_ids) == 5 * num_people // 2
    sharding.write(store, folder / "set")
  argv = [f"--bundle={folder / 'bundle'}", "--cropped", "--json", "--k=20"]
  argv += photos
  assert main.main(["identify", f"--gallery={folder / 'g.db'}", *argv]) == 0
  wanted = json.loads(capsys.readouterr().out)
  launched = [sys.executable, ROOT / "launch" / "local.py", "--processes=2"]
  launched += ["--devices=2", "--", "identify", f"--gallery={folder / 'set'}"]
  environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
  done = subprocess.run(
    [*launched, *argv],
    capture_output=True,
    text=True,
    check=False,
    cwd=ROOT,
    env={**environment, "PYTHONPATH": str(ROOT)},
  )
  assert done.returncode == 0, done.stderr[-3000:]
  # Beside Gloo's lines, which it writes by words.
  (line,) = [x for x in done.stdout.splitlines() if "matches" in x]
  assert line.startswith("[0] ")
  found = json.loads(line.removeprefix("[0] "))
  assert len(found[0]["matches"]) == 20
  assert found == wanted


def test_several_processes_need_a_shard_set(files, capsys, monkeypatch):
  folder, photos = files
  monkeypatch.setattr(parallel, "num_processes", lambda: 2)
  argv = [f"--bundle={folder / 'bundle'}", f"--gallery={folder / 'g.db'}"]
  assert main.main(["identify", *argv, *photos]) == 1
  assert "--out=DIR shard` makes." in capsys.readouterr().err
