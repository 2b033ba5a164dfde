"""Photos as arrays: grey or RGB, uint8."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
import PIL.Image
import PIL.ImageOps

# Pillow knows more formats; some of them call other programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@contextlib.contextmanager
def opened(
  file: str | os.PathLike[str] | IO[bytes],
) -> Iterator[PIL.Image.Image]:
  """Opens an encoded image, of which only the head is read yet.

  Args:
    file: its path, or the open file.

  Yields:
    The image; too many pixels to be decoded safely are an error, here and
    while it is open.

  Raises:
    DecompressionBombWarning, DecompressionBombError: Pillow's, for those.
    UnidentifiedImageError: for no image, or one of another format.
  """
  with warnings.catch_warnings():
    # Pillow also warns about odd metadata, which is harmless here.
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
    with PIL.Image.open(file, formats=_FORMATS) as image:
      yield image


def upright(image: PIL.Image.Image) -> np.ndarray:
  """Decodes an opened image of any mode and turns it as its EXIF says.

  Args:
    image: from `opened`.

  Returns:
    uint8 [H, W] for a grey image, uint8 [H, W, 3] (RGB) for any other.

  Raises:
    ValueError: if its pixels are floating-point numbers. Damage shows in
      whatever way its decoder has.
  """
  image.load()
  return _to_uint8(PIL.ImageOps.exif_transpose(image))


def to_gray(pixels: np.ndarray) -> np.ndarray:
  """Makes RGB pixels grey by 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

  Args:
    pixels: uint8 [H, W] or [H, W, 3].

  Returns:
    uint8 [H, W]; grey pixels as they are.
  """
  if pixels.ndim == 2:
    return pixels
  return np.asarray(PIL.Image.fromarray(pixels).convert("L"))


def to_rgb(pixels: np.ndarray) -> np.ndarray:
  """Gives grey pixels three equal channels.

  Args:
    pixels: uint8 [H, W] or [H, W, 3].

  Returns:
    uint8 [H, W, 3]; RGB pixels as they are.
  """
  if pixels.ndim == 3:
    return pixels
  return np.repeat(pixels[..., None], 3, axis=2)


def _to_uint8(image: PIL.Image.Image) -> np.ndarray:
  """Returns the pixels of an upright Pillow image of any mode."""
  if image.mode in ("1", "L"):
    return np.asarray(image.convert("L"))
  if image.mode.startswith("I"):
    wide = np.asarray(image, np.int64)
    return np.clip((wide + 128) // 257, 0, 255).astype(np.uint8)
  if image.mode == "F":
    raise ValueError("its pixels are floating-point numbers without a range")
  if image.has_transparency_data:
    colours = image.convert("RGBA")
    white = PIL.Image.new("RGBA", colours.size, "white")
    image = PIL.Image.alpha_composite(white, colours)
  return np.asarray(image.convert("RGB"))
