"""Figures of ranks, strangers, reliability, distances and the embedding map."""

from collections.abc import Mapping

import numpy as np
from matplotlib import ticker
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import curves, figures
from facesiam_jax.evaluation.figures import (
  BLUE,
  INK,
  MUTED,
  OTHERS,
  PALE,
  VERMILLION,
)
from facesiam_jax.metrics import thresholds

MOST_MAPPED = 24
_MAP_COLORS = (BLUE, VERMILLION, *(color for color, _ in OTHERS))
_MARKERS = "os^Dv"


def cmc_figure(systems: Mapping[str, ArrayLike], *, most: int = 50) -> Figure:
  """Draws cumulative match characteristics.

  Args:
    systems: name -> CMC(1), CMC(2), ..., float [ways]; the first is the one
      reported on.
    most: ranks that are drawn.

  Returns:
    The Figure, ranks on a logarithmic axis.
  """
  figure = figures.new_figure(6.1, 4.4)
  axes = figures.add_axes(
    figure, "Rank", "Share of probes whose person is among the best"
  )
  for (name, shares), style in zip(
    systems.items(), figures.line_styles(len(systems)), strict=True
  ):
    shown = np.asarray(shares, float)[:most]
    label = f"{name} (rank 1: {shown[0]:.1%})"
    axes.plot(np.arange(1, shown.size + 1), shown, label=label, **style)
  axes.set_xscale("log")
  axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%d"))
  axes.xaxis.set_minor_formatter(ticker.NullFormatter())
  axes.set_ylim(-0.01, 1.01)
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
  figures.legend(axes, "lower right")
  return figure


def open_set_figure(systems: Mapping[str, curves.OpenSetBand]) -> Figure:
  """Draws FNIR against FPIR, with the range over galleries of the first.

  Args:
    systems: name -> OpenSetBand; the first is the one reported on.

  Returns:
    The Figure.
  """
  figure = figures.new_figure(6.1, 4.4)
  axes = figures.add_axes(
    figure, "Strangers taken for somebody (FPIR)", "Enrolled missed (FNIR)"
  )
  for n, ((name, band), style) in enumerate(
    zip(systems.items(), figures.line_styles(len(systems)), strict=True)
  ):
    if n == 0:
      axes.fill_between(
        band.fpir, band.low, band.high, color=BLUE, alpha=0.15, linewidth=0
      )
    axes.plot(band.fpir, band.mean, label=name, **style)
  axes.set_xscale("log")
  axes.set(xlim=(1e-3, 1), ylim=(-0.01, 1.01))
  axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
  figures.legend(axes, "lower left")
  return figure


def reliability_figure(
  found: curves.Reliability, ends: np.ndarray | None
) -> Figure:
  """Draws what probabilities came to.

  Args:
    found: the bins.
    ends: their intervals, float [2, bins], or None.

  Returns:
    The Figure; empty bins are left out.
  """
  figure = figures.new_figure(5.4, 5.0)
  axes = figures.add_axes(
    figure, "Probability of \N{LEFT DOUBLE QUOTATION MARK}same person"
    "\N{RIGHT DOUBLE QUOTATION MARK} given", "Share that is the same person"
  )  # fmt: skip
  axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
  seen = found.weight > 0
  x, y = found.predicted[seen], found.observed[seen]
  if ends is not None:
    low, high = ends[:, seen]
    axes.vlines(x, low, high, color=BLUE, linewidth=1.4)
  axes.plot(x, y, color=BLUE, linewidth=1.4, marker="o", markersize=5)
  axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
  return figure


def distances_figure(distances: ArrayLike, same: ArrayLike) -> Figure | None:
  """Draws the densities of distances of both kinds of pair, and normal fits.

  Args:
    distances: of each pair, float [P].
    same: 1 = same person, 0 = not, [P].

  Returns:
    The Figure, with the distance at which the two normal fits cross between
    their means, if they do; None where a kind of pair has distances that are
    all equal.
  """
  values, labels = np.asarray(distances), np.asarray(same).astype(bool)
  drawn = [curves.density(values[labels]), curves.density(values[~labels])]
  figure = figures.new_figure(7.2, 4.2)
  axes = figures.add_axes(figure, "Euclidean distance of embeddings", "Density")
  for name, found, chosen, color, line in (
    ("Same person", drawn[0], labels, BLUE, "-"),
    ("Different people", drawn[1], ~labels, VERMILLION, "--"),
  ):
    if found is None:
      return None
    mean, sd = values[chosen].mean(), values[chosen].std()
    axes.fill_between(*found, color=color, alpha=0.2, linewidth=0)
    axes.plot(
      *found, color=color, linestyle=line, linewidth=1.6,
      label=f"{name}: {mean:.2f} \N{PLUS-MINUS SIGN} {sd:.2f}",
    )  # fmt: skip
    normal = np.exp(-0.5 * ((found[0] - mean) / sd) ** 2)
    normal /= sd * np.sqrt(2 * np.pi)
    axes.plot(found[0], normal, color=color, linewidth=0.9, linestyle=":")
  crossing = _crossing(values, labels)
  if crossing is not None:
    axes.axvline(
      crossing, color=INK, linewidth=1.2, linestyle="-.",
      label=f"the normal fits cross at {crossing:.2f}",
    )  # fmt: skip
  axes.set_ylim(0, axes.get_ylim()[1] * 1.25)
  figures.legend(axes, "upper left")
  return figure


def _crossing(distances: np.ndarray, same: np.ndarray) -> float | None:
  """Where the normal fits cross between their means; None where nowhere."""
  try:
    return thresholds.fit_gaussian_threshold(distances, same).threshold
  except ValueError:
    return None


def map_figure(embeddings: ArrayLike, identity_ids: ArrayLike) -> Figure:
  """Draws embeddings on their two first principal components.

  Args:
    embeddings: float [N, D].
    identity_ids: person of each, int [N].

  Returns:
    The Figure: the people with the most images, at most 24, each in a colour
    and a mark of their own, their images tied to their mean; others in grey.
  """
  ids = np.asarray(identity_ids)
  plane, share = curves.principal_plane(embeddings)
  people, counts = np.unique(ids, return_counts=True)
  shown = people[np.argsort(-counts, kind="stable")][:MOST_MAPPED]
  figure = figures.new_figure(6.6, 6.2)
  axes = figures.add_axes(figure, "First component", "Second component")
  others = plane[~np.isin(ids, shown)]
  axes.scatter(
    others[:, 0], others[:, 1], s=4, color=PALE, linewidth=0, zorder=1
  )
  for n, person in enumerate(shown):
    own = plane[ids == person]
    color = _MAP_COLORS[n % len(_MAP_COLORS)]
    middle = own.mean(axis=0)
    lines = [(middle, point) for point in own]
    axes.add_collection(
      LineCollection(lines, colors=color, linewidths=0.4, alpha=0.5)
    )
    axes.scatter(
      own[:, 0], own[:, 1], s=14, color=color, linewidth=0, alpha=0.85,
      zorder=2, marker=_MARKERS[n // len(_MAP_COLORS) % len(_MARKERS)],
    )  # fmt: skip
  axes.set_title(
    f"{share:.0%} of the variance lies in this plane", fontsize=9.5, color=INK,
    loc="left",
  )  # fmt: skip
  axes.set_aspect("equal", "datalim")
  return figure
