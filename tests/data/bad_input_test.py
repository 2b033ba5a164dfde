"""Bad input of data sets: a table of each kind with its outcome.

Beside what is bad there are always two sound people, so that it shows whether
they come through. An outcome is one of

- kept: the image is in the data set with the bytes it came with,
- changed: it is in it as a plain PNG of the same pixels,
- counted: it is left out and counted under the given words, and with --strict
  it is an error of one sentence,
- refused: an error of one sentence, with and without --strict, and no data set.

A killed preparation and a full disk are in preparing_test.py.
"""

import dataclasses
import io
import os
import tarfile
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import errors
from facesiam_jax.data import catalogue
from facesiam_jax.faces import photo
from tests.data import encoded_test, fake_sets

SOUND = fake_sets.people(2, 2)


@dataclasses.dataclass
class Case:
  """One kind of bad input.

  Attributes:
    make: writes it into a folder; returns what to give as --manual_dir.
    outcome: "kept", "changed", "counted" or "refused".
    words: of the count or the error.
    dataset: to prepare.
    images: how many images come out.
  """

  make: Callable
  outcome: str
  words: str = ""
  dataset: str = "folder"
  images: int = 4


def _image(data, name="person0/bad.jpg"):
  """A folder with one more file."""
  return lambda root: fake_sets.tree(root / "x", SOUND | {name: data})


def _changed(kind):
  return _image(encoded_test.CHANGED[kind](fake_sets.pixels(3, (24, 16))))


def _bad(kind):
  return _image(encoded_test.BAD[kind][0])


def _loop(root):
  folder = fake_sets.tree(root / "x", SOUND)
  (folder / "person0" / "again").symlink_to(folder)
  (folder / "person1" / "bad.jpg").symlink_to("bad.jpg")
  return folder


def _pipe(root):
  folder = fake_sets.tree(root / "x", SOUND)
  os.mkfifo(folder / "person0" / "pipe.jpg")
  return folder


def _unreadable(root):
  folder = fake_sets.tree(root / "x", SOUND | {"person0/bad.jpg": b"x"})
  (folder / "person0" / "bad.jpg").chmod(0)
  if os.access(folder / "person0" / "bad.jpg", os.R_OK):
    pytest.skip("this user may read everything")
  return folder


def _folder_named_as_an_image(root):
  return fake_sets.tree(root / "x", SOUND | {"person0/1.png/note.txt": b"x"})


def _archive(write, name):
  def make(root):
    root.mkdir(exist_ok=True)
    return write(root / "x.arc", SOUND | {name: fake_sets.jpeg(9)})

  return make


def _tar_link(root):
  path = fake_sets.tar(root / "x.tar", SOUND)
  with tarfile.open(path, "a") as archive:
    member = tarfile.TarInfo("person0/passwd.jpg")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive.addfile(member)
  return path


def _cut(write, keep):
  def make(root):
    path = write(root / "x.arc", SOUND)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path

  return make


def _crc(root):
  path = fake_sets.zipped(root / "x.zip", SOUND | {"a/b.jpg": b"x" * 900})
  data = path.read_bytes()
  path.write_bytes(data.replace(b"x" * 100, b"y" * 100, 1))
  return path


def _celeba(**lists):
  rows = fake_sets.celeba_rows(3, 2)

  def make(root):
    added = {
      name: "".join(
        f"{row[0]} {row[1 if name == 'identities' else 2]}\n" for row in rows
      )
      + more
      for name, more in lists.items()
    }
    return fake_sets.celeba(root / "x", rows, **added)

  return make


def _two_partitions(root):
  rows = fake_sets.celeba_rows(3, 2)
  rows[0] = (rows[0][0], rows[0][1], 2)
  return fake_sets.celeba(root / "x", rows)


def _lfw_pairs(root):
  folder = fake_sets.lfw(root / "x")
  (folder / "pairs.txt").write_text("10 300\n")
  return folder


def _bin(data):
  def make(root):
    root.mkdir(exist_ok=True)
    (root / "x.bin").write_bytes(data)
    return root / "x.bin"

  return make


TABLE = {
  # Images that are only unusual.
  "suffix in capitals": Case(
    _image(fake_sets.jpeg(9), "person0/BAD.JPG"), "kept"
  ),
  "name with blanks, accents and signs": Case(
    _image(fake_sets.jpeg(9), "Zoë d'Ö (2)/my photo, ü%20.jpg"), "kept"
  ),
  "person with one image": Case(
    _image(fake_sets.jpeg(9), "alone/1.jpg"), "kept"
  ),
  "grey": Case(_image(fake_sets.jpeg(9, mode="L")), "kept"),
  "wrong suffix": Case(
    _image(fake_sets.encode(fake_sets.pixels(9), "PNG")), "kept"
  ),
  "CMYK": Case(_changed("cmyk"), "changed"),
  "16 bits": Case(_changed("sixteen bits"), "changed"),
  "animated": Case(_changed("animated"), "changed"),
  "alpha": Case(_changed("alpha"), "changed"),
  "palette": Case(_changed("palette"), "changed"),
  "turned by EXIF": Case(_changed("turned"), "changed"),
  # Images that are none.
  "truncated": Case(_bad("half"), "counted", "damaged or cut short"),
  "zero bytes": Case(_bad("empty"), "counted", "empty (0 bytes)"),
  "no image": Case(_bad("html"), "counted", "no images of a known format"),
  "1x1": Case(_bad("1x1"), "counted", "have a side below 8 pixels"),
  "30,000x30,000": Case(_bad("bomb"), "counted", "too many pixels"),
  "unreadable": Case(_unreadable, "counted", "cannot be read"),
  "not in a person's folder": Case(
    _image(fake_sets.jpeg(9), "bad.jpg"), "counted", "<person>/<image>"
  ),
  # Folders and archives.
  "circles of links": Case(_loop, "counted", "could not be looked at"),
  "pipe": Case(_pipe, "counted", "could not be looked at"),
  "folder named as an image": Case(_folder_named_as_an_image, "ignored"),
  "tar with a link out of it": Case(
    _tar_link, "counted", "could not be looked at"
  ),
  "zip that writes outside": Case(
    _archive(fake_sets.zipped, "../../bad.jpg"), "refused", "outside the folder"
  ),
  "tar that writes outside": Case(
    _archive(fake_sets.tar, "/tmp/bad.jpg"), "refused", "outside the folder"
  ),
  "cut zip": Case(_cut(fake_sets.zipped, 0.7), "refused", "damaged"),
  "cut tar": Case(_cut(fake_sets.tar, 0.2), "refused", "damaged"),
  "zip with a damaged member": Case(_crc, "counted", "cannot be read"),
  "empty folder": Case(
    lambda root: fake_sets.tree(root / "x", {"a/note.txt": b""}),
    "refused",
    "holds no image in <person>/<image>",
  ),
  "no folder": Case(lambda root: root / "x", "refused", "does not exist"),
  # Lists.
  "identity file that names missing images": Case(
    _celeba(identities="200001.jpg 5\n200002.jpg 5\n"),
    "counted",
    "rows of identity_CelebA.txt without an image",
    "celeba_identity",
    6,
  ),
  "identity rows twice": Case(
    _celeba(identities="000001.jpg 10\n"),
    "counted",
    "repeated rows in identity_CelebA.txt",
    "celeba_identity",
    6,
  ),
  "identity rows that contradict": Case(
    _celeba(identities="000001.jpg 11\n"),
    "counted",
    "gives two different numbers",
    "celeba_identity",
    5,
  ),
  "identity file that is none": Case(
    _celeba(identities="<html>\n"), "refused", "line 7", "celeba_identity"
  ),
  "partition file that is none": Case(
    _celeba(partition="000009.jpg 3\n"), "refused", "line 7", "celeba_identity"
  ),
  "person in two partitions": Case(
    _two_partitions, "refused", "two partitions", "celeba_identity"
  ),
  "protocol that is cut short": Case(
    _lfw_pairs, "refused", "pairs.txt", "lfw"
  ),
  "bin that is none": Case(
    _bin(b"hello"), "refused", "not one of insightface's", "insightface_bin"
  ),
  "bin that runs a program": Case(
    _bin(b"cos\nsystem\n(S'touch hacked'\ntR."),
    "refused",
    "not one of insightface's",
    "insightface_bin",
  ),
}  # fmt: skip


def _prepare(case, path, root, strict=False):
  options = catalogue.Options(path)
  if case.dataset == "folder":
    options = dataclasses.replace(options, num_validation=0, num_test=0)
  return catalogue.prepare(
    case.dataset, options, data_dir=str(root), strict=strict
  )


@pytest.mark.parametrize("name", TABLE)
def test_each_case_has_its_outcome(name, tmp_path, monkeypatch):
  case = TABLE[name]
  monkeypatch.chdir(tmp_path)
  path, root = case.make(tmp_path), tmp_path / "data"
  if case.outcome == "refused":
    for strict in (False, True):
      with pytest.raises(errors.UserError) as caught:
        _prepare(case, path, root, strict)
      assert case.words in str(caught.value) and "\n" not in str(caught.value)
    assert not list(root.glob("*/*/*.json")) and not os.path.exists("hacked")
    return
  made, problems = _prepare(case, path, root)
  made.check()
  images = {row.file: row.image for row in made.rows()}
  left_out = case.outcome in ("counted", "ignored")
  assert len(images) == (case.images if left_out else 5)
  if case.dataset == "folder":
    assert {name: images[name] for name in SOUND} == SOUND
  if case.outcome != "counted":
    assert not problems.counts
    _prepare(case, path, tmp_path / "strict", strict=True)
  else:
    assert case.words in " ".join(problems.lines())
    with pytest.raises(errors.UserError, match="--strict") as caught:
      _prepare(case, path, tmp_path / "strict", strict=True)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "strict").glob("*/*/*.json"))
  if case.outcome in ("kept", "changed"):
    (extra,) = images.keys() - SOUND.keys()
    data = (path / extra).read_bytes()
    assert (images[extra] == data) == (case.outcome == "kept")
    pixels = np.asarray(PIL.Image.open(io.BytesIO(images[extra])))
    np.testing.assert_array_equal(pixels, photo.read_image(path / extra))


def test_an_empty_split_is_reported_and_an_error_when_asked_for(tmp_path):
  rows = [row for row in fake_sets.celeba_rows() if row[2] == 0]
  path = fake_sets.celeba(tmp_path / "x", rows)
  case = Case(None, "kept", dataset="celeba_identity")
  made, problems = _prepare(case, path, tmp_path / "data", strict=True)
  assert not problems.counts and made.num_images("test") == 0
  assert "test" in made.manifest["partitions"]
  with pytest.raises(errors.UserError, match="no image in its test partition"):
    made.examples("test")
