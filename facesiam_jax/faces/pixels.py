"""Photos as arrays: grey or RGB, uint8."""

import numpy as np
import PIL.Image


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
