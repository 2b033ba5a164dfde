"""Figures: ROC, DET, score histograms, training curves, faces with scores.

Each function returns a matplotlib Figure drawn through the object API; no
global state of pyplot is touched. `png_bytes` renders one. The colours are
those of Okabe and Ito, which colour-blind readers can tell apart, and no
meaning is carried by colour alone.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike
from PIL import Image, ImageColor

from facesiam_jax.evaluation import deviates
from facesiam_jax.metrics import tally as tally_lib
from facesiam_jax.metrics import verification

BLUE, VERMILLION = "#0072B2", "#D55E00"
INK, MUTED, PALE = "#1F2933", "#6B7480", "#DDE1E6"
# Baselines, in order; line styles differ too.
OTHERS = (
  ("#E69F00", "--"),
  ("#CC79A7", "-."),
  ("#009E73", ":"),
  ("#56B4E9", (0, (5, 1, 1, 1, 1, 1))),
)

SCORE_LABEL = (
  "Score (logit of \N{LEFT DOUBLE QUOTATION MARK}same person"
  "\N{RIGHT DOUBLE QUOTATION MARK})"
)

Scored = tuple[ArrayLike, ArrayLike]
Band = tuple[np.ndarray, np.ndarray]
Series = tuple[Sequence[float], Sequence[float]]

_DPI = 130
_COLORS = 140
_DET_TICKS = (
  0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9,
  0.95, 0.99, 0.999,
)  # fmt: skip
_MAX_RAW_POINTS = 200
_BAND: dict[str, Any] = {
  "color": BLUE, "alpha": 0.18, "linewidth": 0, "label": "95% over people"
}  # fmt: skip


def new_figure(width: float, height: float) -> Figure:
  """Returns an empty white Figure, in inches, that draws without a display."""
  figure = Figure(
    figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white"
  )
  FigureCanvasAgg(figure)
  layout = figure.get_layout_engine()
  if isinstance(layout, ConstrainedLayoutEngine):
    layout.set(w_pad=0.14, h_pad=0.12)
  return figure


def png_bytes(figure: Figure, *, all_colors: bool = False) -> bytes:
  """Renders a Figure as PNG.

  The picture is reduced to 140 colours, enough for greys and a few line
  colours, at about a third of the bytes; `all_colors` keeps those of a photo.
  """
  canvas = FigureCanvasAgg(figure)
  with warnings.catch_warnings():
    # A name in a script the font lacks is drawn as boxes; that is no fault.
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    canvas.draw()
  picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
  buffer = io.BytesIO()
  if not all_colors:
    picture = _reduce_colors(picture)
  picture.save(buffer, "PNG", optimize=True)
  return buffer.getvalue()


def _reduce_colors(picture: Image.Image) -> Image.Image:
  """Draws the picture in its own best colours and our line colours' tints.

  Without the second part a thin frame among many greys would lose its colour.
  """
  tints = [
    round(255 + strength * (channel - 255))
    for color in (BLUE, VERMILLION, *(color for color, _ in OTHERS))
    for strength in (1, 0.75, 0.5, 0.25)
    for channel in ImageColor.getrgb(color)
  ]
  for color in (INK, MUTED):
    tints += ImageColor.getrgb(color)
  # Greys that are rare in the picture, highlights say, and black and white.
  tints += np.repeat(np.arange(0, 256, 15), 3).tolist()
  num = _COLORS - len(tints) // 3
  own = picture.quantize(num, dither=Image.Dither.NONE).getpalette() or []
  palette = np.array(own[: 3 * num] + tints, np.int32).reshape(-1, 3)
  # Pillow maps to a given palette by coarse boxes, which turns white to grey.
  channels = np.asarray(picture, np.int32)
  packed = channels @ np.array([1 << 16, 1 << 8, 1], np.int32)
  found, index = np.unique(packed, return_inverse=True)
  colors = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
  errors = np.square(colors[:, None] - palette[None]).sum(axis=-1)
  nearest = errors.argmin(axis=1).astype(np.uint8)
  reduced = Image.fromarray(nearest[index.reshape(packed.shape)])
  reduced.putpalette(palette.astype(np.uint8).tobytes())
  return reduced


def number(value: float) -> str:
  """A score in print: two decimals and a true minus sign."""
  return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def roc_figure(
  systems: Mapping[str, Scored],
  *,
  threshold: float | None = None,
  band: Band | None = None,
) -> Figure:
  """Draws ROC curves.

  Args:
    systems: name -> (scores [P], same [P]); the first is the one reported on,
      the others are baselines.
    threshold: marks this decision threshold on the first curve.
    band: of the first curve: false match rates [M] and the ends of the true
      accept rate there [2, M].

  Returns:
    The Figure.

  Raises:
    ValueError: as `facesiam_jax.metrics.verification.roc`.
  """
  figure = new_figure(6.1, 5.6)
  axes = add_axes(figure, "False match rate", "True accept rate")
  axes.plot([0, 1], [1, 0], color=PALE, linewidth=1, zorder=0)
  if band is not None:
    axes.fill_between(band[0], *band[1], **_BAND)
  axes.text(
    0.5, 0.5, "FMR = FNMR", rotation=-45, color=MUTED, fontsize=8,
    ha="center", va="bottom", rotation_mode="anchor",
    transform_rotates_text=True,
  )  # fmt: skip
  for (name, scored), style in zip(
    systems.items(), line_styles(len(systems)), strict=True
  ):
    curve = deviates.corners(verification.det_points(*scored))
    label = f"{name} (EER {verification.eer(*scored).rocch:.1%})"
    axes.plot(curve.fmr, 1 - curve.fnmr, label=label, **style)
  if threshold is not None:
    rates = verification.error_rates_at(
      *next(iter(systems.values())), threshold
    )
    _mark_threshold(axes, rates.fmr, 1 - rates.fnmr, threshold)
  axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
  legend(axes, loc="lower right")
  return figure


def det_figure(
  systems: Mapping[str, Scored],
  *,
  threshold: float | None = None,
  band: Band | None = None,
) -> Figure:
  """Draws detection error trade-off curves on normal-deviate axes.

  Args:
    systems: name -> (scores [P], same [P]); the first is the one reported on.
    threshold: marks this decision threshold on the first curve.
    band: of the first curve: false match rates [M] and the ends of the true
      accept rate there [2, M].

  Returns:
    The Figure; towards rates of 0 and 1, which lie at infinity, a curve leaves
    it.

  Raises:
    ValueError: as `facesiam_jax.metrics.verification.roc`.
  """
  figure = new_figure(6.1, 5.6)
  axes = add_axes(figure, "False match rate", "False non-match rate")
  dets = {
    n: deviates.corners(verification.det_points(*s)) for n, s in systems.items()
  }
  low, high = deviates.det_range(list(dets.values()))
  ends = deviates.deviate([low, high])
  axes.plot(ends, ends, color=PALE, linewidth=1, zorder=0)
  if band is not None:
    least, most = (deviates.deviate(1 - tars) for tars in band[1])
    axes.fill_between(deviates.deviate(band[0]), least, most, **_BAND)
  for (name, det), style in zip(
    dets.items(), line_styles(len(dets)), strict=True
  ):
    axes.plot(
      deviates.deviate(det.fmr), deviates.deviate(det.fnmr), label=name, **style
    )
  if threshold is not None:
    rates = verification.error_rates_at(
      *next(iter(systems.values())), threshold
    )
    x, y = deviates.deviate(np.clip(rates, low, high))
    _mark_threshold(axes, x, y, threshold)
  ticks = [t for t in _DET_TICKS if low <= t <= high]
  labels = [f"{100 * t:g}%" for t in ticks]
  axes.set_xticks(deviates.deviate(ticks), labels)
  axes.set_yticks(deviates.deviate(ticks), labels)
  axes.tick_params(axis="x", rotation=45)
  axes.set(xlim=ends, ylim=ends, aspect="equal")
  legend(axes, loc="upper right")
  return figure


def scores_figure(
  scores: ArrayLike,
  same: ArrayLike,
  *,
  threshold: float | None = None,
  label: str = SCORE_LABEL,
) -> Figure:
  """Draws the histograms of genuine and of impostor scores.

  Args:
    scores: similarity of each pair, float [P].
    same: 1 = same person, [P].
    threshold: drawn as a vertical line.
    label: of the horizontal axis.

  Returns:
    The Figure; each histogram sums to 100 % of its own kind of pair.

  Raises:
    ValueError: as `facesiam_jax.metrics.verification.roc`.
  """
  checked, labels = tally_lib.check_pairs(scores, same)
  figure = new_figure(7.2, 4.2)
  axes = add_axes(figure, label, "Share of the pairs of that kind")
  edges = np.histogram_bin_edges(checked.astype(np.float64), bins=60).tolist()
  for name, chosen, color, hatch in (
    ("Different people", ~labels, VERMILLION, "////"),
    ("Same person", labels, BLUE, None),
  ):
    share = np.full(int(chosen.sum()), 1 / chosen.sum())
    axes.hist(
      checked[chosen], edges, weights=share, histtype="stepfilled",
      facecolor=(color, 0.25), edgecolor=color, linewidth=1.4, hatch=hatch,
      hatch_linewidth=0.4, label=f"{name} ({int(chosen.sum()):,} pairs)",
    )  # fmt: skip
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1))
  axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
  left, right = axes.get_xlim()
  # On the side where the threshold and its label are not.
  middle = (left + right) / 2
  on_left = threshold is not None and threshold > middle
  legend(axes, loc="upper left" if on_left else "upper right")
  if threshold is not None:
    _threshold_line(axes, threshold)
    rates = verification.error_rates_at(checked, labels, threshold)
    axes.set_title(
      f"At the threshold: {rates.fmr:.1%} of different people accepted, "
      f"{rates.fnmr:.1%} of same-person pairs rejected",
      fontsize=9.5, color=INK, loc="left",
    )  # fmt: skip
  return figure


def curves_figure(
  curves: Mapping[str, Series], *, unit: str = "epoch"
) -> Figure:
  """Draws training and validation curves, one panel for each quantity.

  Args:
    curves: "training_loss", "validation_loss", "training_accuracy",
      "validation_accuracy" or the like -> (positions, values); what follows the
      first underscore names the panel.
    unit: of the positions, "epoch" or "step".

  Returns:
    The Figure; a curve of more than 200 points is drawn pale, with its running
    mean on top.

  Raises:
    ValueError: if there is no curve, or positions and values differ in number.
  """
  panels: dict[str, dict[str, Series]] = {}
  for name, series in curves.items():
    part, _, quantity = name.partition("_")
    panels.setdefault(quantity or part, {})[part] = series
  if not panels:
    raise ValueError("curves must hold at least one curve")
  figure = new_figure(4.6 * len(panels) + 0.6, 3.6)
  grid = figure.subplots(1, len(panels), squeeze=False)[0]
  for axes, (quantity, parts) in zip(grid, panels.items(), strict=True):
    style_axes(axes, unit.capitalize(), quantity.replace("_", " ").capitalize())
    for part, (positions, values) in parts.items():
      style = (VERMILLION, "--") if part == "validation" else (BLUE, "-")
      _curve(axes, part.capitalize(), positions, values, style)
    if "accuracy" in quantity:
      axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
    legend(axes, loc="best")
  return figure


def _curve(
  axes: Axes,
  label: str,
  positions: Sequence[float],
  values: Sequence[float],
  style: tuple[str, str],
) -> None:
  x, y = np.asarray(positions, float), np.asarray(values, float)
  if x.shape != y.shape:
    raise ValueError(
      f"curves: {label} has {x.size} positions and {y.size} values"
    )
  color, line = style
  if x.size > _MAX_RAW_POINTS:
    axes.plot(x, y, color=color, alpha=0.2, linewidth=0.6)
    width = x.size // 50
    y = np.convolve(y, np.full(width, 1 / width), "valid")
    x = x[width - 1 :]
  axes.plot(x, y, color=color, linestyle=line, linewidth=1.8, label=label)


def add_axes(figure: Figure, x_label: str, y_label: str) -> Axes:
  """Adds axes in our style, with labels."""
  axes = figure.add_subplot()
  style_axes(axes, x_label, y_label)
  return axes


def style_axes(axes: Axes, x_label: str, y_label: str) -> None:
  axes.spines[["top", "right"]].set_visible(False)
  axes.spines[["left", "bottom"]].set_color(MUTED)
  axes.grid(color=PALE, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.tick_params(colors=INK, labelsize=9, color=MUTED)
  axes.set_xlabel(x_label, fontsize=10.5, color=INK)
  axes.set_ylabel(y_label, fontsize=10.5, color=INK)


def legend(axes: Axes, loc: str) -> None:
  """Adds the legend."""
  axes.legend(
    loc=loc, fontsize=9, frameon=True, framealpha=0.92, edgecolor="none"
  )


def line_styles(num: int) -> list[dict[str, Any]]:
  """Styles of lines that differ without colour; the first is the main one."""
  main = {"color": BLUE, "linestyle": "-", "linewidth": 2.2, "zorder": 3}
  others = [
    {"color": color, "linestyle": line, "linewidth": 1.5}
    for color, line in (OTHERS * num)[: num - 1]
  ]
  return [main, *others]


def _mark_threshold(axes: Axes, x: float, y: float, threshold: float) -> None:
  axes.plot(
    [x], [y], marker="o", markersize=9, markerfacecolor="white",
    markeredgecolor=INK, markeredgewidth=1.8, linestyle="none", zorder=4,
    label=f"Decision threshold {number(threshold)}",
  )  # fmt: skip


def _threshold_line(axes: Axes, threshold: float) -> None:
  axes.axvline(threshold, color=INK, linewidth=1.4, linestyle="--", zorder=5)
  left, right = axes.get_xlim()
  on_right = threshold < (left + right) / 2
  axes.annotate(
    f"threshold {number(threshold)}", (threshold, 1),
    xycoords=("data", "axes fraction"),
    xytext=(5 if on_right else -5, -4), textcoords="offset points",
    ha="left" if on_right else "right", va="top", fontsize=9, color=INK,
    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
    zorder=6,
  )  # fmt: skip
