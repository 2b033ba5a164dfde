"""The figure of the CelebA benchmark: two panels of curves, no faces."""

from collections.abc import Mapping
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes

from facesiam_jax import files
from facesiam_jax.evaluation import figures

# Colours and lines both tell the systems apart; chance is the pale one.
_STYLES: tuple[tuple[str, Any], ...] = (
  *figures.OTHERS[:2],
  (figures.BLUE, "-"),
  (figures.VERMILLION, "-"),
  *figures.OTHERS[2:],
  (figures.INK, (0, (1, 1))),
)


def draw(systems: Mapping[str, Mapping[str, Any]], path: str) -> None:
  """Draws rank-1 against the gallery's size, and ROC curves.

  Args:
    systems: name -> what the result file has of it; the first is chance.
    path: of the PNG.
  """
  figure = figures.new_figure(9.2, 3.9)
  ranks, rates = figure.subplots(1, 2)
  _dress(ranks, "People in the gallery, one image each", "Rank-1")
  _dress(rates, "False match rate", "True accept rate")
  chance, *others = systems
  pale = {"color": figures.MUTED, "linewidth": 1, "linestyle": "-"}
  styles = [pale] + [
    {"color": color, "linestyle": line, "linewidth": 1.6}
    for color, line in _STYLES[: len(others)]
  ]
  for (name, found), style in zip(systems.items(), styles, strict=True):
    sizes = [int(size) for size in found["rank_one"]]
    estimates = list(found["rank_one"].values())
    ranks.plot(sizes, [e["value"] for e in estimates], label=name, **style)
    if name != chance:
      low, high = ([e[end] for e in estimates] for end in ("low", "high"))
      ranks.fill_between(
        sizes, low, high, color=style["color"], alpha=0.12, linewidth=0
      )
    rates.plot(found["roc"]["fmr"], found["roc"]["tar"], **style)
  sizes = [int(size) for size in systems[chance]["rank_one"]]
  ranks.set_xticks(sizes, [f"{size:,}" for size in sizes])
  ranks.minorticks_off()
  ranks.legend(frameon=False, fontsize=8, loc="best")
  files.write(path, figures.png_bytes(figure))


def _dress(axes: Axes, across: str, up: str) -> None:
  figures.style_axes(axes, across, up)
  axes.set(xscale="log", ylim=(0, 1))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
