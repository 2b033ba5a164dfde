"""The figure of the side-by-side benchmark: one panel of rates a data set."""

from collections.abc import Mapping
from typing import Any

import compare_losses
from matplotlib import ticker

from facesiam_jax import files
from facesiam_jax.evaluation import figures

_PANELS = {
  "olivetti": "Olivetti: four folds of ten people",
  "celeba": "CelebA: 58 people",
}


def draw(result: Mapping[str, Any], path: str) -> None:
  """Draws equal error rates with their intervals, by system.

  Args:
    result: the result file.
    path: of the PNG.
  """
  panels = {
    data: result[data]["losses"]
    for data in _PANELS
    if "losses" in result.get(data, {})
  }
  figure = figures.new_figure(9.2, 3.6)
  axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
  names = list(compare_losses.ROWS)
  for one, (data, found) in zip(axes, panels.items(), strict=True):
    figures.style_axes(one, f"Equal error rate - {_PANELS[data]}", "")
    for place, name in enumerate(names):
      own = found["rows"][name]["own"]["eer"]
      color = figures.VERMILLION if name == "supcon" else figures.BLUE
      one.plot([own["low"], own["high"]], [place] * 2, color=color)
      one.plot(own["value"], place, "o", color=color)
      by_seed = found["rows"][name]["own_by_seed"]["eer"]
      one.plot(by_seed, [place] * len(by_seed), "|", color=figures.INK)
    one.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    titles = [
      row.title.replace("\\", "") for row in compare_losses.ROWS.values()
    ]
    one.set_yticks(range(len(names)), titles)
  axes[0].invert_yaxis()
  files.write(path, figures.png_bytes(figure))
