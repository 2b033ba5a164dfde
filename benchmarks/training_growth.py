"""How a step of the article's network grows, and the figure of it."""

from typing import Any

import training_cases as cases
from training_contenders import Contender, alternate, running

# One pair is refused: half of them are genuine.
_PAIRS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
_DEVICES = (1, 2)
_DIMS = (32, 128, 512, 2048)
# A turn is about so many images long.
_IMAGES_A_TURN = 256


def _curve(
  made: dict[int, tuple[cases.Case, int]], rounds: int
) -> list[dict[str, Any]]:
  """Times a few sizes in turn; each size is a case and a number of devices."""
  found = []
  for value, (case, devices) in made.items():
    steps = max(_IMAGES_A_TURN // case.rows, 1)
    with running([Contender("ours", case, devices=devices)]) as some:
      timed = alternate(some, rounds=rounds, steps=steps)
    milliseconds = timed["milliseconds"]["ours"]
    found.append(
      {
        "value": value,
        "images": case.rows,
        "milliseconds": milliseconds,
        "range": timed["range"]["ours"],
        "milliseconds_an_image": milliseconds / case.rows,
      }
    )
  return found


def _devices(rounds: int) -> list[dict[str, Any]]:
  """One and two devices on the same cores, in turn."""
  case = cases.article()
  some = [Contender(f"{n} devices", case, devices=n) for n in _DEVICES]
  with running(some):
    timed = alternate(some, rounds=rounds, steps=4)
  return [
    {
      "value": devices,
      "images": case.rows,
      "milliseconds": timed["milliseconds"][contender.name],
      "range": timed["range"][contender.name],
      "milliseconds_an_image": timed["milliseconds"][contender.name]
      / case.rows,
    }
    for devices, contender in zip(_DEVICES, some, strict=True)
  ]


def measure(rounds: int) -> dict[str, Any]:
  """Returns the curves by batch, devices and embedding size.

  Args:
    rounds: timed turns of each size.
  """
  return {
    "network": "article_cnn",
    "rounds": rounds,
    "pairs": _curve({n: (cases.article(n), 1) for n in _PAIRS}, rounds),
    "devices": _devices(rounds),
    "dim": _curve({n: (cases.article(dim=n), 1) for n in _DIMS}, rounds),
  }


def draw(found: dict[str, Any], path: str) -> None:
  """Draws milliseconds an image over what grows.

  Args:
    found: from `measure`.
    path: PNG to write.
  """
  from facesiam_jax import files
  from facesiam_jax.evaluation import figures

  figure = figures.new_figure(8.4, 3.2)
  panels = figure.subplots(1, 3, width_ratios=(2, 1, 1.3))
  titles = {
    "pairs": "Pairs in a batch",
    "devices": "Devices, two cores",
    "dim": "Numbers of an embedding",
  }
  for axes, (name, title) in zip(panels, titles.items(), strict=True):
    curve = found[name]
    values = [point["value"] for point in curve]
    an_image = [point["milliseconds_an_image"] for point in curve]
    lowest = [point["range"][0] / point["images"] for point in curve]
    highest = [point["range"][1] / point["images"] for point in curve]
    figures.style_axes(
      axes, title, "Milliseconds an image" if name == "pairs" else ""
    )
    axes.fill_between(values, lowest, highest, color=figures.BLUE, alpha=0.2)
    axes.plot(values, an_image, color=figures.BLUE, marker="o", markersize=4)
    axes.set_ylim(0, 1.15 * max(highest))
    axes.set_xscale("log", base=2)
    shown = values[::3] if len(values) > 5 else values
    axes.set_xticks(shown, [str(value) for value in shown])
    axes.minorticks_off()
  files.write(path, figures.png_bytes(figure))
