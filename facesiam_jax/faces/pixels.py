"""Photos as arrays: grey or RGB, uint8."""

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import IO

import numpy as np
import PIL.Image
import PIL.ImageOps

from facesiam_jax import errors

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


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
  """Returns the pixels of an image file, turned upright as its EXIF says.

  16-bit values are divided by 257; a palette becomes colours; what is
  transparent is laid on white; of an animation the first frame is taken.

  Args:
    path: a JPEG, PNG, WebP, BMP, GIF, TIFF, PGM or PPM file.

  Returns:
    uint8 [H, W] for a grey file, uint8 [H, W, 3] (RGB) for any other.

  Raises:
    UserError: if the file is missing, a folder, empty, unreadable, damaged, too
      large or no image.
  """
  path = pathlib.Path(path)
  _check_file(path)
  return decode(path, path)


def decode(
  file: str | os.PathLike[str] | IO[bytes],
  path: str | os.PathLike[str],
  *,
  max_pixels: int | None = None,
) -> np.ndarray:
  """Returns what `read_image` does, of a file that may be in memory.

  Args:
    file: a path, or the open file.
    path: what to call it in messages.
    max_pixels: more are refused before they are decoded; None takes Pillow's
      limit.

  Returns:
    uint8 [H, W] for a grey file, uint8 [H, W, 3] (RGB) for any other.

  Raises:
    UserError: if it cannot be read, or is a damaged, too large or no image.
  """
  limit = max_pixels or PIL.Image.MAX_IMAGE_PIXELS or 0
  try:
    with opened(file) as image:
      # Not left to Pillow's warning, which another thread may have silenced.
      if 0 < limit < image.width * image.height:
        raise PIL.Image.DecompressionBombError
      return upright(image)
  except PermissionError as error:
    raise errors.UserError(
      f"{path} cannot be read: give yourself permission with"
      f" `chmod u+r {path}`."
    ) from error
  except (
    PIL.Image.DecompressionBombWarning,
    PIL.Image.DecompressionBombError,
    MemoryError,
  ) as error:
    raise errors.UserError(
      f"{path} has too many pixels to be opened safely (more than"
      f" {limit / 1e6:.3g} million): scale it down first."
    ) from error
  except PIL.UnidentifiedImageError as error:
    raise errors.UserError(
      f"{path} is not an image of a known format: give a JPEG, PNG, WebP, BMP,"
      " TIFF, GIF, PGM or PPM file."
    ) from error
  # A decoder meets a damaged file in its own way: OSError, SyntaxError,
  # ValueError, struct.error, zlib.error and more.
  except Exception as error:
    problem = " ".join(str(error).split())
    raise errors.UserError(
      f"{path} is damaged or cut short ({problem}): copy or export it again."
    ) from error


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


def _check_file(path: pathlib.Path) -> None:
  try:
    if not path.exists():
      raise errors.UserError(f"{path} does not exist: check the path.")
    if path.is_dir():
      raise errors.UserError(
        f"{path} is a folder: give the image files in it, as {path}/*.jpg."
      )
    if not path.is_file():
      # A pipe would wait for ever.
      raise errors.UserError(f"{path} is no file: give an image file.")
    if not path.stat().st_size:
      raise errors.UserError(f"{path} is empty (0 bytes): copy it again.")
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read ({error.strerror}): check the path and its"
      " permissions."
    ) from error
