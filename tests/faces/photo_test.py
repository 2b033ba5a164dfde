"""Photos from files: formats, rotation, bad input, faces, folders."""

import os
import pathlib
import subprocess
import sys
import tarfile

import cv2
import numpy as np
import PIL.Image
import pytest

from facesiam_jax import errors
from facesiam_jax.data import olivetti, olivetti_eyes
from facesiam_jax.faces import framing, photo
from tests import shared_data


@pytest.fixture(scope="module")
def face():
  return olivetti.read_source()[4, 0]


@pytest.fixture(scope="module")
def framed(face):
  return framing.align(face, olivetti_eyes.eyes()[4, 0])


@pytest.fixture
def colours():
  """Four regions with a colour each, and no symmetry."""
  pixels = np.zeros((40, 60, 3), np.uint8)
  pixels[:20, :30] = (200, 30, 30)
  pixels[:20, 30:] = (30, 200, 30)
  pixels[20:, :30] = (30, 30, 200)
  pixels[20:, 30:] = (220, 220, 90)
  return pixels


def _save(path, pixels, **kwargs):
  image = pixels
  if not isinstance(pixels, PIL.Image.Image):
    image = PIL.Image.fromarray(pixels)
  image.save(path, **kwargs)
  return path


def test_import_loads_no_jax():
  code = (
    "import sys, facesiam_jax.faces.photo;"
    "assert not {'jax', 'tensorflow_datasets'} & set(sys.modules)"
  )
  subprocess.run(
    [sys.executable, "-c", code],
    check=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
  )


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "tiff", "webp"])
def test_lossless_formats(tmp_path, colours, suffix):
  options = {"lossless": True} if suffix == "webp" else {}
  path = _save(tmp_path / f"a.{suffix}", colours, **options)
  got = photo.read_image(path)
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, colours)


@pytest.mark.parametrize("suffix", ["jpg", "webp", "gif"])
def test_lossy_formats(tmp_path, colours, suffix):
  got = photo.read_image(_save(tmp_path / f"a.{suffix}", colours))
  assert got.shape == colours.shape
  assert np.abs(got.astype(int) - colours).mean() < 8


@pytest.mark.parametrize("suffix", ["pgm", "png", "bmp"])
def test_grey_stays_grey(tmp_path, face, suffix):
  got = photo.read_image(_save(tmp_path / f"a.{suffix}", face))
  np.testing.assert_array_equal(got, face)


@pytest.mark.parametrize("suffix", ["png", "pgm", "tiff"])
def test_sixteen_bits(tmp_path, suffix):
  wide = np.array([[0, 257, 32896, 65535]], np.uint16)
  path = tmp_path / f"a.{suffix}"
  assert cv2.imwrite(str(path), wide)
  np.testing.assert_array_equal(photo.read_image(path), [[0, 1, 128, 255]])


def test_palette_and_black_and_white(tmp_path, colours):
  palette = PIL.Image.fromarray(colours).quantize(4)
  got = photo.read_image(_save(tmp_path / "p.png", palette))
  assert np.abs(got.astype(int) - colours).max() <= 2
  bits = PIL.Image.fromarray(colours).convert("1")
  got = photo.read_image(_save(tmp_path / "b.png", bits))
  assert got.ndim == 2 and set(np.unique(got)) <= {0, 255}


def test_transparency_is_white(tmp_path, colours):
  alpha = np.full(colours.shape[:2], 255, np.uint8)
  alpha[:, :10] = 0
  path = _save(tmp_path / "a.png", np.dstack([colours, alpha]))
  got = photo.read_image(path)
  assert (got[:, :10] == 255).all()
  np.testing.assert_array_equal(got[:, 10:], colours[:, 10:])


def test_cmyk_and_grey_with_alpha(tmp_path, colours, face):
  cmyk = PIL.Image.fromarray(colours).convert("CMYK")
  assert photo.read_image(_save(tmp_path / "a.jpg", cmyk)).shape == (40, 60, 3)
  with_alpha = PIL.Image.fromarray(face).convert("LA")
  got = photo.read_image(_save(tmp_path / "a.png", with_alpha))
  np.testing.assert_array_equal(photo.to_gray(got), face)


def test_grey_weights():
  pixels = np.eye(3, dtype=np.uint8)[None] * 255
  np.testing.assert_array_equal(photo.to_gray(pixels), [[76, 150, 29]])


# What a camera stores for each EXIF orientation of the upright picture.
_STORED = {
  1: lambda p: p,
  2: lambda p: p[:, ::-1],
  3: lambda p: p[::-1, ::-1],
  4: lambda p: p[::-1],
  5: lambda p: p.transpose(1, 0, 2),
  6: lambda p: np.rot90(p),
  7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
  8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation(tmp_path, colours, orientation, suffix):
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  stored = np.ascontiguousarray(_STORED[orientation](colours))
  path = _save(tmp_path / f"a.{suffix}", stored, exif=exif)
  got = photo.read_image(path)
  assert got.shape == colours.shape
  assert np.abs(got.astype(int) - colours).mean() < 8


def _missing(path):
  del path


def _folder(path):
  path.mkdir()


def _empty(path):
  path.write_bytes(b"")


def _text(path):
  path.write_text("This is a list of things to buy.\n" * 30)


def _pipe(path):
  os.mkfifo(path)


def _truncated(path):
  noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
  _save(path, noise, format="JPEG")
  path.write_bytes(path.read_bytes()[:2000])


def _truncated_png(path):
  noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
  _save(path, noise, format="PNG")
  path.write_bytes(path.read_bytes()[:4000])


def _header_only(path):
  path.write_bytes(b"P5 92 112 255\n")


def _flipped_png(path):
  _truncated_png(path)
  noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
  _save(path, noise, format="PNG")
  content = bytearray(path.read_bytes())
  content[3000] ^= 255
  path.write_bytes(content)


def _bomb(path):
  path.write_bytes(b"P5 60000 60000 255\n" + bytes(100))


def _half_bomb(path):
  path.write_bytes(b"P5 10000 10000 255\n" + bytes(100))


def _floats(path):
  PIL.Image.fromarray(np.zeros((9, 9), np.float32)).save(path, format="TIFF")


def _postscript(path):
  path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (_missing, "does not exist"),
    (_folder, "is a folder"),
    (_empty, "is empty"),
    (_text, "not an image"),
    (_pipe, "is no file"),
    (_truncated, "damaged or cut short"),
    (_truncated_png, "damaged or cut short"),
    (_header_only, "damaged or cut short"),
    (_flipped_png, "damaged or cut short"),
    (_bomb, "too many pixels"),
    (_half_bomb, "too many pixels"),
    (_floats, "floating-point"),
    (_postscript, "not an image"),
  ],
)
def test_bad_files(tmp_path, make, message):
  path = tmp_path / "bad photo.jpg"
  make(path)
  with pytest.raises(errors.UserError, match=message) as caught:
    photo.load_face(path)
  text = str(caught.value)
  assert str(path) in text
  assert "\n" not in text and text.endswith(".")


def test_unreadable_file(tmp_path, face, monkeypatch):
  path = _save(tmp_path / "a.png", face)

  def refuse(*args, **kwargs):
    raise PermissionError(13, "Permission denied")

  # The tests may run as root, whom no permission stops.
  monkeypatch.setattr(PIL.Image, "open", refuse)
  with pytest.raises(errors.UserError, match="chmod"):
    photo.read_image(path)


def test_face_of_a_photo_has_the_training_framing(tmp_path, face, framed):
  got = photo.load_face(_save(tmp_path / "a.pgm", face))
  assert got.shape == (64, 64, 1) and got.dtype == np.uint8
  assert np.abs(got[..., 0].astype(int) - framed).mean() < 4
  # The same face, large and off the middle of a colour photo.
  picture = np.full((700, 900, 3), 90, np.uint8)
  large = cv2.resize(face, (368, 448), interpolation=cv2.INTER_CUBIC)
  picture[100:548, 400:768] = large[..., None]
  got = photo.load_face(_save(tmp_path / "b.png", picture))
  assert np.abs(got[..., 0].astype(int) - framed).mean() < 6


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_sideways_photo(tmp_path, face, framed, orientation):
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  stored = _STORED[orientation](np.repeat(face[..., None], 3, axis=2))
  path = _save(tmp_path / "a.png", np.ascontiguousarray(stored), exif=exif)
  got = photo.load_face(path)[..., 0]
  assert np.abs(got.astype(int) - framed).mean() < 4


def test_no_face(tmp_path, colours):
  path = _save(tmp_path / "a.png", colours)
  with pytest.raises(errors.UserError, match="No face.*a.png.*--cropped"):
    photo.load_face(path)


def test_several_faces(tmp_path):
  images = olivetti.read_source()
  both = np.hstack([images[0, 0], images[4, 0]])
  path = _save(tmp_path / "a.png", both)
  with pytest.raises(errors.UserError, match="2 faces .*a.png"):
    photo.load_face(path)


def test_cropped_is_only_scaled(tmp_path, framed):
  path = _save(tmp_path / "a.png", framed)
  got = photo.load_face(path, cropped=True)
  np.testing.assert_array_equal(got[..., 0], framed)
  double = _save(tmp_path / "b.png", framed.repeat(2, 0).repeat(2, 1))
  got = photo.load_face(double, cropped=True)
  np.testing.assert_array_equal(got[..., 0], framed)
  assert photo.load_face(path, size=32, cropped=True).shape == (32, 32, 1)
  assert photo.load_face(path, size=100, cropped=True).shape == (100, 100, 1)


def test_colour_stays(tmp_path, colours):
  square = colours[:, :40]
  path = _save(tmp_path / "a.png", square)
  got = photo.load_face(path, size=40, cropped=True, channels=3)
  np.testing.assert_array_equal(got, square)
  grey = photo.load_face(path, size=40, cropped=True)
  np.testing.assert_array_equal(grey[..., 0], photo.to_gray(square))
  with pytest.raises(ValueError, match="channels must be 1 or 3"):
    photo.load_face(path, cropped=True, channels=4)


def test_a_grey_photo_has_three_equal_channels(tmp_path, face, framed):
  path = _save(tmp_path / "a.pgm", face)
  got = photo.load_face(path, channels=3)
  assert got.shape == (64, 64, 3)
  np.testing.assert_array_equal(got, photo.load_face(path).repeat(3, axis=2))
  # A tint moves no face, and each channel is framed by itself.
  tinted = (face[..., None] * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
  path = _save(tmp_path / "b.png", tinted)
  got = photo.load_face(path, channels=3).astype(int)
  for channel, share in enumerate((1.0, 0.8, 0.6)):
    assert np.abs(got[..., channel] - share * framed).mean() < 5


def test_cropped_needs_a_square(tmp_path, face):
  with pytest.raises(errors.UserError, match="92x112.*square"):
    photo.load_face(_save(tmp_path / "a.pgm", face), cropped=True)
  nearly = _save(tmp_path / "b.pgm", np.zeros((70, 64), np.uint8))
  assert photo.load_face(nearly, cropped=True).shape == (64, 64, 1)


def test_list_people(tmp_path, face):
  for name in ("Zoë", "Ada"):
    (tmp_path / name).mkdir()
    for file in ("b.PGM", "a.png", "notes.txt", ".hidden.png"):
      if file.endswith("txt"):
        (tmp_path / name / file).write_text("")
      else:
        _save(tmp_path / name / file, face)
  (tmp_path / ".cache").mkdir()
  _save(tmp_path / "stray.png", face)
  people = photo.list_people(tmp_path)
  assert list(people) == ["Ada", "Zoë"]
  assert [path.name for path in people["Ada"]] == ["a.png", "b.PGM"]
  assert all(isinstance(path, pathlib.Path) for path in people["Ada"])


def test_list_people_refuses(tmp_path):
  with pytest.raises(errors.UserError, match="does not exist"):
    photo.list_people(tmp_path / "none")
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match="is not a folder"):
    photo.list_people(tmp_path / "file")
  with pytest.raises(errors.UserError, match="no sub-folder.*--name"):
    photo.list_people(tmp_path)
  (tmp_path / "Ada").mkdir()
  with pytest.raises(errors.UserError, match="Ada holds no image"):
    photo.list_people(tmp_path)


@pytest.mark.slow
def test_real_photos(tmp_path):
  """Most single photos give one face, and so do all 12 groups.

  In the photos of several people, one is near and the others are bystanders.
  """
  with tarfile.open(shared_data.folder() / "photos.tar") as tar:
    tar.extractall(tmp_path, filter="data")
  one = {}
  for kind in ("photos", "photos_several_faces"):
    paths = sorted((tmp_path / kind).rglob("*.jpg"))
    one[kind] = 0
    for path in paths[::2] if kind == "photos" else paths:
      try:
        photo.load_face(path)
        one[kind] += 1
      except errors.UserError as error:
        assert "No face" in str(error)
  # 93 of all 100.
  assert one["photos"] >= 45
  assert one["photos_several_faces"] == 12
