"""Tests of what enroll asks before it enrols, and of the gallery's upkeep."""

import json
import shutil
import types

import PIL.Image
import PIL.ImageEnhance
import pytest

from facesiam_jax.cli import main, photos
from facesiam_jax.faces import grading
from facesiam_jax.gallery.store import Store
from tests.cli import pixel_bundle


def _like(path, person, brightness):
  """Writes a photo that the bundle takes for the person's first one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with PIL.Image.open(pixel_bundle.photo(person, 1)) as image:
    PIL.ImageEnhance.Brightness(image).enhance(brightness).save(path)


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("made")
  pixel_bundle.save(folder / "old")
  pixel_bundle.save(folder / "new", views={"mirror": True, "shift": 0})
  for name, person in (("Ada", 3), ("Bob", 11)):
    for number, brightness in enumerate((1.0, 0.95, 0.9), 1):
      _like(folder / "PEOPLE" / name / f"{number}.png", person, brightness)
  return folder


@pytest.fixture(name="files")
def _files(made, tmp_path):
  people = shutil.copytree(made / "PEOPLE", tmp_path / "PEOPLE")
  gallery = tmp_path / "g.db"
  return types.SimpleNamespace(
    people=people,
    path=gallery,
    folder=tmp_path,
    enroll=["enroll", f"--bundle={made / 'old'}", f"--gallery={gallery}"],
    gallery=["gallery", f"--gallery={gallery}"],
    new=f"--bundle={made / 'new'}",
  )


def _run(capsys, *argv, status=0):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == status
  return capsys.readouterr()


def test_a_folder_is_enrolled_once(files, capsys, monkeypatch):
  out = _run(capsys, *files.enroll, files.people).out
  assert "Enrolled 6 photos of 2 people" in out and "unlike" not in out
  _like(files.people / "Ada" / "4.png", 3, 0.85)
  out = _run(capsys, *files.enroll, files.people).out
  assert out.count("enrolled already, left out") == 6
  assert "Enrolled 1 photos of 1 people" in out and "7 photos of 2 p" in out
  from facesiam_jax.faces import photo

  def read(*_, **__):
    raise AssertionError("a photo that is enrolled already was read again")

  monkeypatch.setattr(photo.Reader, "read_one", read)
  argv = [*files.enroll, "--expires=2001-02-03", "--consent=form 7"]
  out = _run(capsys, *argv, files.people).out
  assert "Enrolled 0 photos" in out
  out = _run(capsys, *files.gallery, "list").out
  assert out.splitlines()[0].split() == [
    *("person", "photos", "days", "old", "expires", "consent"),
  ]
  assert "2001-02-03  form 7" in out
  out = _run(capsys, *files.gallery, "expire").out
  assert "Ada (4 photos): removed and erased" in out
  assert "Removed 2 people" in out


def test_the_odd_photo_is_told_of(files, capsys):
  _like(files.people / "Ada" / "2b.png", 30, 1.0)
  out = _run(capsys, *files.enroll, files.people).out
  assert out.count("unlike the other photos") == 1
  assert "Ada/2b.png: unlike the other photos of Ada" in out


def test_who_is_enrolled_already_is_found_by_looks(files, capsys):
  _run(capsys, *files.enroll, files.people)
  _like(files.folder / "MORE" / "Adele" / "1.png", 3, 0.97)
  _like(files.folder / "MORE" / "Cy" / "1.png", 30, 1.0)
  out = _run(capsys, *files.enroll, files.folder / "MORE", status=1).out
  assert "Adele: already enrolled as Ada, by 1 of 1 photos" in out
  assert "Enrolled 1 photos of 1 people" in out
  photo = files.folder / "MORE" / "Adele" / "1.png"
  err = _run(capsys, *files.enroll, "--name=Adele", photo, status=1).err
  assert "already enrolled as Ada" in err and "--allow_duplicate" in err
  argv = [*files.enroll, "--allow_duplicate", "--name=Adele", photo]
  assert "Enrolled 1 photos" in _run(capsys, *argv).out
  with Store.open(files.path) as store:
    assert list(store.people()) == ["Ada", "Adele", "Bob", "Cy"]


def test_bad_terms_enroll_nobody(files, capsys):
  for flag in ("--expires=soon", "--consent= "):
    err = _run(capsys, *files.enroll, flag, files.people, status=1).err
    assert flag.split("=")[0] in err and err.count("\n") == 1
  assert not files.path.exists()


def test_export_remove_import(files, capsys):
  _run(capsys, *files.enroll, "--storage=int8", files.people)
  out = _run(capsys, *files.gallery, "export", files.folder / "e.npz").out
  assert out.startswith("Wrote 6 embeddings to ") and "e.csv" in out
  out = _run(capsys, *files.gallery, "remove", "Ada").out
  assert "Removed Ada (3 photos) and erased them" in out
  other = [f"--gallery={files.folder / 'h.db'}", "import"]
  out = _run(capsys, "gallery", *other, files.folder / "e.npz").out
  assert out.startswith("Enrolled 3 embeddings")
  out = _run(capsys, "gallery", other[0], "list", "--json").out
  assert [person["name"] for person in json.loads(out)] == ["Bob"]
  (files.folder / "e.npz").rename(files.folder / "moved.npz")
  (files.folder / "e.csv").unlink()
  out = _run(capsys, *files.gallery, "remove", "Bob").out
  assert "e.npz: an export was written here" in out


def _qualities(path):
  with Store.open(path) as store:
    query = "SELECT quality FROM templates ORDER BY id"
    return [one for (one,) in store._connection.execute(query)]


def test_reenroll(files, capsys):
  _run(capsys, *files.enroll, "--purpose=door", files.people)
  shutil.move(files.people / "Bob", files.folder / "Bob")
  _like(files.people / "Eve" / "1.png", 30, 1.0)
  argv = [*files.gallery, files.new, "reenroll", files.people]
  out = _run(capsys, *argv, status=1).out
  assert "Eve: not enrolled" in out and "Bob: no usable photo, cannot" in out
  assert "is as it was" in out
  probe = files.people / "Ada" / "1.png"
  identify = ["identify", files.enroll[2], "--json", probe]
  (found,) = json.loads(_run(capsys, *identify, files.enroll[1]).out)
  assert found["name"] == "Ada"
  shutil.move(files.folder / "Bob", files.people / "Bob")
  before = _qualities(files.path)
  assert len(before) == 6 and all(0 < one <= 1 for one in before)
  out = _run(capsys, *argv).out
  assert "6 photos of 2 people" in out
  assert _qualities(files.path) == before
  (found,) = json.loads(_run(capsys, *identify, files.new).out)
  assert found["name"] == "Ada"
  err = _run(capsys, *files.enroll, files.people, status=1).err
  assert "another bundle" in err
  listed = json.loads(_run(capsys, *files.gallery, "list", "--json").out)
  assert [person["purpose"] for person in listed] == ["door", "door"]
  err = _run(capsys, *files.gallery, "reenroll", files.people, status=2).err
  assert "--bundle" in err


def test_limits_of_quality_are_flags(files, capsys):
  assert tuple(photos._LIMITS) == grading.Limits._fields
  for name, usual in grading.Limits._field_defaults.items():
    assert photos._LIMITS[name][0] == usual
  argv = [*files.enroll, "--refuse_poor", "--min_width=5000"]
  err = _run(capsys, *argv, files.people, status=1).err
  assert "pixels wide" in err
  assert not files.path.exists()
  argv = [*files.enroll, "--refuse_poor", "--min_width=10", files.people]
  assert "Enrolled 6 photos" in _run(capsys, *argv).out
