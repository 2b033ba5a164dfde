"""Encoded images: which are kept as they are, which are changed, which not."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from facesiam_jax.data import encoded
from facesiam_jax.faces import photo
from tests.data import fake_sets


def _decoded(data):
  return np.asarray(PIL.Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_images_keep_their_bytes(kind, mode):
  data = fake_sets.encode(fake_sets.pixels(1, mode=mode), kind)
  assert encoded.keep(data) == (data, False)
  want = photo.to_rgb(_decoded(data))
  np.testing.assert_array_equal(encoded.decode(data), want)


def _exif(turn):
  exif = PIL.Image.Exif()
  exif[0x0112] = turn
  return {"exif": exif}


def _wide_png(image):
  ok, data = cv2.imencode(".png", np.asarray(image).astype(np.uint16) * 257)
  assert ok
  return data.tobytes()


def _animation(image):
  frames = [fake_sets.pixels(9, image.size)]
  return fake_sets.encode(image, "PNG", save_all=True, append_images=frames)


def _alpha(image):
  return fake_sets.encode(image.convert("RGBA"), "PNG")


def _palette(image):
  return fake_sets.encode(image.quantize(5), "PNG")


CHANGED = {
  "webp": lambda image: fake_sets.encode(image, "WEBP", lossless=True),
  "bmp": lambda image: fake_sets.encode(image, "BMP"),
  "gif": lambda image: fake_sets.encode(image, "GIF"),
  "cmyk": lambda image: fake_sets.encode(image.convert("CMYK"), "JPEG"),
  "turned": lambda image: fake_sets.encode(image, "JPEG", **_exif(6)),
  "mirrored": lambda image: fake_sets.encode(image, "PNG", **_exif(2)),
  "sixteen bits": _wide_png,
  "animated": _animation,
  "alpha": _alpha,
  "palette": _palette,
}


@pytest.mark.parametrize("name", CHANGED)
def test_other_images_become_what_any_reader_shows_alike(name, tmp_path):
  data = CHANGED[name](fake_sets.pixels(3, (24, 16)))
  kept = encoded.keep(data)
  assert kept.changed and encoded.keep(kept.data) == (kept.data, False)
  (tmp_path / "x").write_bytes(data)
  want = photo.read_image(tmp_path / "x")
  np.testing.assert_array_equal(encoded.decode(kept.data), want)
  np.testing.assert_array_equal(_decoded(kept.data), want)
  # Another decoder, which knows no EXIF and keeps 16 bits and alpha.
  pixels = cv2.imdecode(np.frombuffer(kept.data, np.uint8), -1)
  assert pixels.dtype == np.uint8
  np.testing.assert_array_equal(pixels[..., ::-1], want)
  assert want.shape[:2] == ((24, 16) if name == "turned" else (16, 24))


def test_what_one_decoder_alone_bears_is_written_anew():
  data = bytearray(fake_sets.encode(fake_sets.pixels(3, (24, 16)), "PNG"))
  start = data.index(b"IDAT")
  length = int.from_bytes(data[start - 4 : start], "big")
  # The checksum of the chunk, which Pillow passes over and OpenCV does not.
  data[start + 4 + length] ^= 1
  with pytest.raises(ValueError, match="no JPEG or PNG"):
    encoded.decode(bytes(data))
  kept = encoded.keep(bytes(data))
  assert kept.changed
  want = np.asarray(fake_sets.pixels(3, (24, 16)))
  np.testing.assert_array_equal(encoded.decode(kept.data), want)


def _bomb(width, height):
  """A PNG whose head says so many pixels, and that has none of them."""
  head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  chunks = b""
  for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b""))):
    crc = zlib.crc32(kind + body)
    chunks += struct.pack(">I", len(body)) + kind + body
    chunks += struct.pack(">I", crc)
  return b"\x89PNG\r\n\x1a\n" + chunks


GOOD = fake_sets.jpeg(5, (64, 48))
BAD = {
  "empty": (b"", "empty"),
  "no image": (b"hello, world" * 9, "known format"),
  "html": (b"<!DOCTYPE html><html>404</html>", "known format"),
  "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "known format"),
  "half": (GOOD[: len(GOOD) // 2], "damaged"),
  "last bytes gone": (GOOD[:-40], "damaged"),
  "head alone": (GOOD[:30], "damaged|known format"),
  "bomb": (_bomb(30_000, 30_000), "too many pixels"),
  "larger than the limit": (_bomb(10_000, 9_000), "too many pixels"),
  "1x1": (fake_sets.encode(fake_sets.pixels(0, (1, 1)), "PNG"), "a side below"),
  "narrow": (fake_sets.jpeg(0, (100, 7)), "a side below"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_named_by_kind(name):
  data, match = BAD[name]
  with pytest.raises(encoded.BadImage, match=match):
    encoded.keep(data)


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
  def decoded(self):
    raise AssertionError("it was decoded")

  monkeypatch.setattr(PIL.Image.Image, "load", decoded)
  with pytest.raises(encoded.BadImage, match="too many pixels"):
    encoded.keep(BAD["bomb"][0])


@pytest.mark.parametrize("shape", [(30, 40, 3), (40, 30), (31, 40, 1)])
def test_the_square_is_the_middle(shape):
  values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  side = min(shape[:2])
  got = encoded.square(values, side)
  top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
  want = values[top : top + side, left : left + side]
  np.testing.assert_array_equal(got, want)
  half = encoded.square(values, side // 2, crop=0.5)
  assert half.shape == (side // 2, side // 2, *shape[2:])
  inner = round(side / 2)
  top, left = (shape[0] - inner) // 2, (shape[1] - inner) // 2
  if inner == side // 2:
    want = values[top : top + inner, left : left + inner]
    np.testing.assert_array_equal(half, want)


def test_smaller_is_a_mean_over_areas_and_larger_keeps_the_range():
  values = np.random.default_rng(0).integers(0, 256, (24, 24, 3))
  values = values.astype(np.uint8)
  want = values.reshape(8, 3, 8, 3, 3).mean((1, 3))
  np.testing.assert_allclose(encoded.square(values, 8), want, atol=0.51)
  assert encoded.square(values, 100).shape == (100, 100, 3)
  assert encoded.square(values[..., :1], 9).shape == (9, 9, 1)


def test_size_makes_a_small_png():
  data = fake_sets.jpeg(2, (60, 40))
  kept = encoded.keep(data, 16)
  assert kept.changed
  want = encoded.square(_decoded(data), 16)
  np.testing.assert_array_equal(_decoded(kept.data), want)


@pytest.mark.parametrize("size", [None, 16])
def test_a_box_is_cut_out_first(size):
  data = fake_sets.encode(fake_sets.pixels(3, (60, 40)), "PNG")
  kept = encoded.keep(data, size, (0.25, 0.2, 0.5))
  assert kept.changed
  # 60 wide, 40 high: left 15, top 8, side 30.
  want = _decoded(data)[8:38, 15:45]
  if size:
    want = encoded.square(want, size)
  np.testing.assert_array_equal(_decoded(kept.data), want)
