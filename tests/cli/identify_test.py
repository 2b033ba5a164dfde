"""Tests of how identify searches, and from when on it knows somebody."""

import json
import shutil
import types

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.cli import main
from facesiam_jax.gallery import search
from facesiam_jax.gallery import store as store_lib
from tests.cli import pixel_bundle

# About 100 s - 95: the same picture has 5, any other less than -50.
_OPEN_SET = {
  "logits": [-1.0, 0.0, 2.0],
  "fmr": [0.1, 0.05, 0.02],
  "smallest_fmr": 0.02,
  "sizes": [1, 10],
  "fpir": [[0.1, 0.05, 0.02], [0.5, 0.3, 0.1]],
  "low": [[0.0, 0.0, 0.0], [0.3, 0.2, 0.05]],
  "high": [[0.3, 0.2, 0.1], [0.7, 0.5, 0.3]],
  "reason": None,
  "people": 40,
}


def _face(seed):
  cells = np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)
  return np.kron(cells, np.ones((4, 4), np.uint8))


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory):
  folder = tmp_path_factory.mktemp("identify")
  own = pixel_bundle.save(folder / "own", calibration={"open_set": _OPEN_SET})
  spec = {**own.spec, "metric": "head",
          "head": {"name": "abs_difference_logistic", "args": {}}}  # fmt: skip
  weight = np.random.default_rng(0).uniform(-0.1, 0, 256).astype(np.float32)
  head = {"params": {"weight": weight, "bias": np.float32(9.0)}}
  bundle_lib.save(folder / "head", spec, {"encoder": {}, "head": head})
  for name, seeds in (("Ada", (1, 2)), ("Bob", (3, 4))):
    (folder / "PEOPLE" / name).mkdir(parents=True)
    for seed in seeds:
      path = folder / "PEOPLE" / name / f"{seed}.png"
      PIL.Image.fromarray(_face(seed)).save(path)
  probe = (0.9 * _face(3) + 0.1 * _face(9)).astype(np.uint8)
  PIL.Image.fromarray(probe).save(folder / "probe.png")
  for name in ("own", "head"):
    gallery = f"--gallery={folder / name}.db"
    argv = ["enroll", f"--bundle={folder / name}", "--cropped", gallery]
    assert main.main([*argv, str(folder / "PEOPLE")]) == 0
  verb = lambda name, *rest: [
    *rest[:1], f"--bundle={folder / name}", "--cropped", *rest[1:]
  ]  # fmt: skip
  return types.SimpleNamespace(
    folder=folder,
    probe=str(folder / "probe.png"),
    own=[*verb("own", "identify"), f"--gallery={folder / 'own'}.db"],
    head=[*verb("head", "identify"), f"--gallery={folder / 'head'}.db"],
    verify=verb("head", "verify", "--json"),
  )


def _run(capsys, *argv, status=0):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == status
  return capsys.readouterr()


def _found(capsys, *argv):
  (answer,) = json.loads(_run(capsys, *argv, "--json").out)
  return answer


def test_it_says_how_often_strangers_are_taken_for_somebody(files, capsys):
  out = _run(capsys, *files.own, files.probe).out
  assert "strangers accepted (FPIR): 30.00% (95 % interval 20.00%" in out
  assert "measured in galleries of 10 photos for 4 enrolled" in out
  point = _found(capsys, *files.own, files.probe)["open_set"]
  assert point["basis"] == "measured" and point["threshold"] == 0.0


def test_a_target_moves_the_threshold(files, capsys):
  target = 1 - (1 - 0.02) ** 4
  found = _found(capsys, *files.own, f"--fpir={target}", files.probe)
  assert found["open_set"]["threshold"] == pytest.approx(2.0)
  assert found["open_set"]["fpir"] == pytest.approx(0.1)
  argv = [*files.own, "--fpir=0.01", files.probe]
  err = _run(capsys, *argv, status=1).err
  assert "--extrapolate" in err and err.count("\n") == 1
  out = _run(capsys, *argv, "--extrapolate").out
  assert "extrapolated to 4 enrolled photos" in out and "no interval" in out


def test_a_head_gives_the_logits_of_verify(files, capsys):
  found = _found(capsys, *files.head, "--k=2", files.probe)
  for match in found["matches"]:
    folder = files.folder / "PEOPLE" / match["name"]
    logits = [
      json.loads(_run(capsys, *files.verify, files.probe, path).out)["logit"]
      for path in folder.iterdir()
    ]
    assert match["logit"] == pytest.approx(max(logits), rel=1e-6, abs=1e-6)
  assert found["name"] == "Bob"
  mean = _found(capsys, *files.head, "--fusion=mean", files.probe)
  assert mean["matches"][0]["logit"] < found["matches"][0]["logit"]
  out = _run(capsys, *files.head, files.probe).out
  assert "searched by the head itself" in out


def test_photos_are_weighed_by_their_quality(files, capsys, tmp_path):
  people = shutil.copytree(files.folder / "PEOPLE", tmp_path / "PEOPLE")
  dull = (0.1 * _face(4)).astype(np.uint8)
  PIL.Image.fromarray(dull).save(people / "Bob" / "4.png")
  gallery = f"--gallery={tmp_path / 'g.db'}"
  _run(capsys, "enroll", *files.own[1:-1], gallery, people)
  with store_lib.Store.open(tmp_path / "g.db") as store:
    *others, weight = store.records().quality.tolist()
  assert others == [1, 1, 1] and 0.1 < weight < 0.4
  argv = [*files.own[:-1], gallery, files.probe]
  found = {
    rule: _found(capsys, *argv, f"--fusion={rule}")["matches"]
    for rule in search.RULES
  }
  ada, bob = (
    {
      rule: {match["name"]: match["logit"] for match in matches}[name]
      for rule, matches in found.items()
    }
    for name in ("Ada", "Bob")
  )
  assert ada["weighted_mean"] == pytest.approx(ada["mean"], abs=1e-4)
  other = 2 * bob["mean"] - bob["max"]
  want = (bob["max"] + weight * other) / (1 + weight)
  assert bob["weighted_mean"] == pytest.approx(want, abs=1e-3)
  assert bob["mean"] + 1 < want < bob["max"] - 1
  wrong = [*argv, "--fusion=median"]
  assert "--fusion" in _run(capsys, *wrong, status=2).err


def test_searches_that_are_refused(files, capsys):
  for flags, match in (
    (["--metric=euclidean"], "--metric=euclidean does not rank"),
    (["--approximate=2", "--fusion=mean"], "--approximate=2"),
    (["--approximate=2", "--fusion=weighted_mean"], "--approximate=2"),
    (["--approximate=2", "--metric=head"], "--approximate=2"),
    (["--fpir=2"], "--fpir=2"),
  ):
    err = _run(capsys, *files.own, *flags, files.probe, status=1).err
    assert match in err and err.count("\n") == 1


def test_approximate_and_tune(files, capsys):
  exact = _found(capsys, *files.own, files.probe)
  found = _found(capsys, *files.own, "--approximate=9", files.probe)
  assert found["name"] == exact["name"] == "Bob"
  tune = ["gallery", f"--gallery={files.folder / 'own'}.db", "tune"]
  out = _run(capsys, *tune).out.splitlines()
  assert out[0].split() == [
    "lists",
    "looked",
    "at",
    "recall",
    "ms",
    "a",
    "face",
  ]
  assert out[1].split()[:3] == ["exact", "100.0%", "1.0000"]
  trials = json.loads(_run(capsys, *tune, "--json").out)
  assert trials[0]["lists"] == 0 and trials[1]["lists"] == 1
