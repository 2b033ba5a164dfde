"""Tests of `facesiam calibrate` on the AT&T faces and on colours."""

import json

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import metrics
from facesiam_jax.cli import main
from facesiam_jax.data import sets
from facesiam_jax.faces import photo
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import recalibrate
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
  assert "too narrow with 32 people: see docs/intervals.md" in out
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
  assert set(new.thresholds) == {
    *("eer", "fmr_0.05", "fmr_0.1", "ml_gaussian", "ml_kernel"),
  }
  scores = {kind: logits[(a == b) == kind] for kind in (True, False)}
  for name, threshold in new.thresholds.items():
    low, high = threshold["interval"]
    assert low < threshold["logit"] < high, name
    assert scores[False].mean() < threshold["logit"], name
  # Its logit is the log likelihood ratio: fitted again, nothing changes.
  refit = metrics.fit_platt(logits, a == b)
  np.testing.assert_allclose(refit, [1.0, 0.0], atol=2e-3)
  measured = new.spec["calibration"]
  assert measured["cllr"] < 0.95 * float(
    metrics.cllr(_logits(old, people)[0], a == b)
  )
  assert measured["min_cllr"] <= measured["cllr"]
  assert 0 < measured["ece"] < 0.2 and "ECE " in out
  assert measured["set"] == people.name and measured["num_photos"] == 96
  assert measured["leak"]["checked"] is False and "note: the bundle was" in out
  png = (tmp_path / "new" / "reliability.png").read_bytes()
  assert png.startswith(b"\x89PNG")


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
  found = bundle_lib.load(tmp_path / "b")
  assert set(found.thresholds) == {"eer", "ml_gaussian", "ml_kernel"}
  assert found.thresholds["eer"]["interval"] is None
  out = capsys.readouterr().out
  assert (
    "note: an interval needs at least 30 people, these pairs have 10" in out
  )
  # Nor has a probability of theirs.
  face = few / "s1" / "1.png"
  verify = ["verify", *argv[1:], face, face]
  assert _run(*verify) == 0
  out = capsys.readouterr().out
  assert "(prior 0.5)" in out
  assert "no interval of the probability: an interval needs" in out
  assert _run(*verify, "--json") == 0
  assert json.loads(capsys.readouterr().out)["probability_interval"] is None


@pytest.fixture(scope="module", name="calibrated")
def _calibrated(people, tmp_path_factory):
  """The pixel bundle, calibrated for several targets."""
  folder = tmp_path_factory.mktemp("calibrated")
  pixel_bundle.save(folder)
  targets = ["--target_fmr=0", "--target_fmr=0.05", "--target_fmr=0.2"]
  argv = ["calibrate", f"--bundle={folder}", "--cropped", *targets]
  assert not _run(*argv, people)
  return folder


def _out(capsys, *argv):
  capsys.readouterr()
  assert not _run(*argv), capsys.readouterr().err
  return capsys.readouterr().out


def test_verify_prints_probability_with_interval_prior_and_basis(
  calibrated, people, capsys
):
  bundle = bundle_lib.load(calibrated)
  assert bundle.spec["default_threshold"] == "eer"
  assert {"fmr_0.05", "fmr_0.2"} < set(bundle.thresholds)
  verify = ["verify", f"--bundle={calibrated}", "--cropped"]
  verify += [people / "s1" / "1.png", people / "s1" / "2.png"]
  found = {}
  for prior in (0.5, 0.01):
    words = [*verify, f"--prior={prior}"]
    found[prior] = one = json.loads(_out(capsys, *words, "--json"))
    low, high = one["probability_interval"]
    assert 0 < low < one["probability"] < high < 1 and one["prior"] == prior
    expected = metrics.probability([one["logit"]], prior=prior)
    assert one["probability"] == pytest.approx(expected[0])
    out = _out(capsys, *words)
    assert f"(95 % interval {low:.4f} to {high:.4f}, prior {prior:g})" in out
    assert f"calibrated on 32 people of {people.name}: 96 genuine and" in out
    assert "is rough with 32 people: see docs/intervals.md" in out
  assert found[0.01]["probability"] < found[0.5]["probability"]
  assert found[0.01]["same"] == found[0.5]["same"]
  spread = metrics.platt_jackknife(*_logits(bundle, people))
  ends = np.ravel(spread.ends([found[0.5]["logit"]]))
  np.testing.assert_allclose(
    found[0.5]["probability_interval"],
    metrics.probability(ends, prior=0.5),
    rtol=0.02,
  )
  assert _run(*verify, "--prior=1") == 2
  assert "--prior=1 must lie between" in capsys.readouterr().err


def test_identify_prints_probabilities_with_intervals(
  calibrated, people, tmp_path, capsys
):
  argv = [f"--bundle={calibrated}", "--cropped", f"--gallery={tmp_path / 'g'}"]
  _out(capsys, "enroll", *argv, people)
  identify = ["identify", *argv, "--k=2", people / "s1" / "1.png"]
  identify.append("--prior=0.01")
  out = _out(capsys, *identify)
  assert "95 % interval" in out and "probabilities at a prior of 0.01" in out
  assert "calibrated on 32 people" in out
  (face,) = json.loads(_out(capsys, *identify, "--json"))
  assert face["prior"] == 0.01 and face["calibrated_on"]["people"] == 32
  best = face["matches"][0]
  low, high = best["probability_interval"]
  assert low < best["probability"] < high


def test_a_bundle_from_before_says_what_it_does_not_record(
  calibrated, people, tmp_path, capsys
):
  bundle = bundle_lib.load(calibrated)
  face = people / "s1" / "1.png"
  verify = ["verify", f"--bundle={tmp_path}", "--cropped", face, face]
  numbers = {"num_people": 32, "num_genuine": 9, "num_impostor": 9}
  for known, told in (
    (numbers, "--bundle records none; run facesiam calibrate"),
    ({}, "what the probability rests on is not recorded"),
  ):
    spec = bundle.spec | {"calibration": known}
    bundle_lib.save(tmp_path, spec, bundle.variables)
    out = _out(capsys, *verify)
    assert "(prior 0.5)" in out and told in out


class _Faces:
  """Forty people of whom the bundle knows the pixels, four photos each."""

  def __init__(self, size):
    rng = np.random.default_rng(1)
    patterns = rng.integers(60, 196, (40, 1, size // 8, size // 8))
    patterns = patterns.repeat(4, axis=1).repeat(8, axis=2).repeat(8, axis=3)
    noise = rng.normal(0, 70, patterns.shape)
    images = np.clip(patterns + noise, 0, 255).astype(np.uint8)
    self.images = images.reshape(-1, size, size, 1)
    self.identity_ids = np.repeat(np.arange(40, dtype=np.int32), 4)
    self.names = tuple(f"person{i}" for i in range(40))


def load_set(config, image_size):
  """A data set: few people to train on, most for validation."""
  people = tuple(range(40))
  return sets.DataSet(_Faces(image_size), people[:4], people[4:38], people[38:])


_SET = "cli.calibrate_test:load_set"


def _trained(folder):
  """A bundle that says it was trained on the set."""
  config = config_lib.default_config()
  config.dataset.name, config.image_size = _SET, 64
  return pixel_bundle.save(folder, config=config.to_dict())


def test_people_of_a_data_set(tmp_path, capsys):
  _trained(tmp_path / "b")
  argv = ["calibrate", f"--bundle={tmp_path / 'b'}", f"--dataset={_SET}"]
  # Its validation people, whom it was not trained on.
  assert not _run(*argv, "--target_fmr=0.1"), capsys.readouterr().err
  out = capsys.readouterr().out
  assert "on 136 photos of 34 people: 204 genuine" in out
  bundle = bundle_lib.load(tmp_path / "b")
  measured = bundle.calibration
  assert (measured["set"], measured["split"]) == (_SET, "validation")
  assert measured["leak"] == {"checked": True, "reason": None, "people": []}
  before = (tmp_path / "b" / "bundle.json").read_bytes()
  assert _run(*argv, "--split=train", "--target_fmr=0") == 1
  error = capsys.readouterr().err
  assert "4 of the 4 people to be measured were trained on" in error
  assert "--allow_leak" in error
  assert (tmp_path / "b" / "bundle.json").read_bytes() == before
  leak = [*argv, "--split=train", "--target_fmr=0", "--allow_leak"]
  assert not _run(*leak)
  assert "note: 4 of these people were trained on" in capsys.readouterr().out
  spec = bundle_lib.load(tmp_path / "b").calibration
  assert spec["leak"]["people"] == [f"person{i}" for i in range(4)]
  face = tmp_path / "1.png"
  PIL.Image.fromarray(_Faces(64).images[0, ..., 0]).save(face)
  assert not _run("verify", *argv[1:2], "--cropped", face, face)
  assert "4 of these people were trained on" in capsys.readouterr().out


def test_a_folder_of_people_trained_on_is_refused(tmp_path, capsys):
  _trained(tmp_path / "b")
  for person, (first, second) in {"person1": (4, 5), "new": (8, 9)}.items():
    (tmp_path / "people" / person).mkdir(parents=True)
    for n in (first, second):
      image = PIL.Image.fromarray(_Faces(64).images[n, ..., 0])
      image.save(tmp_path / "people" / person / f"{n}.png")
  argv = ["calibrate", f"--bundle={tmp_path / 'b'}", "--cropped"]
  assert _run(*argv, "--target_fmr=0", tmp_path / "people") == 1
  assert "1 of the 2 people to be measured" in capsys.readouterr().err


def test_a_split_without_people_and_photos_beyond_what_is_compared(
  tmp_path, capsys, monkeypatch
):
  pixel_bundle.save(tmp_path / "b")
  argv = ["calibrate", f"--bundle={tmp_path / 'b'}", "--dataset=tiny:load"]
  assert _run(*argv) == 1
  error = capsys.readouterr().err
  assert "has no validation people; give --split=train or --split=test" in error
  monkeypatch.setattr(recalibrate, "MAX_PHOTOS", 24)
  argv[2] = f"--dataset={_SET}"
  assert not _run(*argv, "--target_fmr=0"), capsys.readouterr().err
  out = capsys.readouterr().out
  assert "24 of 136 photos, of as many people as possible" in out
  assert "on 24 photos of 12 people: 12 genuine" in out


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
    (["--dataset=x", "people"], 2, "give one folder"),
    (["--split=test", "people"], 2, "--split is for --dataset"),
    (["--dataset=x", "--split=half"], 2, "split"),
    (["--dataset=x", "--largest"], 2, "--largest is for photos"),
    (["nowhere"], 1, "nowhere does not exist"),
    (["--target_fmr=1.5", "x"], 2, "target_fmr"),
  ],
)
def test_bad_input(tmp_path, capsys, monkeypatch, words, status, match):
  monkeypatch.chdir(tmp_path)
  assert _run("calibrate", "--bundle=b", *words) == status
  assert match in capsys.readouterr().err
