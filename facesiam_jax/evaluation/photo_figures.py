"""A photo with the faces that were found in it, and who they are."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import drawing
from facesiam_jax.evaluation.figures import BLUE, VERMILLION

# Inches of the longer side, and width of a letter in parts of an inch.
_SIDE = 9.0
_LETTER = 0.085


def photo_figure(
  image: ArrayLike,
  boxes: ArrayLike,
  labels: Sequence[str],
  known: Sequence[bool],
) -> Figure:
  """Shows a photo with a box around each face and a name under it.

  Args:
    image: the photo, uint8 [H, W] or [H, W, 3].
    boxes: left, top, width and height of each face in pixels, float [N, 4].
    labels: what is written under each box, length N.
    known: whether it is drawn as somebody who was recognised, length N.

  Returns:
    The Figure, with the photo's proportions.

  Raises:
    ValueError: if the lengths differ, or the image is no photo.
  """
  shown = drawing.pixels(image)
  boxes = np.asarray(boxes, float).reshape(-1, 4)
  if not len(boxes) == len(labels) == len(known):
    raise ValueError(
      f"{len(boxes)} boxes, {len(labels)} labels and {len(known)} decisions "
      "were given; give as many of each."
    )
  height, width = shown.shape[:2]
  unit = max(height, width) / _SIDE
  # A line of text below the photo for a face at its lower end.
  figure, axes = drawing.canvas(width / unit, height / unit + 0.3, scale=1.0)
  axes.imshow(
    shown,
    extent=(0, width / unit, height / unit, 0),
    aspect="auto",
    interpolation="bilinear",
    **drawing.gray(shown),
  )
  for box, label, is_known in zip(boxes, labels, known, strict=True):
    left, top, wide, high = box / unit
    color = BLUE if is_known else VERMILLION
    drawing.frame(axes, left, top, wide, high, color, 2.5)
    text = drawing.short(label, 28)
    half = _LETTER * len(text) / 2
    # Text is kept inside the picture.
    middle = np.clip(left + wide / 2, half, max(half, width / unit - half))
    axes.text(
      middle,
      min(top + high + 0.14, height / unit + 0.16),
      text,
      fontsize=9,
      color="white",
      fontweight="bold",
      ha="center",
      va="center",
      parse_math=False,
      bbox={"facecolor": color, "edgecolor": "none", "pad": 1.5},
    )
  return figure
