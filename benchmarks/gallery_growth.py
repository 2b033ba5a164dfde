"""How a search's time grows with the gallery, on one device and on two.

In the environment of benchmarks/gallery.py:

  .venv-peers/bin/python benchmarks/gallery_growth.py \\
    --out=benchmarks/results/gallery_growth.json --figure=docs/gallery.png

--queries unit rows of --width look for their ten nearest among --sizes random
ones, as in benchmarks/gallery.py: on one device, on the same rows spread over
two (the cores are the same ones), and by FAISS flat with BLAS for every batch.
All answers are compared first. Calls alternate; medians of --rounds. The
exponent is the slope of log time over log size, from 100,000 templates on:
linear growth is 1.
"""

import json
import os
import statistics
from typing import Any

import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import gallery as sides  # noqa: E402  # after the devices are told of

_FIGURE = flags.DEFINE_string("figure", None, "PNG of the figure.")
_SIZES = flags.DEFINE_list(
  "sizes",
  ["10000", "30000", "100000", "300000", "1000000", "2000000", "4000000"],
  "Templates of each gallery.",
)
_WIDTH = flags.DEFINE_integer("width", 128, "Width of the embeddings.")
_QUERIES = flags.DEFINE_integer("queries", 32, "Queries in a call.")
_K = 10
_NAMES = {
  "one_device": "one device",
  "two_devices": "two devices",
  "faiss_tuned": "FAISS flat",
}


def _on_devices(gallery: Any, queries: Any, count: int) -> sides.Call:
  """Returns a search of a gallery that is spread over so many devices."""
  import jax
  import numpy as np

  from facesiam_jax import parallel
  from facesiam_jax.gallery import search

  mesh = parallel.make_mesh(jax.devices()[:count])
  every, ids = np.ones(len(gallery), bool), np.arange(len(gallery))
  shards = search.place(gallery, every, ids, mesh)
  find = search.searcher(mesh, k=_K, metric="cosine")
  asked = parallel.replicate(queries, mesh)
  return lambda: jax.block_until_ready(find(shards, asked)).scores


def _case(size: int) -> dict[str, Any]:
  import numpy as np

  gallery, queries = sides.data(size, _WIDTH.value, _QUERIES.value)
  calls = {
    "one_device": _on_devices(gallery, queries, 1),
    "two_devices": _on_devices(gallery, queries, 2),
  }
  peers = sides.faiss_flat(gallery, queries, _K)
  calls |= {name: x for name, x in peers.items() if name in _NAMES}
  right = np.asarray(calls["one_device"]())
  for name, call in calls.items():
    difference = float(np.abs(np.asarray(call()) - right).max())
    if difference > (1e-5 if name in peers else 0):
      raise SystemExit(f"{name} differs from one device by {difference}.")
  times = sides.milliseconds(calls)
  return {
    "templates": size,
    "milliseconds": {n: statistics.median(x) for n, x in times.items()},
    "range": {name: [min(x), max(x)] for name, x in times.items()},
  }


def _exponents(cases: list[dict[str, Any]]) -> dict[str, float]:
  """Returns the slope of log time over log size of each side."""
  import numpy as np

  large = [case for case in cases if case["templates"] >= 100_000]
  if len(large) < 2:
    return {}
  sizes = np.log([case["templates"] for case in large])
  times = {
    name: np.log([case["milliseconds"][name] for case in large])
    for name in large[0]["milliseconds"]
  }
  return {n: float(np.polyfit(sizes, x, 1)[0]) for n, x in times.items()}


def _draw(cases: list[dict[str, Any]], path: str) -> None:
  from facesiam_jax import files
  from facesiam_jax.evaluation import figures

  figure = figures.new_figure(4.6, 3.6)
  axes = figure.subplots()
  figures.style_axes(
    axes, "Templates in the gallery", f"Milliseconds for {_QUERIES.value} faces"
  )
  axes.set(xscale="log", yscale="log")
  styles = (
    {"color": figures.VERMILLION, "linestyle": "-", "marker": "o"},
    {"color": figures.BLUE, "linestyle": (0, (4, 2)), "marker": "s"},
    {"color": figures.MUTED, "linestyle": "-", "marker": None},
  )
  sizes = [case["templates"] for case in cases]
  for name, style in zip(cases[0]["milliseconds"], styles, strict=False):
    times = [case["milliseconds"][name] for case in cases]
    axes.plot(sizes, times, label=_NAMES[name], markersize=3, **style)
  axes.legend(frameon=False, fontsize=8)
  files.write(path, figures.png_bytes(figure))


def main(argv: list[str]) -> None:
  """Runs all sizes, draws and writes the results."""
  del argv
  cases = []
  for size in _SIZES.value:
    cases.append(_case(int(size)))
    print(json.dumps(cases[-1]), flush=True)
  outcome.write(
    sides.OUT.value,
    sides.about()
    | {
      "width": _WIDTH.value,
      "queries": _QUERIES.value,
      "k": _K,
      "cases": cases,
      "exponents": _exponents(cases),
    },
  )
  if _FIGURE.value:
    _draw(cases, _FIGURE.value)


if __name__ == "__main__":
  app.run(main)
