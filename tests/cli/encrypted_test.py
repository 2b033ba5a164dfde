"""An encrypted gallery through every verb that a user types."""

import json
import re
import shutil
import stat

import PIL.Image
import pytest

pytest.importorskip("cryptography", reason="the extra encrypt is not installed")

from facesiam_jax.cli import main  # noqa: E402
from tests.cli import pixel_bundle  # noqa: E402

_PEOPLE = {"Ada Lovelace": 3, "Bob Quine": 11}


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory):
  """Two bundles and two people with two photos each."""
  folder = tmp_path_factory.mktemp("made")
  pixel_bundle.save(folder / "old")
  pixel_bundle.save(folder / "new", views={"mirror": True, "shift": 0})
  for name, person in _PEOPLE.items():
    (folder / "PEOPLE" / name).mkdir(parents=True)
    with PIL.Image.open(pixel_bundle.photo(person, 1)) as image:
      image.save(folder / "PEOPLE" / name / "1.png")
      image.point(lambda grey: grey * 0.9).save(
        folder / "PEOPLE" / name / "2.png"
      )
  return folder


class _Office:
  """Runs verbs on one gallery, with its key or with another."""

  def __init__(self, made, folder, capsys):
    self.folder = folder
    self.made, self._capsys = made, capsys
    self.path, self.key = folder / "g.db", folder / "keys" / "k"
    self.key.parent.mkdir()

  def run(self, verb, *argv, key=None, status=0, bundle="old"):
    self._capsys.readouterr()
    key = self.key if key is None else key
    with_key = [f"--key_file={key}"] if key else []
    with_bundle = [f"--bundle={self.made / bundle}"] if bundle else []
    words = [verb, f"--gallery={self.path}", *with_key, *with_bundle, *argv]
    assert main.main([str(word) for word in words]) == status
    return self._capsys.readouterr()

  def manage(self, *argv, **settings):
    return self.run("gallery", *argv, **{"bundle": None} | settings)

  def names(self):
    listed = json.loads(self.manage("list", "--json").out)
    return [person["name"] for person in listed]

  def bytes_on_disk(self):
    files = [x for x in self.folder.glob("g.db*") if x.is_file()]
    return b"".join(path.read_bytes() for path in files)


@pytest.fixture(name="office")
def _office(made, tmp_path, capsys):
  office = _Office(made, tmp_path, capsys)
  office.run("enroll", "--purpose=the door", made / "PEOPLE")
  return office


def test_enrol_identify_and_remove(office):
  assert stat.S_IMODE(office.key.stat().st_mode) == 0o600
  probe = office.made / "PEOPLE" / "Ada Lovelace" / "2.png"
  (found,) = json.loads(office.run("identify", "--json", probe).out)
  assert found["name"] == "Ada Lovelace"
  assert office.names() == [*_PEOPLE]
  assert "is sound: 4 photos of 2 people" in office.manage("check").out
  held = office.bytes_on_disk()
  for word in (*_PEOPLE, "Lovelace", "the door", "1.png"):
    assert word.encode() not in held, word
  out = office.manage("remove", "Ada Lovelace").out
  assert "Removed Ada Lovelace (2 photos) and erased them" in out
  assert office.names() == ["Bob Quine"]


def test_it_moves_to_another_bundle_and_comes_back_from_an_export(office):
  people = office.made / "PEOPLE"
  office.manage("reenroll", people, bundle="new")
  probe = people / "Bob Quine" / "2.png"
  argv = ("identify", "--json", probe)
  (found,) = json.loads(office.run(*argv, bundle="new").out)
  assert found["name"] == "Bob Quine"
  assert "another bundle" in office.run(*argv, status=1).err
  file = office.folder / "e.npz"
  assert "--in_clear" in office.manage("export", file, status=1).err
  assert not file.exists()
  out = office.manage("export", file, "--in_clear").out
  assert "The two files are not encrypted." in out
  moved = shutil.move(office.path, office.folder / "before.db")
  assert moved.exists() and not office.path.exists()
  office.manage("import", file)
  assert office.names() == [*_PEOPLE]
  assert b"Lovelace" not in office.bytes_on_disk()


def test_shards_are_asked_for_in_the_clear(office):
  folder = office.folder / "set"
  argv = ("shard", f"--out={folder}")
  assert "--in_clear" in office.manage(*argv, status=1).err
  assert not folder.exists()
  out = office.manage(*argv, "--in_clear").out
  assert f"{folder} is not encrypted." in out


@pytest.mark.parametrize("verb", ["list", "check", "identify", "enroll"])
def test_without_its_key_it_is_refused_and_left_as_it_is(office, verb):
  other = office.folder / "other"
  other.write_bytes(office.key.read_bytes()[::-1])
  other.chmod(0o600)
  argv = {
    "identify": ["identify", office.made / "PEOPLE" / "Bob Quine" / "1.png"],
    "enroll": ["enroll", office.made / "PEOPLE"],
  }.get(verb, ["gallery", verb])
  bundle = None if argv[0] == "gallery" else "old"
  before = office.names()
  for key in ("", office.folder / "none", other):
    err = office.run(*argv, key=key, status=1, bundle=bundle).err
    assert re.search("key", err) and err.count("\n") == 1, err
  assert not (office.folder / "none").exists()
  assert office.names() == before
