"""Bad photos at the verbs: a table of each kind with its outcome.

An outcome of a photo, whether it is named or found in a folder of people, is
one of

- used: its face is enrolled under its name and recognised,
- no face: it is sound and shows none. Named, it is an error of one sentence; in
  a folder it is listed and counted, the others are enrolled, status 1,
- refused: an error of one sentence that names the photo, and nothing is
  enrolled.

Photos of data sets have a table in tests/data/bad_input_test.py.
"""

import dataclasses
import json
import os
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from facesiam_jax.cli import main
from tests.cli import pixel_bundle
from tests.data import encoded_test, fake_sets


@dataclasses.dataclass
class Case:
  """One kind of photo.

  Attributes:
    make: writes it at a path, from a face.
    outcome: "used", "no face" or "refused".
    words: of the error.
    name: of the file.
  """

  make: Callable
  outcome: str
  words: str = ""
  name: str = "photo.jpg"


def _face():
  with PIL.Image.open(pixel_bundle.photo(3, 1)) as image:
    return image.convert("RGB").resize((276, 336))


def _data(data):
  return lambda path: path.write_bytes(data)


def _sound(kind):
  return lambda path: path.write_bytes(encoded_test.CHANGED[kind](_face()))


def _bad(kind):
  return _data(encoded_test.BAD[kind][0])


def _jpeg(path):
  _face().save(path, format="JPEG")


def _turned(path):
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  stored = _face().transpose(PIL.Image.Transpose.ROTATE_90)
  stored.save(path, format="JPEG", exif=exif)


def _cut(path):
  _jpeg(path)
  path.write_bytes(path.read_bytes()[:6000])


def _unreadable(path):
  _jpeg(path)
  path.chmod(0)
  if os.access(path, os.R_OK):
    pytest.skip("this user may read everything")


TABLE = {
  # Photos that are only unusual.
  "suffix in capitals": Case(_jpeg, "used", name="PHOTO.JPG"),
  "name with blanks, accents and signs": Case(
    _jpeg, "used", name="Zoë d'Ö (2), ü%20.jpg"
  ),
  "grey": Case(lambda path: _face().convert("L").save(path), "used"),
  "wrong suffix": Case(
    _data(fake_sets.encode(_face(), "PNG")), "used", name="photo.gif"
  ),
  "CMYK": Case(_sound("cmyk"), "used"),
  "16 bits": Case(_sound("sixteen bits"), "used", name="photo.png"),
  "animated": Case(_sound("animated"), "used", name="photo.png"),
  "alpha": Case(_sound("alpha"), "used", name="photo.png"),
  "turned by EXIF": Case(_turned, "used"),
  "one link": Case(
    lambda path: path.symlink_to(pixel_bundle.photo(3, 1)), "used"
  ),
  # Photos without a face.
  "1x1": Case(_bad("1x1"), "no face", "No face was found"),
  "narrow": Case(_bad("narrow"), "no face", "No face was found"),
  "plain": Case(
    lambda path: PIL.Image.new("L", (300, 300), 128).save(path),
    "no face",
    "No face was found",
  ),
  # Files that are no photos.
  "truncated": Case(_cut, "refused", "damaged or cut short"),
  "zero bytes": Case(_bad("empty"), "refused", "is empty (0 bytes)"),
  "no image": Case(_bad("html"), "refused", "not an image"),
  "30,000x30,000": Case(_bad("bomb"), "refused", "too many pixels"),
  "unreadable": Case(_unreadable, "refused", "chmod u+r"),
  "circle of links": Case(
    lambda path: path.symlink_to(path.name), "refused", "check the path"
  ),
  "link to nothing": Case(
    lambda path: path.symlink_to("gone.jpg"), "refused", "does not exist"
  ),
  "pipe": Case(os.mkfifo, "refused", "is no file"),
}  # fmt: skip


@pytest.fixture(scope="module", name="bundle")
def _bundle(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bundle")
  pixel_bundle.save(folder)
  return f"--bundle={folder}"


def _run(*argv):
  return main.main([str(word) for word in argv])


def _photo(folder, case):
  folder.mkdir(parents=True)
  path = folder / case.name
  case.make(path)
  return path


@pytest.mark.parametrize(
  "name", [n for n, case in TABLE.items() if case.outcome == "used"]
)
def test_an_unusual_photo_is_recognised(bundle, name, tmp_path, capsys):
  path = _photo(tmp_path / "Ada Ö", TABLE[name])
  gallery = f"--gallery={tmp_path / 'g.db'}"
  assert _run("enroll", bundle, gallery, tmp_path) == 0
  capsys.readouterr()
  plain = pixel_bundle.photo(3, 1)
  assert _run("identify", bundle, gallery, "--json", path, plain) == 0
  answers = json.loads(capsys.readouterr().out)
  assert [a["name"] for a in answers] == ["Ada Ö"] * 2
  box, plain_box = (np.array(a["box"]) for a in answers)
  assert box.shape == plain_box.shape == (4,)


@pytest.mark.parametrize(
  "name", [n for n, case in TABLE.items() if case.outcome != "used"]
)
def test_a_bad_photo_is_told_in_a_sentence(bundle, name, tmp_path, capsys):
  case, gallery = TABLE[name], tmp_path / "g.db"
  path = _photo(tmp_path / "people" / "Bob", case)
  flags = [bundle, f"--gallery={gallery}"]
  before = _run("enroll", *flags, "--name=Ada", pixel_bundle.photo(3, 1))
  assert before == 0
  content = gallery.read_bytes()
  for verb in (["enroll", "--name=Bob"], ["identify"]):
    capsys.readouterr()
    assert _run(verb[0], *flags, *verb[1:], path) == 1
    out, err = capsys.readouterr()
    assert case.words in err and str(path) in err
    assert err.count("\n") == 1 and not out
  assert gallery.read_bytes() == content


@pytest.mark.parametrize("outcome", ["no face", "refused"])
def test_a_bad_photo_among_sound_ones(bundle, outcome, tmp_path, capsys):
  people, gallery = tmp_path / "people", tmp_path / "g.db"
  (people / "Ada").mkdir(parents=True)
  _jpeg(people / "Ada" / "1.jpg")
  made = 0
  for number, case in enumerate(TABLE.values()):
    if case.outcome == outcome and case.words != "chmod u+r":
      case.make(people / "Ada" / f"bad{number}.jpg")
      made += 1
  assert _run("enroll", bundle, f"--gallery={gallery}", people) == 1
  out, err = capsys.readouterr()
  if outcome == "refused":
    assert "bad" in err and err.count("\n") == 1 and not gallery.exists()
    return
  assert out.count("no face, not enrolled") == made
  assert f"{made} of {made + 1} photos not enrolled (no face: {made})" in out
  assert "Enrolled 1 photos of 1 people" in out


@pytest.mark.parametrize("name", ["pipe", "circle of links", "link to nothing"])
def test_what_is_no_file_is_told_of_in_a_folder_too(
  bundle, name, tmp_path, capsys
):
  path = _photo(tmp_path / "people" / "Bob", TABLE[name])
  for words in (
    ["enroll", bundle, f"--gallery={tmp_path / 'g.db'}", tmp_path / "people"],
    ["embed", bundle, f"--out={tmp_path / 'e.npz'}", tmp_path / "people"],
  ):
    assert _run(*words) == 1
    err = capsys.readouterr().err
    assert TABLE[name].words in err and str(path) in err
