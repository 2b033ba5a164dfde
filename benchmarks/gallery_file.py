"""How long it takes to enrol into a gallery file, to open and to search it.

  .venv/bin/python benchmarks/gallery_file.py \\
    --out=benchmarks/results/gallery_file.json

Random unit embeddings of --width, one a person, are enrolled --at_once at a
time, as `facesiam import` does: each call is a transaction that is on the disk
when it returns. "enrol" is the median of --rounds enrolments of --enrol
embeddings into a new file; a file of --open embeddings is then opened, --rounds
times: "read" is until all of it is in memory and checked, "ready" until the
first face was searched for, by a process that has compiled the search. Beside
it stands what a user would write in an afternoon: numpy.savez and a JSON list
of names, which is neither checked nor safe from a kill.
"""

import json
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_PACKAGES = ("jax", "jaxlib", "numpy")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed rounds.")
_WIDTH = flags.DEFINE_integer("width", 128, "Width of the embeddings.")
_ENROL = flags.DEFINE_integer("enrol", 100_000, "Embeddings to enrol.")
_OPEN = flags.DEFINE_integer("open", 1_000_000, "Embeddings to open.")
_AT_ONCE = flags.DEFINE_integer("at_once", 100_000, "In one transaction.")


class _Bundle:
  """What a gallery asks of a bundle, whose embeddings are here already."""

  fingerprint = "0" * 64
  metric = "cosine"
  threshold = 0.0
  calibrated = False
  thresholds: dict[str, Any] = {}
  calibration: dict[str, Any] = {}

  def __init__(self, dim: int):
    self.dim = dim

  def logits_from_scores(self, scores: Any) -> Any:
    """Returns the scores."""
    return scores


def _people(count: int, first: int = 0) -> dict[str, Any]:
  """Returns names with a template each."""
  import numpy as np

  from facesiam_jax.gallery import enrolment, records

  rng = np.random.default_rng(first)
  rows = rng.standard_normal((count, _WIDTH.value), np.float32)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  digests = enrolment.digests(rows)
  return {
    f"person {first + n}": records.Templates(row[None], [digest], [f"row {n}"])
    for n, (row, digest) in enumerate(zip(rows, digests, strict=True))
  }


def _fill(path: pathlib.Path, parts: list[dict[str, Any]]) -> float:
  """Enrols into a new file; returns seconds."""
  from facesiam_jax.gallery.store import Store

  about = {"fingerprint": _Bundle.fingerprint, "metric": _Bundle.metric}
  begun = time.perf_counter()
  with Store.create(path, dim=_WIDTH.value, **about) as store:
    for people in parts:
      store.add(people)
  return time.perf_counter() - begun


def _parts(total: int) -> list[dict[str, Any]]:
  step = _AT_ONCE.value
  return [_people(min(step, total - at), at) for at in range(0, total, step)]


def _by_hand(folder: pathlib.Path, parts: list[dict[str, Any]]) -> float:
  """Writes arrays and names as a script would; returns seconds."""
  import numpy as np

  begun = time.perf_counter()
  rows = np.concatenate([t.embeddings for p in parts for t in p.values()])
  np.savez(folder / "rows.npz", rows=rows)
  (folder / "names.json").write_text(json.dumps([n for p in parts for n in p]))
  return time.perf_counter() - begun


def _enrolment(folder: pathlib.Path) -> dict[str, Any]:
  parts = _parts(_ENROL.value)
  ours, by_hand = [], []
  for number in range(_ROUNDS.value):
    path = folder / f"{number}.db"
    ours.append(_fill(path, parts))
    by_hand.append(_by_hand(folder, parts))
    size = path.stat().st_size
    path.unlink()
  return {
    "embeddings": _ENROL.value,
    "transactions": len(parts),
    "seconds": statistics.median(ours),
    "range": [min(ours), max(ours)],
    "savez_seconds": statistics.median(by_hand),
    "bytes_an_embedding": size / _ENROL.value,
  }


def _times(run: Callable[[], Any]) -> list[float]:
  taken = []
  for _ in range(_ROUNDS.value):
    begun = time.perf_counter()
    run()
    taken.append(time.perf_counter() - begun)
  return taken


def _opening(folder: pathlib.Path) -> dict[str, Any]:
  import numpy as np

  from facesiam_jax.gallery.gallery import Gallery
  from facesiam_jax.gallery.store import Store

  path, bundle = folder / "open.db", _Bundle(_WIDTH.value)
  filled = _fill(path, _parts(_OPEN.value))
  query = np.ones((1, _WIDTH.value), np.float32)

  def read() -> None:
    with Store.open(path) as store:
      assert len(store.records().template_ids) == _OPEN.value

  def ready() -> None:
    with Gallery.open(path, bundle) as gallery:
      assert len(gallery.identify(embeddings=query, k=5)[0].matches) == 5

  ready()
  reads, readies = _times(read), _times(ready)
  return {
    "embeddings": _OPEN.value,
    "fill_seconds": filled,
    "file_bytes": path.stat().st_size,
    "read_seconds": statistics.median(reads),
    "read_range": [min(reads), max(reads)],
    "ready_seconds": statistics.median(readies),
    "ready_range": [min(readies), max(readies)],
  }


def main(argv: list[str]) -> None:
  """Measures both and writes the results."""
  del argv
  result = outcome.environment(_PACKAGES) | {
    "width": _WIDTH.value,
    "rounds": _ROUNDS.value,
    "load_average": os.getloadavg(),
  }
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    result["enrol"] = _enrolment(folder)
    print(json.dumps(result["enrol"]))
    result["open"] = _opening(folder)
    print(json.dumps(result["open"]))
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
