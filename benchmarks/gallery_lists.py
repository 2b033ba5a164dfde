"""Approximate search: lists of ours and FAISS's IVF at the same recall.

In the environment of benchmarks/gallery.py:

  .venv-peers/bin/python benchmarks/gallery_lists.py \\
    --out=benchmarks/results/gallery_lists.json

A gallery of --people unit rows with --each templates around each of them, and
one more template each of --queries people to look for, in one call. The ten
nearest by the exact search are what is to be found. Both sides put the gallery
into as many lists, and look through 1, 2, 4, ... of them until the recall is
--recall; the times of that many lists are compared, beside the exact search's.
Calls alternate; medians of --rounds.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import gallery as sides
import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_PEOPLE = flags.DEFINE_integer("people", 100_000, "People.")
_EACH = flags.DEFINE_integer("each", 10, "Templates of each.")
_WIDTH = flags.DEFINE_integer("width", 128, "Width of the embeddings.")
_QUERIES = flags.DEFINE_integer("queries", 64, "Queries in a call.")
_RECALL = flags.DEFINE_float("recall", 0.99, "Recall of the ten nearest.")
_SPREAD = flags.DEFINE_float(
  "spread", 0.8, "Length of what is added to a person's row, of the row's."
)
_K = 10


def _data() -> tuple[Any, Any]:
  """Returns unit rows [N, D] in any order and queries [Q, D]."""
  import numpy as np

  rng = np.random.default_rng(0)
  width = _WIDTH.value

  def around(centres: Any) -> Any:
    noise = rng.standard_normal(centres.shape, np.float32)
    rows = centres + noise * np.float32(_SPREAD.value / width**0.5)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  centres = rng.standard_normal((_PEOPLE.value, width), np.float32)
  centres /= np.linalg.norm(centres, axis=1, keepdims=True)
  rows = around(np.repeat(centres, _EACH.value, axis=0))
  rng.shuffle(rows)
  return rows, around(centres[: _QUERIES.value])


def _recall(found: Any, wanted: Any) -> float:
  import numpy as np

  pairs = zip(np.asarray(found).tolist(), wanted.tolist(), strict=True)
  return sum(len(set(f) & set(w)) for f, w in pairs) / wanted.size


def _enough(looks: Callable[[int], sides.Call], wanted: Any) -> Any:
  """Returns the fewest lists with the recall, that recall, and the call."""
  count = 1
  while True:
    call = looks(count)
    recall = _recall(call(), wanted)
    if recall >= _RECALL.value:
      return count, recall, call
    count *= 2


def _ours(rows: Any, queries: Any) -> tuple[Any, float, int]:
  """Returns lists -> call, seconds of making the lists, and how many."""
  import jax
  import numpy as np

  from facesiam_jax.gallery import search

  on_device = jax.device_put(rows)
  every, ids = np.ones(len(rows), bool), np.arange(len(rows), dtype=np.int32)
  begun = time.perf_counter()
  lists = search.build_inverted(on_device, every, metric="cosine")
  built = time.perf_counter() - begun
  find = jax.jit(
    search.top_k_inverted, static_argnames=("k", "num_probes", "metric")
  )
  case = jax.device_put((lists, on_device, every, ids, queries))

  def looks(count: int) -> sides.Call:
    options = {"k": _K, "num_probes": count, "metric": "cosine"}
    return lambda: jax.block_until_ready(find(*case, **options)).ids

  return looks, built, search.num_lists_for(len(rows))


def _faiss(rows: Any, queries: Any, number: int) -> tuple[Any, float]:
  import faiss

  faiss.omp_set_num_threads(sides.THREADS.value)
  begun = time.perf_counter()
  coarse = faiss.IndexFlatIP(rows.shape[1])
  index = faiss.IndexIVFFlat(
    coarse, rows.shape[1], number, faiss.METRIC_INNER_PRODUCT
  )
  index.train(rows)
  index.add(rows)
  built = time.perf_counter() - begun

  def looks(count: int) -> sides.Call:
    def call() -> Any:
      index.nprobe = count
      return index.search(queries, _K)[1]

    return call

  return looks, built


def main(argv: list[str]) -> None:
  """Builds both, finds how many lists each needs, and times them."""
  del argv
  import jax
  import numpy as np

  from facesiam_jax.gallery import search

  rows, queries = _data()
  exact = jax.jit(search.top_k, static_argnames=("k", "metric"))
  case = jax.device_put(
    (rows, np.ones(len(rows), bool), np.arange(len(rows), dtype=np.int32))
  )
  all_rows = lambda: (
    jax.block_until_ready(exact(*case, queries, k=_K, metric="cosine")).ids
  )
  wanted = np.asarray(all_rows())
  ours, ours_built, number = _ours(rows, queries)
  faiss, faiss_built = _faiss(rows, queries, number)
  our_lists, our_recall, our_call = _enough(ours, wanted)
  faiss_lists, faiss_recall, faiss_call = _enough(faiss, wanted)
  times = sides.milliseconds(
    {"exact": all_rows, "lists": our_call, "faiss_ivf": faiss_call}
  )
  medians = {name: statistics.median(x) for name, x in times.items()}
  result = {
    "templates": len(rows),
    "width": _WIDTH.value,
    "queries": len(queries),
    "k": _K,
    "number_of_lists": number,
    "lists": {"ours": our_lists, "faiss_ivf": faiss_lists},
    "recall": {"ours": our_recall, "faiss_ivf": faiss_recall},
    "build_seconds": {"ours": ours_built, "faiss_ivf": faiss_built},
    "milliseconds": medians,
    "range": {name: [min(x), max(x)] for name, x in times.items()},
    "ratio": medians["lists"] / medians["faiss_ivf"],
  }
  print(json.dumps(result))
  outcome.write(sides.OUT.value, sides.about() | result)


if __name__ == "__main__":
  app.run(main)
