"""Figures that show faces: sample pairs, the 40-way grid, one identification.

Faces, frames and scores are placed on one axes in units of a face's side, so
nothing depends on a layout engine and nothing can overlap.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import drawing, figures
from facesiam_jax.evaluation.figures import (
  BLUE,
  INK,
  MUTED,
  VERMILLION,
  number,
)
from facesiam_jax.evaluation.protocols import SamplePair

_KINDS = {
  "true accept": ("True accepts", "same person, accepted: drawn at random"),
  "false accept": ("False accepts", "different people, accepted: the worst"),
  "false reject": ("False rejects", "same person, rejected: the worst"),
}


def pairs_figure(
  images: ArrayLike, samples: Sequence[SamplePair], *, threshold: float
) -> Figure:
  """Shows sample pairs with score and verdict, one row for each kind.

  Args:
    images: faces, uint8 [N, H, W] or [N, H, W, C].
    samples: from `facesiam_jax.evaluation.sample_pairs`.
    threshold: printed in the heading.

  Returns:
    The Figure; a kind without pairs says so.

  Raises:
    ValueError: if an image is not uint8 of a known rank.
  """
  images = np.asarray(images)
  rows = {kind: [s for s in samples if s.kind == kind] for kind in _KINDS}
  columns = max(4, *(len(row) for row in rows.values()))
  figure, axes = drawing.canvas(
    columns * 2.3 - 0.2, len(rows) * 1.75, scale=0.82
  )
  for n, (kind, row) in enumerate(rows.items()):
    top = n * 1.75
    title, detail = _KINDS[kind]
    color = BLUE if kind == "true accept" else VERMILLION
    drawing.text(axes, 0, top + 0.18, title, size=11, weight="bold", ha="left")
    drawing.text(axes, 2.0, top + 0.18, detail, color=MUTED, ha="left")
    if not row:
      drawing.text(
        axes, 0, top + 0.75, "None in this set.", color=MUTED, ha="left"
      )
    for k, sample in enumerate(row):
      left = k * 2.3
      drawing.face(axes, images[sample.i], left, top + 0.32)
      drawing.face(axes, images[sample.j], left + 1.02, top + 0.32)
      drawing.frame(axes, left, top + 0.32, 2.02, 1, color, 2.2)
      sign = (
        "\N{GREATER-THAN OR EQUAL TO}" if sample.score >= threshold else "<"
      )
      verdict = f"{number(sample.score)} {sign} {number(threshold)}"
      drawing.text(axes, left + 1.01, top + 1.47, verdict)
  return figure


def grid_figure(
  probe: ArrayLike,
  references: ArrayLike,
  names: Sequence[str],
  scores: ArrayLike,
  *,
  threshold: float,
  own: int | None = None,
  title: str | None = None,
  columns: int = 8,
) -> Figure:
  """Shows a probe against one image of each person, the score under each.

  Args:
    probe: a face, uint8 [H, W] or [H, W, C].
    references: one face of each person, uint8 [P, H, W] or [P, H, W, C].
    names: name of each person, length P.
    scores: probe against each reference, float [P]; bigger is closer.
    threshold: accepted (framed) iff score >= threshold.
    own: place of the probe's own person in 0..P - 1; None if not among them.
    title: heading; None says who was accepted.
    columns: faces in a row.

  Returns:
    The Figure.

  Raises:
    ValueError: if the lengths differ, P is 0, or a score is NaN.
  """
  references, scores = np.asarray(references), np.asarray(scores, float)
  _check_people(names, scores, references)
  rows = -(-len(names) // columns)
  left, head, step = 3.1, 1.0, (1.12, 1.52)
  height = head + max(rows * step[1], 3.4) + 0.3
  figure, axes = drawing.canvas(
    left + columns * step[0] - 0.12, height, scale=0.72
  )
  accepted = scores >= threshold
  heading = title or _grid_title(accepted, own)
  # A long heading gets smaller letters: 60 of the full size fill the width.
  size = 14 * min(1.0, 60 / len(heading) * columns / 8)
  drawing.text(axes, 0, 0.3, heading, size=size, weight="bold", ha="left")
  _grid_key(axes, own is not None)
  drawing.face(axes, probe, 0, head, side=2.6)
  drawing.text(axes, 1.3, head + 2.8, "Probe", size=11, weight="bold")
  drawing.text(
    axes, 1.3, head + 3.08, f"threshold {number(threshold)}", color=MUTED
  )
  for n, name in enumerate(names):
    x = left + n % columns * step[0]
    y = head + n // columns * step[1]
    drawing.face(axes, references[n], x, y)
    color = BLUE if n == own else VERMILLION
    if accepted[n]:
      drawing.frame(axes, x, y, 1, 1, color, 3.2)
    elif n == own:
      drawing.frame(axes, x, y, 1, 1, color, 2.2, linestyle=(0, (2, 1.2)))
    strong = bool(accepted[n]) or n == own
    weight = "bold" if strong else "normal"
    ink = color if strong else INK
    drawing.text(
      axes, x + 0.5, y + 1.14, number(scores[n]), color=ink, weight=weight
    )
    drawing.text(
      axes, x + 0.5, y + 1.33, drawing.short(name, 12), color=MUTED, size=6.5
    )
  return figure


def _grid_title(accepted: np.ndarray, own: int | None) -> str:
  strangers = int(accepted.sum())
  if own is None:
    return f"{strangers} of {accepted.size} people accepted"
  strangers -= int(accepted[own])
  verdict = "accepted" if accepted[own] else "rejected"
  return (
    f"Own person {verdict}, {strangers} of {accepted.size - 1} strangers "
    "accepted"
  )


def _grid_key(axes: Axes, has_own: bool) -> None:
  """Legend of the frames, under the heading."""
  entries: list[tuple[str, str, Any]] = [(VERMILLION, "stranger accepted", "-")]
  if has_own:
    entries = [
      (BLUE, "own person accepted", "-"),
      (BLUE, "own person rejected", (0, (2, 1.2))),
      *entries,
    ]
  x = 0.0
  for color, label, line in entries:
    drawing.frame(axes, x, 0.56, 0.2, 0.2, color, 2.2, linestyle=line)
    drawing.text(axes, x + 0.3, 0.67, label, ha="left", color=INK)
    x += 2.3


def decision_figure(
  probe: ArrayLike,
  names: Sequence[str],
  scores: ArrayLike,
  *,
  threshold: float,
  decision: str | None = None,
  thumbnails: ArrayLike | None = None,
  own: str | None = None,
  label: str = figures.SCORE_LABEL,
  max_people: int = 40,
) -> Figure:
  """Shows one identification: the probe, its scores, the decision.

  Args:
    probe: a face, uint8 [H, W] or [H, W, C].
    names: names of the people enrolled, length P.
    scores: the probe against each of them, float [P]; bigger is closer.
    threshold: accepted iff score >= threshold.
    decision: heading; None says who was recognised.
    thumbnails: a face of each person, uint8 [P, H, W] or [P, H, W, C], drawn
      beside the names; None leaves them out.
    own: who the probe truly is, if known; printed above the probe.
    label: of the axis of the scores.
    max_people: at most this many of the highest scores are shown.

  Returns:
    The Figure, bars from the highest score down.

  Raises:
    ValueError: if the lengths differ, P is 0, or a score is NaN.
  """
  scores = np.asarray(scores, float)
  faces = None if thumbnails is None else np.asarray(thumbnails)
  _check_people(names, scores, faces)
  order = np.argsort(-scores, kind="stable")
  shown = order[:max_people]
  row = 0.2 if faces is None else 0.25
  height = max(3.7, row * len(shown) + 1.6)
  figure = figures.new_figure(9.6, height)
  heading = decision or _decision_title(names, scores, order, threshold)
  figure.suptitle(
    textwrap.fill(drawing.clean(heading), 78), fontsize=13, fontweight="bold",
    color=INK, x=0.013, ha="left", parse_math=False,
  )  # fmt: skip
  left, right = figure.subplots(1, 2, width_ratios=[1, 2.6])
  _probe_panel(left, probe, own)
  figures.style_axes(right, label, "")
  _bars(right, [names[n] for n in shown], scores[shown], threshold)
  if faces is not None:
    _thumbnails(right, faces[shown])
  if len(shown) < len(names):
    right.set_title(
      f"The {len(shown)} highest of {len(names):,} people enrolled",
      fontsize=9.5, color=MUTED, loc="left",
    )  # fmt: skip
  return figure


def _decision_title(
  names: Sequence[str], scores: np.ndarray, order: np.ndarray, threshold: float
) -> str:
  best = order[0]
  name, score = drawing.short(names[best], 24), number(scores[best])
  if scores[best] < threshold:
    return f"Nobody recognised (best: {name}, {score} < {number(threshold)})"
  others = int((scores >= threshold).sum()) - 1
  heading = (
    f"Recognised: {name} ({score} \N{GREATER-THAN OR EQUAL TO} "
    f"{number(threshold)})"
  )
  if others:
    heading += f"; {others} more above the threshold"
  return heading


def _probe_panel(axes: Axes, probe: ArrayLike, own: str | None) -> None:
  picture = drawing.pixels(probe)
  axes.imshow(picture, interpolation="bicubic", **drawing.gray(picture))
  axes.set_anchor("N")
  axes.set_axis_off()
  caption = "Probe" if own is None else f"Probe: truly {drawing.short(own, 24)}"
  axes.set_title(caption, fontsize=11, color=INK, loc="left", parse_math=False)


def _bars(
  axes: Axes, names: Sequence[str], scores: np.ndarray, threshold: float
) -> None:
  """Horizontal bars, highest on top, with names, values and the threshold."""
  places = np.arange(len(names))
  low = min(scores.min(), threshold)
  span = max(scores.max(), threshold) - low or 1.0
  start = low - 0.12 * span
  accepted = scores >= threshold
  colors = np.where(accepted, BLUE, "#AEB6C0")
  axes.barh(places, scores - start, left=start, height=0.68, color=colors)
  for place, score, strong in zip(places, scores, accepted, strict=True):
    axes.annotate(
      number(score), (score, place), xytext=(4, 0),
      textcoords="offset points", va="center", fontsize=8,
      color=BLUE if strong else INK,
      fontweight="bold" if strong else "normal",
      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
      zorder=6,
    )  # fmt: skip
  labels = [drawing.short(name, 22) for name in names]
  axes.set_yticks(places, labels, fontsize=8.5, parse_math=False)
  axes.tick_params(axis="y", length=0)
  axes.grid(visible=False, axis="y")
  axes.set_xlim(start, max(scores.max(), threshold) + 0.14 * span)
  # At least ten places, so that few people do not get fat bars.
  axes.set_ylim(max(len(names), 10) - 0.4, -1.6)
  axes.spines["left"].set_visible(False)
  axes.axvline(threshold, color=INK, linewidth=1.4, linestyle="--", zorder=5)
  axes.annotate(
    f"threshold {number(threshold)}", (threshold, -1.05), xytext=(-5, 0),
    textcoords="offset points", ha="right", va="center", fontsize=9, color=INK,
  )  # fmt: skip


def _thumbnails(axes: Axes, faces: np.ndarray) -> None:
  """Small faces at the left end of the bars."""
  for place, face in enumerate(faces):
    picture = drawing.pixels(face)
    # Height of a row in data units is 1; the width follows the bar's height.
    inset = axes.inset_axes(
      (0, place - 0.46, 0.05, 0.92), transform=axes.get_yaxis_transform()
    )
    inset.imshow(picture, **drawing.gray(picture))
    inset.set_anchor("W")
    inset.set_axis_off()


def _check_people(
  names: Sequence[str], scores: np.ndarray, faces: np.ndarray | None
) -> None:
  if not names:
    raise ValueError("names must hold at least one person")
  if scores.shape != (len(names),):
    raise ValueError(
      f"scores must have shape [{len(names)}], got {scores.shape}"
    )
  if np.isnan(scores).any():
    raise ValueError("scores must not be NaN")
  if faces is not None and len(faces) != len(names):
    raise ValueError(
      f"there must be one face for each of {len(names)} names, got {len(faces)}"
    )
