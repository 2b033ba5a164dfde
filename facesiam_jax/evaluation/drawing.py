"""Drawing by hand: faces, frames and lines of text at given places.

A canvas is one axes in units of a face's side, y downwards.
"""

import io
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from facesiam_jax.evaluation import figures
from facesiam_jax.evaluation.figures import INK

_WARNING = "#b3261e"


def canvas(width: float, height: float, *, scale: float) -> tuple[Figure, Axes]:
  """A figure of width x height face sides, `scale` inches each, y downwards."""
  margin = 0.18
  figure = figures.new_figure(
    (width + 2 * margin) * scale, (height + 2 * margin) * scale
  )
  figure.set_layout_engine("none")
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set_axis_off()
  axes.set(xlim=(-margin, width + margin), ylim=(height + margin, -margin))
  axes.set_autoscale_on(False)
  return figure, axes


def pixels(image: ArrayLike) -> np.ndarray:
  """A face as matplotlib wants it: [H, W] or [H, W, 3]."""
  values = np.asarray(image)
  if values.dtype != np.uint8 or values.ndim not in (2, 3):
    raise ValueError(
      f"a face must be uint8 [H, W] or [H, W, C], got {values.dtype} "
      f"{values.shape}"
    )
  if values.ndim == 3 and values.shape[-1] == 1:
    values = values[..., 0]
  return values


def gray(values: np.ndarray) -> dict[str, Any]:
  """How to show pixels without colours: 0 is black, 255 white."""
  return {"cmap": "gray", "vmin": 0, "vmax": 255} if values.ndim == 2 else {}


def face(
  axes: Axes, image: ArrayLike, x: float, y: float, *, side: float = 1.0
) -> None:
  """Draws a face into the square at (x, y), keeping its proportions."""
  shown = pixels(image)
  height, width = shown.shape[:2]
  dx, dy = side * width / max(height, width), side * height / max(height, width)
  left, top = x + (side - dx) / 2, y + (side - dy) / 2
  axes.imshow(
    shown, extent=(left, left + dx, top + dy, top), aspect="auto",
    interpolation="bicubic", **gray(shown),
  )  # fmt: skip


def frame(
  axes: Axes,
  x: float,
  y: float,
  width: float,
  height: float,
  color: str,
  linewidth: float,
  *,
  linestyle: Any = "-",
) -> None:
  """Draws the outline of the rectangle whose upper left end is (x, y)."""
  axes.add_patch(
    Rectangle(
      (x, y),
      width,
      height,
      fill=False,
      edgecolor=color,
      linewidth=linewidth,
      linestyle=linestyle,
      joinstyle="miter",
    )  # fmt: skip
  )


def text(
  axes: Axes,
  x: float,
  y: float,
  text: str,
  *,
  size: float = 9,
  color: str = INK,
  weight: str = "normal",
  ha: str = "center",
) -> None:
  """Writes a line of text at (x, y), a name's dollar signs as they are."""
  axes.text(
    x, y, clean(text), fontsize=size, color=color, fontweight=weight, ha=ha,
    va="center", parse_math=False,
  )  # fmt: skip


def clean(text: str) -> str:
  """Text on one line, whatever a person was named."""
  return " ".join(text.split())


def short(name: str, length: int) -> str:
  name = clean(name)
  if len(name) <= length:
    return name
  return name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def stamped(png: bytes, warning: str) -> bytes:
  """Returns a picture with a line of warning above it.

  Args:
    png: the picture.
    warning: one line, which takes a twentieth of the height or less.

  Returns:
    A taller PNG of the same width.
  """
  with Image.open(io.BytesIO(png)) as file:
    picture = file.convert("RGB")
  path = font_manager.findfont("DejaVu Sans")
  size = max(12, picture.height // 30)
  while size > 8 and ImageFont.truetype(path, size).getlength(warning) > (
    picture.width - size
  ):
    size -= 1
  strip = 2 * size
  whole = Image.new("RGB", (picture.width, picture.height + strip), _WARNING)
  whole.paste(picture, (0, strip))
  ImageDraw.Draw(whole).text(
    (size // 2, strip // 2),
    warning,
    fill="white",
    font=ImageFont.truetype(path, size),
    anchor="lm",
  )
  out = io.BytesIO()
  whole.save(out, "PNG")
  return out.getvalue()
