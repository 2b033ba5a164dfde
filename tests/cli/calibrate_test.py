"""Tests of `facesiam calibrate` on the AT&T faces and on colours."""

import json

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import metrics
from facesiam_jax.cli import main
from facesiam_jax.faces import photo
from tests import colour_bundle
from tests.cli import pixel_bundle


def _copy_people(folder, numbers, photos=3):
  for person in numbers:
    (folder / f"s{person}").mkdir(parents=True)
    for number in range(1, photos + 1):
      image = PIL.Image.open(pixel_bundle.photo(person, number))
      face = image.crop((0, 10, 92, 102))
      face.save(folder / f"s{person}" / f"{number}.png")
  return folder


@pytest.fixture(scope="module", name="people")
def _people(tmp_path_factory):
  return _copy_people(tmp_path_factory.mktemp("people"), range(1, 33))


def _run(*argv):
  return main.main([str(word) for word in argv])


def _logits(bundle, folder):
  paths = [p for paths in photo.list_people(folder).values() for p in paths]
  faces = [photo.load_face(p, size=64, cropped=True) for p in paths]
  embeddings = bundle.embed(np.stack(faces))
  people = np.repeat(np.arange(len(paths) // 3), 3)
  i, j = np.triu_indices(len(people), 1)
  logits = bundle.logits_matrix(embeddings, embeddings)[i, j]
  return logits, people[i], people[j]


def test_measures_thresholds_and_probabilities(people, tmp_path, capsys):
  old = pixel_bundle.save(tmp_path / "old")
  assert not _run(
    *("calibrate", "--bundle", tmp_path / "old", "--out", tmp_path / "new"),
    *("--cropped", "--target_fmr=0.05", people),
  ), capsys.readouterr().err
  out = capsys.readouterr().out
  assert "on 96 photos of 32 people: 96 genuine and 4464 impostor" in out
  new = bundle_lib.load(tmp_path / "new")
  # A gallery filled by the old one stays valid.
  assert new.fingerprint == old.fingerprint and new.calibrated
  logits, a, b = _logits(new, people)
  fmr = np.mean(logits[a != b] >= new.threshold)
  assert 0.04 < fmr <= 0.05
  # The threshold is one impostor pair's logit, which may round either way.
  one_pair = 1.01 / 4464
  assert new.thresholds["fmr_0.05"]["fmr"] == pytest.approx(fmr, abs=one_pair)
  # Too few errors stand behind one per cent, which nobody asked for.
  assert set(new.thresholds) == {"eer", "fmr_0.05", "fmr_0.1"}
  # Its logit is the log likelihood ratio: fitted again, nothing changes.
  refit = metrics.fit_platt(logits, a == b)
  np.testing.assert_allclose(refit, [1.0, 0.0], atol=2e-3)
  measured = new.spec["calibration"]
  assert measured["cllr"] < 0.95 * float(
    metrics.cllr(_logits(old, people)[0], a == b)
  )
  assert measured["min_cllr"] <= measured["cllr"]


def test_target_without_enough_errors_is_refused(people, tmp_path, capsys):
  pixel_bundle.save(tmp_path / "b")
  before = (tmp_path / "b" / "bundle.json").read_bytes()
  few = _copy_people(tmp_path / "few", range(1, 11))
  argv = ["calibrate", f"--bundle={tmp_path / 'b'}", "--cropped"]
  assert _run(*argv, few) == 1
  message = capsys.readouterr().err
  assert "--target_fmr=0.01" in message and "10 people" in message
  assert message.count("\n") == 1
  assert (tmp_path / "b" / "bundle.json").read_bytes() == before
  assert _run(*argv, "--target_fmr=0", few) == 0
  assert set(bundle_lib.load(tmp_path / "b").thresholds) == {"eer"}


def test_an_imported_bundle_gives_probabilities_afterwards(tmp_path, capsys):
  rng = np.random.default_rng(0)
  for person in range(6):
    colour = rng.integers(40, 216, 3)
    (tmp_path / "people" / str(person)).mkdir(parents=True)
    for number in range(3):
      face = np.clip(colour + rng.normal(0, 25, (8, 8, 3)), 0, 255)
      path = tmp_path / "people" / str(person) / f"{number}.png"
      PIL.Image.fromarray(face.astype(np.uint8)).save(path)
  for metric in ("cosine", "euclidean"):
    bundle = tmp_path / metric
    colour_bundle.save(bundle, metric=metric)
    argv = [f"--bundle={bundle}", "--cropped"]
    verify = ["verify", *argv, "--json", path, path]
    assert not _run(*verify)
    assert "probability" not in json.loads(capsys.readouterr().out)
    assert not _run(
      "calibrate", *argv, "--target_fmr=0", tmp_path / "people"
    ), capsys.readouterr().err
    capsys.readouterr()
    assert not _run(*verify)
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["same"] and verdict["probability"] > 0.5


@pytest.mark.parametrize(
  "words, status, match",
  [
    ([], 2, "give one folder"),
    (["nowhere"], 1, "nowhere does not exist"),
    (["--target_fmr=1.5", "x"], 2, "target_fmr"),
  ],
)
def test_bad_input(tmp_path, capsys, monkeypatch, words, status, match):
  monkeypatch.chdir(tmp_path)
  assert _run("calibrate", "--bundle=b", *words) == status
  assert match in capsys.readouterr().err
