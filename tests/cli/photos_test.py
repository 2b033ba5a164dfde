"""Tests of verify, enroll, identify, gallery and embed on real faces."""

import json
import shutil
import types

import numpy as np
import PIL.Image
import pytest

from facesiam_jax.cli import common, main
from facesiam_jax.faces import photo as photo_lib
from facesiam_jax.gallery.store import Store
from tests.cli import pixel_bundle

_PEOPLE = {"Ada": 3, "Bob": 11, "Cyd": 25}


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory):
  """A bundle, and PEOPLE/<name>/ with two photos of each."""
  folder = tmp_path_factory.mktemp("files")
  pixel_bundle.save(folder / "bundle")
  for name, person in _PEOPLE.items():
    (folder / "PEOPLE" / name).mkdir(parents=True)
    for number in (1, 2):
      source = pixel_bundle.photo(person, number)
      shutil.copy(source, folder / "PEOPLE" / name / f"{number}.pgm")
  return types.SimpleNamespace(
    bundle=f"--bundle={folder / 'bundle'}",
    people=folder / "PEOPLE",
    ada=folder / "PEOPLE" / "Ada" / "1.pgm",
    bob=folder / "PEOPLE" / "Bob" / "2.pgm",
  )


@pytest.fixture(scope="module", name="gallery")
def _gallery(files, tmp_path_factory):
  path = tmp_path_factory.mktemp("gallery") / "g.db"
  argv = ["enroll", files.bundle, f"--gallery={path}", str(files.people)]
  assert main.main(argv) == 0
  return path


def _out(capsys, *argv):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == 0
  out, err = capsys.readouterr()
  assert err == ""
  return out


def _error(capsys, *argv, status=1):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == status
  out, err = capsys.readouterr()
  assert out == "" and err.count("\n") == 1 and "Error:" not in err
  return err


def test_verify(files, capsys):
  out = _out(capsys, "verify", files.bundle, files.ada, files.ada)
  assert out.splitlines()[0] == "same person" and "threshold    0.0" in out
  out = _out(capsys, "verify", files.bundle, files.ada, files.bob)
  assert out.splitlines()[0] == "different person"
  out = _out(capsys, "verify", files.bundle, files.ada, files.bob, "--json")
  verdict = json.loads(out)
  assert verdict["photos"] == [str(files.ada), str(files.bob)]
  assert verdict["same"] is False and verdict["threshold"] == 0
  logit = verdict["logit"]
  assert verdict["probability"] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_verify_cropped(files, tmp_path, capsys):
  face = photo_lib.load_face(files.ada)[..., 0]
  PIL.Image.fromarray(face).save(tmp_path / "face.png")
  argv = ["verify", files.bundle, "--cropped", *[tmp_path / "face.png"] * 2]
  assert "same person" in _out(capsys, *argv)
  error = _error(capsys, "verify", files.bundle, "--cropped", *[files.ada] * 2)
  assert "1.pgm" in error and "--cropped" in error


def test_identify(files, gallery, capsys):
  argv = ["identify", files.bundle, f"--gallery={gallery}"]
  for name, person in _PEOPLE.items():
    probe = pixel_bundle.photo(person, 1)
    (found,) = json.loads(_out(capsys, *argv, probe, "--json"))
    assert found["photo"] == str(probe) and found["name"] == name
    assert found["face"] == 1 and len(found["box"]) == 4
    assert found["matches"][0]["name"] == name
    assert found["matches"][0]["accepted"] is True
    assert {m["name"] for m in found["matches"]} == set(_PEOPLE)
  stranger = pixel_bundle.photo(40, 1)
  out = _out(capsys, *argv, "--k=2", files.ada, stranger)
  lines = out.splitlines()
  assert lines[0].split()[:5] == [
    *("photo", "face", "box", "decision", "person"),
  ]
  assert lines[1].split()[3:5] == ["Ada", "Ada"] and lines[1].endswith("yes")
  assert lines[3].split()[:2] == [str(stranger), "1"]
  assert lines[3].split()[3] == "(unknown)"
  assert len(lines) == 9 and lines[4].endswith("no")
  assert lines[7] == "probabilities at a prior of 0.5"
  assert lines[8] == "what the probability rests on is not recorded in --bundle"
  assert lines[5] == "accepted from logit 0.0000 on"


def test_identify_picture(files, gallery, tmp_path, capsys):
  picture = tmp_path / "out.png"
  argv = ["identify", files.bundle, f"--gallery={gallery}", files.bob, "--k=1"]
  out = _out(capsys, *argv, f"--picture={picture}")
  assert "Bob" in out and "Ada" not in out
  with PIL.Image.open(picture) as image:
    assert image.format == "PNG" and image.width > 400
  error = _error(capsys, *argv, f"--picture={tmp_path / 'none' / 'out.png'}")
  assert "none" in error


def test_gallery_list_and_check(gallery, capsys):
  flag = f"--gallery={gallery}"
  assert _out(capsys, "gallery", flag, "list").splitlines() == [
    "person  photos  days old",
    "Ada          2         0",
    "Bob          2         0",
    "Cyd          2         0",
  ]
  listed = json.loads(_out(capsys, "gallery", flag, "list", "--json"))
  assert [person["photos"] for person in listed] == [2, 2, 2]
  assert listed[1] == {
    **{"name": "Bob", "photos": 2, "age_days": 0, "newest_days": 0},
    **{"consent": None, "purpose": None, "expires": None},
  }
  out = _out(capsys, "gallery", flag, "check")
  assert out == f"{gallery} is sound: 6 photos of 3 people.\n"


def test_gallery_export(gallery, tmp_path, capsys):
  out = tmp_path / "all.npz"
  _out(capsys, "gallery", f"--gallery={gallery}", "export", out)
  with np.load(out) as file:
    assert file["embeddings"].shape == (6, 256)
    assert file["names"].tolist() == ["Ada"] * 2 + ["Bob"] * 2 + ["Cyd"] * 2
    assert file["template_ids"].tolist() == [1, 2, 3, 4, 5, 6]
    assert file["metric"].item() == "cosine"
    with Store.open(gallery) as store:
      store.check_bundle(file["fingerprint"].item())


def test_enroll_twice_remove_and_identify_nobody(files, tmp_path, capsys):
  flag = f"--gallery={tmp_path / 'g.db'}"
  argv = ["enroll", files.bundle, flag, "--name=Ada"]
  out = _out(capsys, *argv, files.ada)
  assert out.startswith("Enrolled 1 photos of 1 people") and "holds 1 ph" in out
  out = _out(capsys, *argv, files.ada, pixel_bundle.photo(3, 5))
  assert f"{files.ada}: enrolled already, left out" in out
  assert "Enrolled 1 photos" in out and "holds 2 photos of 1 people" in out
  error = _error(capsys, "gallery", flag, "remove", "Adda")
  assert "did you mean 'Ada'" in error
  out = _out(capsys, "gallery", flag, "remove", "Ada")
  assert out.startswith("Removed Ada (2 photos)")
  assert "Nobody" in _out(capsys, "gallery", flag, "list")
  out = _out(capsys, "identify", files.bundle, flag, files.ada)
  assert "(unknown)" in out
  picture = f"--picture={tmp_path / 'p.png'}"
  error = _error(capsys, "identify", files.bundle, flag, files.ada, picture)
  assert "gallery is empty" in error


def test_embed(files, tmp_path, capsys):
  out = tmp_path / "e.npz"
  text = _out(capsys, "embed", files.bundle, f"--out={out}", files.people)
  assert text == f"Wrote 6 embeddings to {out}.\n"
  with np.load(out) as file:
    paths, embeddings = file["paths"].tolist(), file["embeddings"]
    assert len(file["fingerprint"].item()) == 64
  assert paths == sorted(map(str, files.people.glob("*/*.pgm")))
  assert embeddings.dtype == np.float32 and embeddings.shape == (6, 256)
  _out(capsys, "embed", files.bundle, f"--out={out}", paths[3])
  with np.load(out) as file:
    np.testing.assert_array_equal(file["embeddings"], embeddings[3:4])
  (tmp_path / "empty").mkdir()
  argv = ["embed", files.bundle, f"--out={out}", tmp_path / "empty"]
  assert "holds no image" in _error(capsys, *argv)


def _make_bad(tmp_path, files, kind):
  path = tmp_path / f"{kind}.jpg"
  if kind == "truncated":
    with PIL.Image.open(files.ada) as image:
      image.resize((400, 480)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
  elif kind == "text":
    path.write_text("not a picture")
  elif kind == "faceless":
    PIL.Image.new("L", (300, 300), 128).save(path)
  elif kind == "several":
    with PIL.Image.open(files.ada) as a, PIL.Image.open(files.bob) as b:
      both = PIL.Image.new("L", (184, 112))
      both.paste(a, (0, 0))
      both.paste(b, (92, 0))
    both.resize((736, 448)).save(path)
  return path


@pytest.mark.parametrize(
  "kind", ["missing", "truncated", "text", "faceless", "several"]
)
def test_a_bad_photo_enrolls_nobody(files, tmp_path, kind, capsys):
  bad = _make_bad(tmp_path, files, kind)
  path, out = tmp_path / "g.db", tmp_path / "e.npz"
  argv = ["enroll", files.bundle, f"--gallery={path}", "--name=Ada"]
  assert bad.name in _error(capsys, *argv, files.ada, bad)
  assert not path.exists()
  argv = ["embed", files.bundle, f"--out={out}", files.ada, bad]
  assert bad.name in _error(capsys, *argv)
  assert not out.exists()
  argv = ["verify", files.bundle, files.ada, bad]
  assert bad.name in _error(capsys, *argv)


def test_a_bad_photo_leaves_the_gallery_as_it_was(files, tmp_path, capsys):
  flag = f"--gallery={tmp_path / 'g.db'}"
  _out(capsys, "enroll", files.bundle, flag, "--name=Ada", files.ada)
  people = tmp_path / "MORE"
  shutil.copytree(files.people, people)
  shutil.move(_make_bad(tmp_path, files, "text"), people / "Cyd" / "notes.jpg")
  assert "notes.jpg" in _error(capsys, "enroll", files.bundle, flag, people)
  listed = json.loads(_out(capsys, "gallery", flag, "list", "--json"))
  assert [(p["name"], p["photos"]) for p in listed] == [("Ada", 1)]


def test_bad_people_folders(files, tmp_path, capsys):
  argv = ["enroll", files.bundle, f"--gallery={tmp_path / 'g.db'}"]
  (tmp_path / "PEOPLE").mkdir()
  assert "PEOPLE" in _error(capsys, *argv, tmp_path / "PEOPLE")
  (tmp_path / "PEOPLE" / "Eve").mkdir()
  assert "Eve" in _error(capsys, *argv, tmp_path / "PEOPLE")
  assert "none" in _error(capsys, *argv, tmp_path / "none")
  assert "--name" in _error(capsys, *argv, files.ada, status=2)
  assert "name" in _error(capsys, *argv, "--name=\n", files.ada)
  assert not (tmp_path / "g.db").exists()


def test_bad_galleries_and_bundles(files, gallery, tmp_path, capsys):
  argv = ["identify", files.bundle, f"--gallery={tmp_path / 'none.db'}"]
  assert "no such gallery" in _error(capsys, *argv, files.ada)
  other = tmp_path / "other"
  pixel_bundle.save(other, views={"mirror": True, "shift": 0})
  for verb in ("identify", "enroll"):
    argv = [verb, f"--bundle={other}", f"--gallery={gallery}"]
    name = ["--name=Ada"] if verb == "enroll" else []
    assert "another bundle" in _error(capsys, *argv, *name, files.ada)
  (tmp_path / "text.db").write_text("my shopping list " * 100)
  argv = ["gallery", f"--gallery={tmp_path / 'text.db'}", "list"]
  assert "is not a gallery" in _error(capsys, *argv)
  argv = ["verify", f"--bundle={tmp_path / 'nothing'}", files.ada, files.ada]
  assert "nothing" in _error(capsys, *argv)


def test_damage_is_reported(gallery, tmp_path, capsys):
  path = tmp_path / "g.db"
  shutil.copy(gallery, path)
  with Store.open(path) as store:
    store._connection.execute("UPDATE templates SET checksum = 1 WHERE id = 4")
  assert main.main(["gallery", f"--gallery={path}", "check"]) == 1
  out, err = capsys.readouterr()
  assert out == "Template 4: it is damaged.\n"
  assert "1 problems" in err and err.count("\n") == 1


def test_no_space_left_writes_nothing(files, tmp_path, monkeypatch, capsys):
  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(common.os, "fsync", full)
  out = tmp_path / "e.npz"
  argv = ["embed", files.bundle, f"--out={out}", files.ada]
  assert "no space left" in _error(capsys, *argv)
  assert list(tmp_path.iterdir()) == []
