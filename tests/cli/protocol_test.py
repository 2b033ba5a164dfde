"""Tests of `facesiam evaluate --protocol`, with real people where they are."""

import collections
import json
import pathlib
import shutil
import tarfile

import numpy as np
import pytest

from facesiam_jax.cli import main
from tests import shared_data
from tests.cli import pixel_bundle
from tests.data import fake_sets

_FOLDS, _EACH = 10, 6


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """An LFW tree of twenty of the real people, its lists, and a bundle."""
  archive = shared_data.folder() / "celeba_wild112.tar"
  if not archive.is_file():
    pytest.skip(f"{archive} is not there")
  root = tmp_path_factory.mktemp("lfw")
  count = collections.Counter()
  with tarfile.open(archive) as tar:
    for member in tar:
      path = pathlib.PurePosixPath(member.name)
      name = path.parent.name
      full = len(count) == 2 * _FOLDS and name not in count
      if not member.isfile() or full or count[name] == 4:
        continue
      count[name] += 1
      (root / "lfw" / name).mkdir(parents=True, exist_ok=True)
      to = root / "lfw" / name / f"{name}_{count[name]:04d}.jpg"
      to.write_bytes(tar.extractfile(member).read())
      if len(count) == 2 * _FOLDS and min(count.values()) == 4:
        break
  names = sorted(count)
  folds = [_block(names[n::_FOLDS]) for n in range(_FOLDS)]
  lists = {
    "pairs.txt": [f"{_FOLDS}\t{_EACH}", *(row for f in folds for row in f)],
    "pairsDevTrain.txt": [str(_EACH), *_block(names[:2])],
    "pairsDevTest.txt": [str(_EACH), *_block(names[2:4])],
  }
  for file, lines in lists.items():
    (root / file).write_text("\n".join(lines) + "\n")
  pixel_bundle.save(root / "bundle")
  return root


def _block(names):
  """Six pairs of one person and six of two, in the official format."""
  a, b = names
  same = [f"{a}\t{i}\t{j}" for i, j in ((1, 2), (1, 3), (2, 3))]
  same += [f"{b}\t{i}\t{j}" for i, j in ((1, 2), (1, 3), (2, 3))]
  return [*same, *(f"{a}\t{i}\t{b}\t{j}" for i in (1, 2) for j in (1, 2, 3))]


def _run(place, out, *args):
  words = [
    "evaluate",
    *([] if any("embeddings" in str(a) for a in args) else ["--cropped"]),
    f"--bundle={place / 'bundle'}",
    f"--out={out}",
    f"--cache={place / 'cache'}",
    *map(str, args),
  ]
  status = main.main(words)
  path = out / "metrics.json"
  return status, json.loads(path.read_text()) if path.exists() else None


def test_views_of_an_lfw_tree(place, tmp_path, capsys):
  args = ("--protocol=view2", place / "lfw")
  status, found = _run(place, tmp_path, *args)
  assert status == 0
  assert found["counts"]["compared"] == 2 * _FOLDS * _EACH
  assert len(found["folds"]["accuracies"]) == _FOLDS
  assert found["folds"]["people_in_two_folds"] == 0
  assert 0.5 < found["auc"] < 1
  assert found["run"]["command"][1:] and found["bundle_fingerprint"]
  assert "accuracy over folds" in capsys.readouterr().out
  # Once more: from the cache, the same bits.
  _, again = _run(place, tmp_path, *args)
  assert "used again" in capsys.readouterr().err
  assert again["folds"] == found["folds"]
  for path in (place / "cache").glob("*.npz"):
    path.write_bytes(path.read_bytes()[:-200])
  _, again = _run(place, tmp_path, *args)
  assert "damaged" in capsys.readouterr().err
  assert again["folds"] == found["folds"]
  status, found = _run(place, tmp_path, "--protocol=view1", place / "lfw")
  assert status == 0 and found["counts"]["pairs"] == 2 * _EACH


def test_missing_photos_are_listed_and_refused_or_errors(
  place, tmp_path, capsys
):
  names = sorted(path.name for path in (place / "lfw").iterdir())
  a, b = names[:2]
  file = tmp_path / "pairs.csv"
  file.write_text(
    "a,b,same\n"
    f"{a}/{a}_0001.jpg,{a}/{a}_0002.jpg,1\n{a}/{a}_0001,{b}/gone.jpg,0\n"
    f"{a}/1,{b}/2,0\n"
  )
  args = ("--protocol=pairs", f"--pairs={file}", place / "lfw")
  status, found = _run(place, tmp_path / "out", *args)
  told = capsys.readouterr().err
  assert status == 1 and found is None
  assert f"missing: {b}/gone.jpg" in told and "--allow_missing" in told
  status, found = _run(place, tmp_path / "out", *args, "--allow_missing")
  assert status == 0
  assert found["counts"]["missing"] == 1 and found["missing"] == [
    f"{b}/gone.jpg"
  ]
  assert found["fmr"] >= 0.5 and found["options"]["allow_missing"]


def test_people_protocols_and_embeddings(place, tmp_path):
  people = place / "lfw"
  _, photos = _run(place, tmp_path, "--protocol=closed_set", people)
  file = tmp_path / "e.npz"
  words = ["embed", f"--bundle={place / 'bundle'}", "--cropped"]
  assert main.main([*words, f"--out={file}", str(people)]) == 0
  _, found = _run(
    place, tmp_path, "--protocol=closed_set", f"--embeddings={file}"
  )
  assert found["cmc"] == photos["cmc"]
  assert found["rank_1"] < found["rank_10"] <= 1
  for protocol in ("triplets", "one_shot", "open_set"):
    status, found = _run(
      place, tmp_path, f"--protocol={protocol}", f"--embeddings={file}"
    )
    assert status == 0 and found["counts"]["people"] == 2 * _FOLDS


@pytest.mark.slow
def test_photos_without_a_face_are_searches_missed(place, tmp_path, capsys):
  # Tight crops, of which the detector finds some.
  words = ["evaluate", f"--bundle={place / 'bundle'}", "--detector=haar"]
  words += [f"--out={tmp_path}", "--cache=none", "--protocol=closed_set"]
  assert main.main([*words, str(place / "lfw")]) == 0
  found = json.loads((tmp_path / "metrics.json").read_text())
  failed, counts = len(found["without_face"]), found["counts"]
  assert counts["failed_photos"] == failed > 0
  photos = list((place / "lfw").rglob("*.jpg"))
  assert counts["images"] == len(photos) - failed
  searches = counts["searches"] / counts["draws"]
  # Whose photos all failed is not there; the others' share is as large.
  missed = failed * counts["enrolled"] / counts["people"]
  assert found["rank_1_with_failures"] == pytest.approx(
    found["rank_1"] * searches / (searches + missed)
  )
  assert "rank_1_with_failures" in capsys.readouterr().out


def test_templates_pool_photos(place, tmp_path):
  a, b, *_ = sorted(path.name for path in (place / "lfw").iterdir())
  templates = tmp_path / "templates.csv"
  templates.write_text(
    "template,photo,medium\n"
    + "".join(
      f"{who}{part},{who}/{who}_{n:04d}.jpg,{n}\n"
      for who in (a, b)
      for part, n in (("x", 1), ("x", 2), ("y", 3), ("y", 4))
    )
  )
  pairs = tmp_path / "pairs.csv"
  pairs.write_text(f"a,b,same\n{a}x,{a}y,1\n{b}x,{b}y,1\n{a}x,{b}x,0\n")
  status, found = _run(
    place, tmp_path, "--protocol=pairs", f"--pairs={pairs}",
    f"--templates={templates}", place / "lfw",
  )  # fmt: skip
  assert status == 0 and found["counts"]["compared"] == 3


def test_people_who_were_trained_on_are_refused(
  place, monkeypatch, tmp_path, capsys
):
  from facesiam_jax.evaluation import leaks

  known = sorted(path.name for path in (place / "lfw").iterdir())[:3]
  monkeypatch.setattr(leaks, "trained_on", lambda bundle, **_: (known, ""))
  args = ("--protocol=one_shot", place / "lfw")
  status, found = _run(place, tmp_path, *args)
  assert status == 1 and found is None
  assert "3 of the 20 people" in capsys.readouterr().err
  status, found = _run(place, tmp_path, *args, "--allow_leak")
  assert status == 0 and found["leak"]["people"] == known
  rates = [row for row in capsys.readouterr().out.split("\n") if "%" in row]
  assert all("3 people trained on" in row for row in rates[1:])


def test_frontal_to_profile_faces_of_cfp(tmp_path, capsys):
  pixel_bundle.save(tmp_path / "bundle")
  folder = fake_sets.cfp(tmp_path / "cfp")
  images = folder / "Data" / "Images"
  for number, path in enumerate(sorted(images.rglob("*.jpg"))):
    path.write_bytes(fake_sets.jpeg(number, (64, 64)))
  # The genuine pairs are frontal 1 and profile 2, frontal 4 and profile 3.
  for one, other in (("001/%s/01", "001/%s/02"), ("002/%s/02", "002/%s/01")):
    photo = (images / f"{one % 'frontal'}.jpg").read_bytes()
    (images / f"{other % 'profile'}.jpg").write_bytes(photo)
  status, found = _run(tmp_path, tmp_path / "fp", "--protocol=fp", folder)
  assert status == 0
  assert found["counts"]["compared"] == 6 and found["auc"] == 1
  assert found["folds"]["accuracies"] == [1, 1]
  status, found = _run(tmp_path, tmp_path / "ff", "--protocol=ff", folder)
  assert status == 0 and found["counts"]["compared"] == 4
  capsys.readouterr()
  shutil.rmtree(folder / "Protocol" / "Split" / "FP")
  status, _ = _run(tmp_path, tmp_path / "no", "--protocol=fp", folder)
  told = capsys.readouterr().err
  assert status == 1 and "Protocol/Split/FP/01/same.txt" in told


def test_pairs_of_an_insightface_bin(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
  pixel_bundle.save(tmp_path / "bundle")
  # Every other pair is one image twice.
  images = [
    fake_sets.jpeg(n // 2 if n % 4 < 2 else n, (112, 112)) for n in range(40)
  ]
  path = fake_sets.insightface_bin(tmp_path / "lfw.bin", images=images)
  words = ["prepare", "--dataset=insightface_bin", f"--manual_dir={path}"]
  assert main.main(words) == 0
  args = ("--protocol=pairs", "--dataset=insightface_bin/lfw")
  status, found = _run(tmp_path, tmp_path / "out", *args)
  assert status == 0
  assert found["counts"]["compared"] == 20 and found["auc"] == 1


@pytest.mark.parametrize(
  "text, words",
  [
    ("a,b\nx,y\n", "line 1"),
    ("a,b,same\nx,y,2\n", "line 2: same should be 1 or 0"),
    ("a,b,same\n", "table is empty"),
  ],
)
def test_a_bad_pairs_file_is_one_sentence(tmp_path, capsys, text, words):
  pixel_bundle.save(tmp_path / "bundle")
  (tmp_path / "p.csv").write_text(text)
  (tmp_path / "photos").mkdir()
  status, _ = _run(
    tmp_path, tmp_path / "out", "--protocol=pairs",
    f"--pairs={tmp_path / 'p.csv'}", tmp_path / "photos",
  )  # fmt: skip
  told = capsys.readouterr().err
  assert status == 1 and words in told and told.count("\n") == 1


def test_many_devices_give_the_bits_of_one(tmp_path):
  from facesiam_jax.evaluation import embedding_cache

  bundle = pixel_bundle.save(tmp_path)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (70, 64, 64, 1), np.uint8)
  found = embedding_cache.embed(bundle, images)
  assert np.array_equal(found, bundle.embed(images))
  mirrored = embedding_cache.embed(bundle, images[:2], mirror=True)
  views = [bundle.embed(x) for x in (images[:2], images[:2, :, ::-1])]
  want = np.sum(views, axis=0)
  want /= np.linalg.norm(want, axis=1, keepdims=True)
  assert mirrored == pytest.approx(want, abs=1e-6)


def _embedded(path, embeddings, people):
  paths = [f"p{who}/{n}.jpg" for n, who in enumerate(people)]
  np.savez(
    path,
    embeddings=np.asarray(embeddings, np.float32),
    paths=np.array(paths),
    fingerprint="f" * 64,
    failed_paths=np.array([], "U1"),
    failed_reasons=np.array([], "U1"),
  )


@pytest.mark.parametrize(
  "protocol", ["all_pairs", "triplets", "one_shot", "closed_set", "open_set"]
)
@pytest.mark.parametrize(
  ("people", "value", "told"),
  [
    ([0, 0, 1, 1], np.nan, "finite"),
    ([0, 1, 2, 3], 1.0, "4 people with at most 1 usable photos"),
    ([0, 0, 0, 0], 1.0, "1 people with at most 4 usable photos"),
  ],
)
def test_embeddings_that_allow_no_figure(
  protocol, people, value, told, tmp_path, capsys
):
  rows = np.eye(4)
  rows[2, 1] = value
  _embedded(tmp_path / "e.npz", rows, people)
  argv = [f"--embeddings={tmp_path / 'e.npz'}", f"--protocol={protocol}"]
  assert main.main(["evaluate", *argv, f"--out={tmp_path / 'out'}"]) == 1
  err = capsys.readouterr().err
  assert told in err and err.count("\n") == 1
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("protocol", ["all_pairs", "one_shot", "open_set"])
def test_a_network_that_tells_nobody_apart_is_said_to(
  protocol, tmp_path, capsys
):
  people = np.repeat(np.arange(4), 3)
  _embedded(tmp_path / "e.npz", np.ones((12, 8)), people)
  argv = [f"--embeddings={tmp_path / 'e.npz'}", f"--protocol={protocol}"]
  assert main.main(["evaluate", *argv, f"--out={tmp_path / 'out'}"]) == 0
  out = capsys.readouterr().out
  assert "every photo got the same embedding" in out
  assert "4 people" in out and "on \n" not in out
  assert json.loads((tmp_path / "out" / "metrics.json").read_text())[
    "collapsed"
  ]
