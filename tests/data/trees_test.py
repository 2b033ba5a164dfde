"""Folders and archives as trees: what is read, skipped and refused."""

import gzip
import os
import pathlib
import shutil
import tarfile
import zipfile

import pytest

from facesiam_jax import errors
from facesiam_jax.data import trees
from tests.data import fake_sets

FILES = {
  "b/2.jpg": b"two",
  "a/1.JPG": b"one",
  "Zoë and Ann/ü 3.png": b"three",
  "note.txt": b"",
}


def _folder(path):
  return fake_sets.tree(path / "tree", FILES)


def _tar(path):
  return fake_sets.tar(path / "a.tar", FILES)


def _zip(path):
  return fake_sets.zipped(path / "a.zip", FILES)


KINDS = [_folder, _tar, _zip]


@pytest.mark.parametrize("make", KINDS)
def test_files_are_listed_in_order_and_read(tmp_path, make):
  with trees.open_tree(make(tmp_path)) as tree:
    assert list(tree.files) == sorted(FILES)
    assert {name: tree.read(name) for name in tree.files} == FILES
    assert tree.skipped == {}


@pytest.mark.parametrize("make", KINDS)
def test_a_stamp_changes_with_the_content(tmp_path, make):
  path = make(tmp_path)
  with trees.open_tree(path) as tree:
    before = tree.files
  if path.is_dir():
    (path / "b" / "2.jpg").write_bytes(b"too")
    os.utime(path / "b" / "2.jpg", (5, 5))
  else:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink()
    changed = FILES | {"b/2.jpg": b"too long"}
    write = fake_sets.zipped if path.suffix == ".zip" else fake_sets.tar
    write(path, changed)
  with trees.open_tree(path) as tree:
    differ = {name for name in tree.files if tree.files[name] != before[name]}
  assert differ == {"b/2.jpg"}


@pytest.mark.parametrize("make", KINDS)
def test_reading_does_not_write(tmp_path, make, monkeypatch):
  path = make(tmp_path)
  before = sorted(tmp_path.rglob("*"))
  monkeypatch.chdir(tmp_path)
  with trees.open_tree(path) as tree:
    for name in tree.files:
      tree.read(name)
  assert sorted(tmp_path.rglob("*")) == before


def test_what_the_system_hides_is_passed_over(tmp_path):
  files = {"__MACOSX/a/._1.jpg": b"", "a/.DS_Store": b"", ".x/1.jpg": b""}
  for path in (
    fake_sets.tree(tmp_path / "t", files | {"a/1.jpg": b"x"}),
    fake_sets.zipped(tmp_path / "a.zip", files | {"a/1.jpg": b"x"}),
  ):
    with trees.open_tree(path) as tree:
      assert [n for n in tree.files if "MACOSX" not in n] == ["a/1.jpg"]
      assert not tree.skipped


def test_circles_of_links_end(tmp_path):
  folder = fake_sets.tree(tmp_path / "t", {"a/1.jpg": b"x", "b/c/2.jpg": b"y"})
  (folder / "a" / "up").symlink_to(folder)
  (folder / "b" / "c" / "b").symlink_to(folder / "b")
  (folder / "self.jpg").symlink_to(folder / "self.jpg")
  (folder / "alias").symlink_to(folder / "a")
  with trees.open_tree(folder) as tree:
    images = {tree.read(name) for name in tree.files}
    assert images == {b"x", b"y"} and len(tree.files) == 2
    assert "leads nowhere" in tree.skipped["self.jpg"]
    assert len(tree.skipped) == 4


def test_links_to_files_are_followed_and_pipes_are_not(tmp_path):
  folder = fake_sets.tree(tmp_path / "t", {"a/1.jpg": b"x"})
  (folder / "a" / "2.jpg").symlink_to(folder / "a" / "1.jpg")
  (folder / "a" / "gone.jpg").symlink_to(folder / "nowhere")
  os.mkfifo(folder / "a" / "pipe.jpg")
  with trees.open_tree(folder) as tree:
    assert tree.read("a/2.jpg") == b"x"
    assert sorted(tree.skipped) == ["a/gone.jpg", "a/pipe.jpg"]


def test_links_of_an_archive_are_not_followed(tmp_path):
  path = tmp_path / "a.tar"
  with tarfile.open(path, "w") as archive:
    for name, kind in (("a/1.jpg", tarfile.SYMTYPE), ("a/2.jpg", b"1")):
      member = tarfile.TarInfo(name)
      member.type, member.linkname = kind, "/etc/passwd"
      archive.addfile(member)
    member = tarfile.TarInfo("a/pipe.jpg")
    member.type = tarfile.FIFOTYPE
    archive.addfile(member)
  with trees.open_tree(path) as tree:
    assert not tree.files and len(tree.skipped) == 3
  link = zipfile.ZipInfo("a/1.jpg")
  link.external_attr = 0o120777 << 16
  with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
    archive.writestr(link, "/etc/passwd")
  with trees.open_tree(tmp_path / "a.zip") as tree:
    assert not tree.files and list(tree.skipped) == ["a/1.jpg"]


@pytest.mark.parametrize("make", [fake_sets.tar, fake_sets.zipped])
@pytest.mark.parametrize(
  "name",
  ["../out.jpg", "a/../../out.jpg", "/etc/out.jpg", "C:/out.jpg", "..\\o.jpg"],
)
def test_names_that_lead_out_are_refused(tmp_path, make, name):
  path = make(tmp_path / "archive", {"a/1.jpg": b"x", name: b"y"})
  with pytest.raises(errors.UserError, match="outside the folder") as caught:
    with trees.open_tree(path):
      pass
  assert str(path) in str(caught.value)


@pytest.mark.parametrize("make", [fake_sets.tar, fake_sets.zipped])
def test_a_name_twice_is_told(tmp_path, make, monkeypatch):
  monkeypatch.setattr("warnings.warn", lambda *args, **kwargs: None)
  path = tmp_path / "archive"
  make(path, {"a/1.jpg": b"first"})
  if make is fake_sets.tar:
    with tarfile.open(path, "a") as archive:
      archive.addfile(tarfile.TarInfo("a/1.jpg"))
  else:
    with zipfile.ZipFile(path, "a") as archive:
      archive.writestr("a/1.jpg", b"")
  with trees.open_tree(path) as tree:
    assert tree.read("a/1.jpg") == b"first"
    assert "twice" in tree.skipped["a/1.jpg"]


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr(trees, "MAX_FILE_BYTES", 1000)
  bomb = {"a/1.jpg": bytes(5000), "a/2.jpg": b"x"}
  with zipfile.ZipFile(
    tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED
  ) as archive:
    for name, data in bomb.items():
      archive.writestr(name, data)
  paths = [tmp_path / "a.zip", fake_sets.tar(tmp_path / "a.tar", bomb)]
  for path in paths:
    with trees.open_tree(path) as tree:
      assert list(tree.files) == ["a/2.jpg"] and "larger" in str(tree.skipped)
  with trees.open_tree(fake_sets.tree(tmp_path / "t", bomb)) as tree:
    with pytest.raises(trees.Unreadable, match="larger"):
      tree.read("a/1.jpg")


def test_a_damaged_member_of_a_zip_is_unreadable_alone(tmp_path):
  path = fake_sets.zipped(tmp_path / "a.zip", {"a/1": b"x" * 50, "a/2": b"y"})
  data = bytearray(path.read_bytes())
  data[data.index(b"xxxx") + 10] ^= 1
  path.write_bytes(data)
  with trees.open_tree(path) as tree:
    with pytest.raises(trees.Unreadable, match="CRC"):
      tree.read("a/1")
    assert tree.read("a/2") == b"y"


def test_a_tar_with_a_negative_size_ends(tmp_path):
  path = fake_sets.tar(tmp_path / "a.tar", {"a/1.jpg": b"x", "a/2.jpg": b"y"})
  data = bytearray(path.read_bytes())
  # Base-256: minus 512, so that the next header is this one again.
  data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfe\x00"
  head = data[1024:1536]
  head[148:156] = b" " * 8
  data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(head)
  path.write_bytes(data)
  with pytest.raises(errors.UserError, match="damaged"):
    with trees.open_tree(path):
      pass


@pytest.mark.parametrize("make", [_tar, _zip])
@pytest.mark.parametrize("keep", [0.9, 0.5, 0.2])
def test_a_cut_archive_is_told(tmp_path, make, keep):
  path = make(tmp_path)
  data = path.read_bytes()
  end = len(data) if path.suffix == ".zip" else 512 * 8
  path.write_bytes(data[: int(end * keep)])
  with pytest.raises((errors.UserError, trees.Unreadable)) as caught:
    with trees.open_tree(path) as tree:
      assert {name: tree.read(name) for name in tree.files} == FILES
  assert "damaged" in str(caught.value) or "short" in str(caught.value)


def _missing(path):
  return path / "nothing"


def _pipe(path):
  os.mkfifo(path / "pipe")
  return path / "pipe"


def _compressed(path):
  (path / "a.tar.gz").write_bytes(gzip.compress(_tar(path).read_bytes()))
  return path / "a.tar.gz"


def _text(path):
  (path / "a.txt").write_text("hello")
  return path / "a.txt"


@pytest.mark.parametrize(
  "make, match",
  [
    (_missing, "does not exist"),
    (_pipe, "is no file"),
    (_compressed, "unpack it"),
    (_text, "neither a folder nor"),
  ],
)
def test_other_things_are_refused(tmp_path, make, match):
  with pytest.raises(errors.UserError, match=match) as caught:
    with trees.open_tree(make(tmp_path)):
      pass
  assert str(caught.value).count("\n") == 0


def test_an_error_inside_is_not_taken_for_the_trees(tmp_path):
  with pytest.raises(OSError, match="disk"):
    with trees.open_tree(_folder(tmp_path)):
      raise OSError(28, "disk")


def test_unreadable_folder(tmp_path):
  if os.geteuid() == 0:
    pytest.skip("root may read everything")
  folder = _folder(tmp_path)
  (folder / "a").chmod(0)
  try:
    with trees.open_tree(folder) as tree:
      assert "Permission" in tree.skipped["a"]
  finally:
    pathlib.Path(folder / "a").chmod(0o700)
