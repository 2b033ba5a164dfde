"""Several faces, no face, poor faces and other templates at the verbs."""

import json
import types

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.cli import main
from facesiam_jax.evaluation import leaks
from facesiam_jax.faces import detectors
from tests import colour_bundle
from tests.cli import pixel_bundle


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory):
  """A bundle, a gallery of Ada and Bob, photos of both, of two and of none."""
  folder = tmp_path_factory.mktemp("faces")
  pixel_bundle.save(folder / "bundle")
  for name, person in (("Ada", 3), ("Bob", 11)):
    argv = ["enroll", "--bundle", folder / "bundle", "--gallery"]
    argv += [folder / "g.db", "--name", name, pixel_bundle.photo(person, 1)]
    assert main.main([str(word) for word in argv]) == 0
  PIL.Image.new("L", (300, 300), 128).save(folder / "none.png")
  return types.SimpleNamespace(
    bundle=f"--bundle={folder / 'bundle'}",
    gallery=f"--gallery={folder / 'g.db'}",
    two=pixel_bundle.side_by_side(folder / "two.png", 3, 11),
    three=pixel_bundle.side_by_side(folder / "three.png", 11, 3, 30),
    none=folder / "none.png",
    ada=pixel_bundle.photo(3, 1),
  )


def _run(capsys, *argv, status=0):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == status
  return capsys.readouterr()


def test_identify_answers_for_each_face(files, capsys):
  argv = ["identify", files.bundle, files.gallery, "--k=1"]
  out = _run(capsys, *argv, files.three, files.ada, "--json").out
  answers = json.loads(out)
  assert [a["photo"] for a in answers] == [str(files.three)] * 3 + [
    str(files.ada)
  ]
  assert [a["face"] for a in answers] == [1, 2, 3, 1]
  names = {a["name"]: a["box"] for a in answers[:3]}
  # Each box lies where that person stands; a stranger is unknown.
  assert {n: int(box[0] + box[2] / 2) // 300 for n, box in names.items()} == {
    "Bob": 0,
    "Ada": 1,
    None: 2,
  }
  widths = [a["box"][2] for a in answers[:3]]
  assert widths == sorted(widths, reverse=True)
  lines = _run(capsys, *argv, files.two).out.splitlines()
  assert [line.split()[1] for line in lines[1:3]] == ["1", "2"]
  assert [line.split()[3] for line in lines[1:3]] == ["Ada", "Bob"]
  assert "x" in lines[1].split()[2] and "+" in lines[1].split()[2]


def test_identify_draws_boxes_and_names(files, tmp_path, capsys):
  picture = tmp_path / "out.png"
  argv = ["identify", files.bundle, files.gallery, files.three]
  _run(capsys, *argv, f"--picture={picture}")
  with PIL.Image.open(picture) as image:
    colours = np.asarray(image.convert("RGB")).astype(int)
  # The photo is grey, the frames are blue or vermillion.
  coloured = np.ptp(colours, axis=2) > 60
  blue = coloured & (colours[..., 2] > colours[..., 0])
  assert blue.sum() > 500 and (coloured & ~blue).sum() > 500
  wide = colours.shape[1]
  assert blue[:, : wide // 3].any() and not blue[:, 2 * wide // 3 :].any()


def test_a_photo_without_a_face_is_told_of(files, tmp_path, capsys):
  argv = ["identify", files.bundle, files.gallery]
  out = _run(capsys, *argv, files.ada, files.none, status=1).out
  assert "(no face)" in out and "no face was found in 1 of 2 photos" in out
  out = _run(capsys, *argv, files.none, files.ada, "--json", status=1).out
  none, ada = json.loads(out)
  assert none["face"] is None and none["box"] is None and none["name"] is None
  assert none["matches"] == [] and ada["name"] == "Ada"
  err = _run(capsys, *argv, files.none, status=1).err
  assert "No face" in err and "none.png" in err and err.count("\n") == 1


def test_several_faces_are_refused_unless_largest(files, tmp_path, capsys):
  gallery = f"--gallery={tmp_path / 'g.db'}"
  enroll = ["enroll", files.bundle, gallery, "--name=X", files.three]
  verify = ["verify", files.bundle, files.two, files.ada]
  embed = ["embed", files.bundle, f"--out={tmp_path / 'e.npz'}", files.three]
  for argv, count in ((enroll, 3), (verify, 2), (embed, 3)):
    err = _run(capsys, *argv, status=1).err
    assert f"{count} faces" in err and "--largest" in err
  assert list(tmp_path.iterdir()) == []
  assert "Enrolled 1 photos" in _run(capsys, *enroll, "--largest").out
  out = _run(capsys, *verify, "--largest", "--json").out
  assert json.loads(out)["same"] is True
  _run(capsys, *embed, "--largest")
  argv = ["identify", files.bundle, gallery, pixel_bundle.photo(11, 1)]
  (found,) = json.loads(_run(capsys, *argv, "--json").out)
  assert found["name"] == "X"


@pytest.fixture(name="people")
def _people(files, tmp_path):
  """Two photos of Ada, one with no face; none of Bob's three has one face."""
  folder = tmp_path / "PEOPLE"
  for name, sources in (
    ("Ada", (files.ada, files.none)),
    ("Bob", (files.none, files.two, files.three)),
  ):
    (folder / name).mkdir(parents=True)
    for number, source in enumerate(sources):
      with PIL.Image.open(source) as image:
        image.save(folder / name / f"{number}.png")
  return folder


def test_a_folder_counts_failures_to_enrol(files, people, tmp_path, capsys):
  gallery = f"--gallery={tmp_path / 'g.db'}"
  argv = ["enroll", files.bundle, gallery, people]
  lines = _run(capsys, *argv, status=1).out.splitlines()
  assert f"{people / 'Ada' / '1.png'}: no face, not enrolled" in lines
  assert (
    f"{people / 'Bob' / '1.png'}: 2 faces of like size, not enrolled" in lines
  )
  assert "4 of 5 photos not enrolled (no face: 2, several faces: 2)." in lines
  assert "Bob: no photo with a usable face, nobody enrolled" in lines
  assert lines[-1].startswith("Enrolled 1 photos of 1 people")
  out = _run(capsys, "gallery", gallery, "list", "--json").out
  assert [(p["name"], p["photos"]) for p in json.loads(out)] == [("Ada", 1)]


def test_a_folder_without_any_face_enrols_nobody(files, tmp_path, capsys):
  (tmp_path / "PEOPLE" / "Eve").mkdir(parents=True)
  with PIL.Image.open(files.none) as image:
    image.save(tmp_path / "PEOPLE" / "Eve" / "1.png")
  gallery = tmp_path / "g.db"
  argv = ["enroll", files.bundle, f"--gallery={gallery}", tmp_path / "PEOPLE"]
  err = _run(capsys, *argv, status=1).err
  assert "none of the 1 photos" in err and "no face: 1" in err
  assert err.count("\n") == 1 and not gallery.exists()


def test_a_folder_counts_failures_to_embed(files, people, tmp_path, capsys):
  out = tmp_path / "e.npz"
  argv = ["embed", files.bundle, f"--out={out}", people]
  text = _run(capsys, *argv, status=1).out
  assert "4 of 5 photos not embedded (no face: 2, several faces: 2)." in text
  with np.load(out) as file:
    assert file["paths"].tolist() == [str(people / "Ada" / "0.png")]
    assert file["embeddings"].shape == (1, 256)
    failed = dict(
      zip(file["failed_paths"], file["failed_reasons"], strict=True)
    )
    quality = dict(zip(file["quality_names"], file["quality"][0], strict=True))
  assert failed[str(people / "Bob" / "2.png")] == "several faces"
  assert len(failed) == 4
  assert 30 < quality["width"] < 120 and 0.1 < quality["light"] < 0.9
  assert abs(quality["roll"]) < 20 and np.isnan(quality["yaw"])


def test_poor_faces_are_told_of_or_refused(files, tmp_path, capsys):
  with PIL.Image.open(files.ada) as image:
    small = image.resize((23, 28), PIL.Image.Resampling.BOX)
  poor = tmp_path / "poor.png"
  small.resize((460, 560), PIL.Image.Resampling.BILINEAR).save(poor)
  gallery = f"--gallery={tmp_path / 'g.db'}"
  argv = ["enroll", files.bundle, gallery, "--name=Ada"]
  err = _run(capsys, *argv, "--refuse_poor", poor, status=1).err
  assert "poor.png is poor (not sharp)" in err and "--refuse_poor" in err
  assert not (tmp_path / "g.db").exists()
  out = _run(capsys, *argv, "--refuse_poor", files.ada).out
  assert "poor face" not in out
  out = _run(capsys, *argv, poor).out
  assert f"{poor}: poor face, not sharp" in out and "Enrolled 1" in out
  (tmp_path / "PEOPLE" / "Ada").mkdir(parents=True)
  for n, source in enumerate((poor, pixel_bundle.photo(3, 2))):
    with PIL.Image.open(source) as image:
      image.save(tmp_path / "PEOPLE" / "Ada" / f"{n}.png")
  # Elsewhere: what is enrolled already is not looked at again.
  fresh = f"--gallery={tmp_path / 'h.db'}"
  argv = ["enroll", files.bundle, fresh, "--refuse_poor"]
  out = _run(capsys, *argv, tmp_path / "PEOPLE", status=1).out
  assert "1 of 2 photos not enrolled (poor face: 1)." in out


@pytest.mark.parametrize("alignment", ["arcface_112", "dlib_150"])
def test_a_bundle_of_another_template_reads_photos(
  alignment, files, tmp_path, capsys
):
  bundle = colour_bundle.save(tmp_path / "b", size=16, alignment=alignment)
  assert bundle.detector == detectors.DEFAULTS[alignment]
  argv = ["verify", f"--bundle={tmp_path / 'b'}", "--detector=haar"]
  out = _run(capsys, *argv, "--json", files.ada, files.ada).out
  assert json.loads(out)["distance"] == pytest.approx(0, abs=1e-5)
  err = _run(
    capsys, *argv, "--detector_model=x", files.ada, files.ada, status=1
  ).err
  assert "--detector_model" in err
  err = _run(capsys, *argv, "--cropped", files.ada, files.ada, status=1).err
  assert "--cropped looks for no face" in err
  argv[-1] = "--detector=yunet"
  err = _run(capsys, *argv, files.ada, files.ada, status=1).err
  assert "--detector_model=FILE" in err


def test_calibration_names_its_detector(tmp_path, capsys):
  pixel_bundle.save(tmp_path / "b")
  for person in range(1, 5):
    (tmp_path / "PEOPLE" / f"s{person}").mkdir(parents=True)
    for number in range(1, 4):
      with PIL.Image.open(pixel_bundle.photo(person, number)) as image:
        image.save(tmp_path / "PEOPLE" / f"s{person}" / f"{number}.png")
  PIL.Image.new("L", (90, 90)).save(tmp_path / "PEOPLE" / "s1" / "black.png")
  argv = ["calibrate", f"--bundle={tmp_path / 'b'}", "--target_fmr=0"]
  out = _run(capsys, *argv, "--detector=haar", tmp_path / "PEOPLE").out
  assert "1 of 13 photos not used (no face: 1)." in out
  assert "on 12 photos of 4 people" in out and "median quality" in out
  bundle = bundle_lib.load(tmp_path / "b")
  assert bundle.spec["detector"] == bundle.detector == "haar"
  measured = bundle.spec["calibration"]
  assert measured["failures_to_acquire"] == 1 and measured["num_photos"] == 13
  assert measured["median_quality"]["yaw"] is None
  assert measured["median_quality"]["width"] > 30


def _unlike(folder):
  """Three people with two photos each, one photo without a face."""
  for name, person in (("Ada", 3), ("Bob", 11), ("Cy", 30)):
    (folder / name).mkdir(parents=True)
    for number in (1, 2):
      with PIL.Image.open(pixel_bundle.photo(person, number)) as image:
        image.resize((276, 336)).save(folder / name / f"{number}.png")
  PIL.Image.new("L", (300, 300), 128).save(folder / "Cy" / "3.png")
  (folder / "Dee").mkdir()
  PIL.Image.new("L", (300, 300), 90).save(folder / "Dee" / "1.png")
  return folder


def test_evaluation_counts_photos_without_a_face(files, tmp_path, capsys):
  people, out = _unlike(tmp_path / "people"), tmp_path / "report"
  argv = ["evaluate", files.bundle, f"--out={out}"]
  said = _run(capsys, *argv, people).out
  assert "Cy/3.png: no face, not measured" in said
  assert "failures to acquire 2 of 8 photos" in said
  assert "failures to enrol 1 of 4 people" in said
  metrics = json.loads((out / "metrics.json").read_text())
  acquired = metrics["acquisition"]
  assert acquired["reasons"] == {"no face": 2}
  every = acquired["with_failures"]
  assert metrics["num_images"] == 6 and every["num_images"] == 8
  # Cy's third photo makes two more genuine pairs, both of them missed.
  assert (metrics["num_genuine"], every["num_genuine"]) == (3, 5)
  missed = round(3 * metrics["fnmr"])
  assert every["fnmr"] == (missed + 2) / 5
  page = (out / "report.html").read_text()
  assert "Photos without a usable face" in page and "Quality of the" in page
  assert {"width", "sharpness", "yaw", "score"} - {"yaw"} <= (
    metrics["quality"].keys()
  )


def test_people_who_were_trained_on_are_stamped(
  files, tmp_path, capsys, monkeypatch
):
  people, out = _unlike(tmp_path / "people"), tmp_path / "report"
  monkeypatch.setattr(leaks, "trained_on", lambda bundle, **_: (["Bob"], ""))
  argv = ["evaluate", files.bundle, f"--out={out}", people]
  err = _run(capsys, *argv, status=1).err
  assert "1 of the 4 people" in err and not out.exists()
  said = _run(capsys, *argv, "--allow_leak").out
  rates = [line for line in said.splitlines() if "rate" in line]
  assert rates and all("1 people trained on" in line for line in rates)
  metrics = json.loads((out / "metrics.json").read_text())
  assert metrics["leak"]["people"] == ["Bob"]
  assert metrics["subject"] == "photos in people"
  assert metrics["options"]["allow_leak"]
  page = (out / "report.html").read_text()
  assert "1 of these people were trained on: these figures say" in page


def test_what_evaluate_does_not_take(files, tmp_path, capsys):
  argv = ["evaluate", files.bundle, f"--out={tmp_path / 'report'}"]
  err = _run(capsys, *argv, "--dataset=x", tmp_path, status=2).err
  assert "--dataset" in err
  err = _run(capsys, *argv, "--detector=haar", status=2).err
  assert "--detector is for photos" in err
  err = _run(capsys, *argv, "--ways=3", tmp_path, status=2).err
  assert "--ways needs --protocol" in err
  (tmp_path / "people" / "Ada").mkdir(parents=True)
  with PIL.Image.open(files.ada) as image:
    image.save(tmp_path / "people" / "Ada" / "1.png")
  err = _run(capsys, *argv, tmp_path / "people", status=1).err
  assert "1 people with at most 1 usable" in err and err.count("\n") == 1
  assert not (tmp_path / "report").exists()
