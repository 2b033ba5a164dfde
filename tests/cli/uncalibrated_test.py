"""Tests of verify, enroll and identify with a bundle nobody has calibrated."""

import json
import types

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.cli import main
from facesiam_jax.gallery import gallery as gallery_lib
from tests import colour_bundle

_NOTE = (
  "uncalibrated: published threshold, no error rate is known; run facesiam "
  "calibrate"
)
_COLOURS = {"red": (220, 40, 40), "green": (40, 220, 40), "pink": (220, 70, 70)}


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory):
  """A colour bundle, PEOPLE/<colour>/1.png, and a gallery of red and green."""
  folder = tmp_path_factory.mktemp("files")
  for name, colour in _COLOURS.items():
    (folder / name).mkdir()
    face = np.full((20, 20, 3), colour, np.uint8)
    PIL.Image.fromarray(face).save(folder / name / "1.png")
  photos = {name: folder / name / "1.png" for name in _COLOURS}
  colour_bundle.save(folder / "cosine", threshold=0.2)
  colour_bundle.save(folder / "none", threshold=None)
  for name in ("red", "green"):
    argv = ["enroll", "--bundle", folder / "cosine", "--cropped"]
    argv += ["--gallery", folder / "g.db", "--name", name, photos[name]]
    assert main.main([str(word) for word in argv]) == 0
  return types.SimpleNamespace(
    cosine=f"--bundle={folder / 'cosine'}",
    none=f"--bundle={folder / 'none'}",
    gallery=f"--gallery={folder / 'g.db'}",
    **photos,
  )


def _out(capsys, *argv):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def test_verify_prints_a_distance_and_no_probability(files, capsys):
  argv = ["verify", files.cosine, "--cropped", files.red]
  lines = _out(capsys, *argv, files.pink).splitlines()
  assert lines[0] == "same person" and lines[-1] == _NOTE
  assert lines[1].startswith("distance     0.0") and "1 - cosine" in lines[1]
  assert lines[2] == "threshold    0.2000 (on the distance)"
  lines = _out(capsys, *argv, files.green).splitlines()
  assert lines[0] == "different person"
  verdict = json.loads(_out(capsys, *argv, files.green, "--json"))
  assert set(verdict) == {
    *("photos", "same", "calibrated", "note", "distance", "threshold"),
  }
  assert verdict["note"] == _NOTE and verdict["calibrated"] is False
  assert verdict["same"] is False and verdict["threshold"] == 0.2
  assert verdict["distance"] > 0.2


def test_verify_without_a_published_threshold(files, capsys):
  argv = ["verify", files.none, "--cropped", files.red, files.red]
  out = _out(capsys, *argv)
  assert out.startswith("no decision\n") and "threshold  " not in out
  assert "uncalibrated: no threshold is known" in out.splitlines()[-1]
  verdict = json.loads(_out(capsys, *argv, "--json"))
  assert verdict["threshold"] is None and verdict["same"] is None


def test_identify_prints_distances_and_no_probability(files, capsys):
  argv = ["identify", files.cosine, files.gallery, "--cropped", files.pink]
  lines = _out(capsys, *argv).splitlines()
  assert lines[0].split()[3:] == [
    *("decision", "person", "distance", "accepted"),
  ]
  assert lines[1].split()[1:5] == ["1", "-", "red", "red"]
  assert lines[1].endswith("yes")
  assert lines[2].split()[0] == "green" and lines[2].endswith("no")
  assert lines[3:] == ["accepted up to distance 0.2000", _NOTE]
  (found,) = json.loads(_out(capsys, *argv, "--json"))
  assert found["note"] == _NOTE and found["calibrated"] is False
  assert set(found["matches"][0]) == {"name", "distance", "accepted"}
  assert found["name"] == "red" and found["matches"][0]["distance"] < 0.2


def test_identify_picture(files, tmp_path, capsys):
  argv = ["identify", files.cosine, files.gallery, "--cropped", files.pink]
  _out(capsys, *argv, f"--picture={tmp_path / 'a.png'}")
  assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
  # The gallery is open to what differs by the threshold alone.
  argv[1] = files.none
  lines = _out(capsys, *argv).splitlines()
  assert lines[1].split()[3] == "(unknown)" and lines[1].endswith("no")
  assert "no threshold is known" in lines[-1] and len(lines) == 4
  argv = [str(word) for word in argv]
  assert main.main([*argv, f"--picture={tmp_path / 'b.png'}"]) == 1
  assert "--picture has no decision to show" in capsys.readouterr().err


def test_only_cropped_faces_of_its_own_alignment(files, capsys):
  capsys.readouterr()
  for argv in (
    ["verify", files.cosine, files.red, files.red],
    ["identify", files.cosine, files.gallery, files.red],
    ["enroll", files.cosine, files.gallery, "--name=x", files.red],
    ["embed", files.cosine, "--out=x.npz", files.red],
  ):
    assert main.main([str(word) for word in argv]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "--bundle" in err and "'eyes_of_somebody'" in err
    assert "--cropped" in err


def test_gallery_knows_no_probability(files):
  bundle = bundle_lib.load(files.cosine.removeprefix("--bundle="))
  path = files.gallery.removeprefix("--gallery=")
  faces = np.full((1, 8, 8, 3), _COLOURS["red"], np.uint8)
  with gallery_lib.Gallery.open(path, bundle) as gallery:
    (found,) = gallery.identify(faces)
  assert found.matches and np.isnan(found.matches[0].probability)


def _people(folder):
  rng = np.random.default_rng(0)
  for person in range(3):
    colour = rng.integers(40, 216, 3)
    (folder / str(person)).mkdir(parents=True)
    for number in range(3):
      face = np.clip(colour + rng.normal(0, 5, (8, 8, 3)), 0, 255)
      image = PIL.Image.fromarray(face.astype(np.uint8))
      image.save(folder / str(person) / f"{number}.png")
  return folder


def test_evaluate_measures_an_import_on_photos(files, tmp_path, capsys):
  out = tmp_path / "report"
  argv = ["evaluate", files.cosine, f"--out={out}"]
  assert main.main(argv) == 1
  assert "--dataset, or give a folder" in capsys.readouterr().err
  assert not out.exists()
  people = _people(tmp_path / "people")
  assert main.main([*argv, "--cropped", str(people)]) == 0
  said = capsys.readouterr().out
  assert (
    "failures to acquire 0 of 9 photos" in said and "all photos" not in said
  )
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["fnmr"] == 0 and "published threshold, uncalibrated" in said
  assert metrics["acquisition"]["with_failures"] is None
  colour_bundle.save(tmp_path / "none", threshold=None)
  argv[1] = f"--bundle={tmp_path / 'none'}"
  assert main.main([*argv, "--cropped", str(people)]) == 0
  said = capsys.readouterr().out
  assert "no threshold, uncalibrated" in said and "match rate" not in said
  assert json.loads((out / "metrics.json").read_text())["fmr"] is None
