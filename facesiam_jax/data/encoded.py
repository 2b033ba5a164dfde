"""Encoded images: whether they can be used, and in the form to keep.

What a data set keeps is a JPEG or PNG of 8 bits, grey or RGB, upright, so that
any reader sees the same pixels. Most published images are that already and keep
their bytes; the others are read as `faces.photo.read_image` reads them and
written as PNG, which loses nothing more.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image

from facesiam_jax.faces import pixels as pixels_lib

# Fewer pixels than this a side show no face.
MIN_SIDE = 8

_ORIENTATION = 0x0112
_PLAIN_FORMATS = ("JPEG", "PNG")


class BadImage(Exception):
  """An image that cannot be used.

  Attributes:
    kind: what is wrong with it, the same words for all such images, to follow
      "images that".
  """

  def __init__(self, kind: str) -> None:
    super().__init__(kind)
    self.kind = kind


class Kept(NamedTuple):
  """An image in the form that a data set keeps.

  Attributes:
    data: a JPEG or PNG of 8 bits, grey or RGB, upright.
    changed: whether these are other bytes than were given.
  """

  data: bytes
  changed: bool


def decode(data: bytes) -> np.ndarray:
  """Returns the pixels of an image of a data set.

  By OpenCV: 0.13 ms of processor time for a JPEG of 112x112, where Pillow
  takes 0.32 (the same pixels), and other threads run meanwhile.

  Args:
    data: a JPEG or PNG, as `keep` gives it.

  Returns:
    uint8 [H, W, 3], RGB; a grey image has three equal channels. Alpha is
    dropped, 16 bits become 8, EXIF is not looked at.

  Raises:
    ValueError: if the bytes are no image that OpenCV reads.
  """
  raw = np.frombuffer(data, np.uint8)
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  pixels = cv2.imdecode(raw, flags) if raw.size else None
  if pixels is None:
    raise ValueError(f"{len(data)} bytes that are no JPEG or PNG.")
  return pixels


def face(
  pixels: np.ndarray, shape: tuple[int, int, int], crop: float = 1.0
) -> np.ndarray:
  """Makes an image of a data set the face that a network gets.

  Args:
    pixels: uint8 [h, w] or [h, w, 3].
    shape: (H, W, C) of the face, C 1 (grey) or 3 (RGB). H and W are equal, or
      those of the image.
    crop: as in `square`.

  Returns:
    uint8 [H, W, C].

  Raises:
    ValueError: if the image is not of an oblong shape that is asked for.
  """
  height, width, channels = shape
  gray = channels == 1
  pixels = pixels_lib.to_gray(pixels) if gray else pixels_lib.to_rgb(pixels)
  if height != width and pixels.shape[:2] != (height, width):
    raise ValueError(f"its shape is {pixels.shape[:2]}, not {height, width}.")
  if height == width:
    pixels = square(pixels, height, crop=crop)
  return pixels.reshape(shape)


def keep(
  data: bytes,
  size: int | None = None,
  box: tuple[float, float, float] | None = None,
) -> Kept:
  """Checks an encoded image by decoding it, and returns what to keep.

  Args:
    data: as in `decode`.
    size: side to which its middle square is scaled, pixels; None keeps the
      image as it is.
    box: left and top of a square and its side, parts of the image's width,
      height and width; the rest is cut off before. None keeps all.

  Returns:
    The given bytes where they are an upright 8-bit JPEG or PNG and neither size
    nor box is asked for; else a PNG.

  Raises:
    BadImage: if it is empty, no image, has too many pixels to be opened safely
      (told from its head, before anything is decoded), is damaged or cut
      short, or has a side below `MIN_SIDE`.
  """
  pixels, plain = _decode(data)
  if size is None and box is None and plain and _decodes(data, pixels):
    return Kept(data, changed=False)
  if box is not None:
    pixels = _cut(pixels, *box)
  if size is not None:
    pixels = square(pixels, size)
  png = io.BytesIO()
  PIL.Image.fromarray(pixels).save(png, format="PNG")
  return Kept(png.getvalue(), changed=True)


def square(pixels: np.ndarray, size: int, *, crop: float = 1.0) -> np.ndarray:
  """Scales the square in the middle of an image.

  Args:
    pixels: uint8 [H, W] or [H, W, C].
    size: side of the result, pixels.
    crop: side of the square as a share of the shorter side, in (0, 1].

  Returns:
    uint8 [size, size] or [size, size, C]: means over areas where that is
    smaller, cubic interpolation where it is larger.
  """
  height, width = pixels.shape[:2]
  side = max(1, round(min(height, width) * crop))
  top, left = (height - side) // 2, (width - side) // 2
  middle = pixels[top : top + side, left : left + side]
  if side == size:
    return middle
  method = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
  scaled = cv2.resize(middle, (size, size), interpolation=method)
  # OpenCV drops the axis of a single channel.
  return scaled.reshape(size, size, *pixels.shape[2:])


def _decodes(data: bytes, pixels: np.ndarray) -> bool:
  """Whether OpenCV reads it too: Pillow bears more damage in a PNG."""
  try:
    return decode(data).shape[:2] == pixels.shape[:2]
  except ValueError:
    return False


def _cut(
  pixels: np.ndarray, left: float, top: float, side: float
) -> np.ndarray:
  """Returns the square of a box as in `keep`, to the nearest pixel."""
  height, width = pixels.shape[:2]
  x, y, long = round(left * width), round(top * height), round(side * width)
  return pixels[y : y + long, x : x + long]


def _decode(data: bytes) -> tuple[np.ndarray, bool]:
  """Returns upright pixels, and whether any reader would see the same."""
  if not data:
    raise BadImage("are empty (0 bytes)")
  try:
    with pixels_lib.opened(io.BytesIO(data)) as image:
      if min(image.size) < MIN_SIDE:
        raise BadImage(f"have a side below {MIN_SIDE} pixels")
      image.load()
      plain = _is_plain(image, data)
      pixels = pixels_lib.upright(image)
  except BadImage:
    raise
  except (
    PIL.Image.DecompressionBombWarning,
    PIL.Image.DecompressionBombError,
    MemoryError,
  ) as error:
    raise BadImage("have too many pixels to be opened safely") from error
  except PIL.UnidentifiedImageError as error:
    raise BadImage("are no images of a known format") from error
  # A decoder meets a damaged file in its own way: OSError, SyntaxError,
  # ValueError, struct.error, zlib.error and more.
  except Exception as error:
    raise BadImage("are damaged or cut short") from error
  return pixels, plain


def _is_plain(image: PIL.Image.Image, data: bytes) -> bool:
  upright = image.getexif().get(_ORIENTATION, 1) == 1
  # Byte 24 of a PNG is its bits a channel; Pillow shows 16 as 8.
  eight = image.format != "PNG" or data[24] == 8
  return (
    image.format in _PLAIN_FORMATS
    and image.mode in ("L", "RGB")
    and getattr(image, "n_frames", 1) == 1
    and not image.has_transparency_data
    and upright
    and eight
  )
