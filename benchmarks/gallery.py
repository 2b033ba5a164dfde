"""The k nearest templates of a gallery: ours, FAISS flat, NumPy, PyTorch.

The peers are no dependencies of this package, so the benchmark has an
environment of its own; one that is not installed is left out:

  python3 -m venv .venv-peers
  .venv-peers/bin/python -m pip install --editable . faiss-cpu torch
  .venv-peers/bin/python benchmarks/gallery.py \\
    --out=benchmarks/results/gallery.json

All sides get the same unit rows, with a near neighbour planted for each query,
and find the k largest products. Before anything is timed their answers are
compared: every score must be that of ours to 1e-5. Calls alternate, so that a
busy machine slows all alike, a quarter of a second apart, in which the threads
of the last one stop waiting for more; medians of --rounds calls are reported,
and the ratio of ours to the best other side. faiss_tuned is IndexFlatIP with
faiss.cvar.distance_compute_blas_threshold = 4, without which it forms batches
of up to 20 queries without BLAS. ours_int8 scans int8 and answers with the
bits of ours, the float32 rows on the host. One JSON line a case goes to
standard output. --heads=N also times the search by each head on N templates.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_PACKAGES = ("jax", "jaxlib", "numpy", "faiss-cpu", "torch")
OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each side.")
_CASES = flags.DEFINE_list(
  "cases",
  [
    "1000000x512x1024x10",
    "100000x512x1024x10",
    "100000x128x1024x10",
    "100000x512x1024x100",
    "1000000x512x32x10",
    "100000x512x32x10",
    "1000000x512x1x10",
    "100000x512x1x10",
  ],
  "Templates x width x queries x k of each case.",
)
_HEADS = flags.DEFINE_integer(
  "heads", 10000, "Templates in the search by a head; 0 leaves it out."
)
THREADS = flags.DEFINE_integer(
  "threads", os.cpu_count() or 1, "Threads of FAISS and PyTorch."
)

# OpenMP's threads wait busily for so long, on the processors of the next call.
_REST_S = 0.25

Call = Callable[[], Any]


def about() -> dict[str, Any]:
  """Returns the command, the machine, its load and the versions of all."""
  load = {"load_average": os.getloadavg()}
  return outcome.environment(_PACKAGES) | load


def data(size: int, width: int, num_queries: int) -> tuple[Any, Any]:
  """Returns unit rows [N, D] and queries [Q, D] near the last Q of them."""
  import numpy as np

  rng = np.random.default_rng(0)
  gallery = rng.standard_normal((size, width), dtype=np.float32)
  gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
  near = gallery[-num_queries:]
  noise = rng.standard_normal(near.shape, dtype=np.float32)
  queries = near + noise / np.float32(width**0.5)
  return gallery, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def _ours(gallery: Any, queries: Any, k: int) -> tuple[Call, dict[str, Any]]:
  """Returns a call -> scores, and what its compiling says and took."""
  import jax
  import jax.numpy as jnp

  from facesiam_jax.gallery import search

  # Whole blocks, as a gallery in use is kept.
  missing = -len(gallery) % search.BLOCK
  valid = jnp.arange(len(gallery) + missing) < len(gallery)
  arrays = (
    jnp.pad(gallery, ((0, missing), (0, 0))),
    valid,
    jnp.arange(len(valid), dtype=jnp.int32),
    jnp.asarray(queries),
  )
  lowered = jax.jit(search.top_k, static_argnames=("k", "metric")).lower(
    *arrays, k=k, metric="cosine"
  )
  begun = time.perf_counter()
  program = lowered.compile()
  facts = {
    "compile_s": time.perf_counter() - begun,
    "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
  }
  return lambda: jax.block_until_ready(program(*arrays)).scores, facts


def _ours_int8(gallery: Any, queries: Any, k: int) -> Call:
  import jax
  import numpy as np

  from facesiam_jax.gallery import search

  compact = jax.jit(search.compress)(gallery)
  every, ids = np.ones(len(gallery), bool), np.arange(len(gallery))
  return lambda: (
    search.top_k_compact(
      compact, gallery, every, ids, queries, k=k, metric="cosine"
    ).scores
  )


def _numpy(gallery: Any, queries: Any, k: int) -> Call:
  import numpy as np

  def call() -> Any:
    scores = []
    # Parts of the queries, whose scores fit into memory.
    for start in range(0, len(queries), 128):
      part = queries[start : start + 128] @ gallery.T
      best = np.argpartition(part, -k, axis=1)[:, -k:]
      part = np.take_along_axis(part, best, axis=1)
      scores.append(-np.sort(-part, axis=1))
    return np.concatenate(scores)

  return call


def faiss_flat(gallery: Any, queries: Any, k: int) -> dict[str, Call]:
  """Returns searches by FAISS flat; none where it is not installed."""
  try:
    import faiss
  except ImportError:
    return {}
  faiss.omp_set_num_threads(THREADS.value)
  index = faiss.IndexFlatIP(gallery.shape[1])
  index.add(gallery)
  usual = faiss.cvar.distance_compute_blas_threshold

  def call(threshold: int) -> Any:
    faiss.cvar.distance_compute_blas_threshold = threshold
    return index.search(queries, k)[0]

  return {
    "faiss_default": lambda: call(usual),
    "faiss_tuned": lambda: call(4),
  }


def _torch(gallery: Any, queries: Any, k: int) -> dict[str, Call]:
  try:
    import torch
  except ImportError:
    return {}
  torch.set_num_threads(THREADS.value)
  rows, asked = torch.from_numpy(gallery), torch.from_numpy(queries)

  def call() -> Any:
    parts = [torch.topk(x @ rows.T, k).values for x in asked.split(128)]
    return torch.cat(parts).numpy()

  return {"torch": call}


def milliseconds(calls: dict[str, Call]) -> dict[str, list[float]]:
  """Returns the times of each call, which alternate."""
  times: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(_ROUNDS.value):
    for name, call in calls.items():
      time.sleep(_REST_S)
      begun = time.perf_counter()
      call()
      times[name].append(1e3 * (time.perf_counter() - begun))
  return times


def _case(size: int, width: int, num_queries: int, k: int) -> dict[str, Any]:
  """Compares and times all sides on one gallery."""
  import numpy as np

  case = *data(size, width, num_queries), k
  ours, facts = _ours(*case)
  calls = {
    "ours": ours,
    "ours_int8": _ours_int8(*case),
    "numpy": _numpy(*case),
    **faiss_flat(*case),
    **_torch(*case),
  }
  right = np.asarray(ours())
  for name, call in calls.items():
    difference = float(np.abs(np.asarray(call()) - right).max())
    if difference > (0 if name == "ours_int8" else 1e-5):
      raise SystemExit(f"{name} differs from ours by {difference}.")
  times = milliseconds(calls)
  medians = {name: statistics.median(x) for name, x in times.items()}
  others = {n: x for n, x in medians.items() if not n.startswith("ours")}
  best = min(others, key=lambda name: others[name])
  return {
    "templates": size,
    "width": width,
    "queries": num_queries,
    "k": k,
    "milliseconds": medians,
    "range": {name: [min(x), max(x)] for name, x in times.items()},
    "best_other": best,
    "ratio": medians["ours"] / medians[best],
    "ratio_int8_to_ours": medians["ours_int8"] / medians["ours"],
    "gflops": 2e-6 * size * width * num_queries / medians["ours"],
    "rounds": _ROUNDS.value,
    "threads": THREADS.value,
    **facts,
  }


def _by_head(name: str, size: int) -> dict[str, Any]:
  """Times the search by a head, 32 queries of width 128, beside cosine's."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  from facesiam_jax import heads
  from facesiam_jax.gallery import search

  gallery, queries = data(size, 128, 32)
  module = heads.create(name)
  one = jnp.zeros((1, 128))
  variables = module.init(jax.random.key(0), one, one)
  head = lambda x, y: module.apply(variables, x, y)
  every, ids = np.ones(size, bool), np.arange(size, dtype=np.int32)

  def call(metric: Any) -> Call:
    find = jax.jit(search.top_k, static_argnames=("k", "metric"))
    case = gallery, every, ids, queries
    run = lambda: jax.block_until_ready(find(*case, k=10, metric=metric))
    run()
    return run

  times = milliseconds({"head": call(head), "cosine": call("cosine")})
  medians = {name: statistics.median(x) for name, x in times.items()}
  return {
    "head": name,
    "templates": size,
    "width": 128,
    "queries": 32,
    "milliseconds": medians["head"],
    "times_cosine": medians["head"] / medians["cosine"],
    "operations_a_pair": search.pair_cost(head, 128),
  }


def main(argv: list[str]) -> None:
  """Runs all cases and writes the results."""
  del argv
  environment = about()
  cases, by_head = [], []
  for case in _CASES.value:
    cases.append(_case(*(int(number) for number in case.split("x"))))
    print(
      json.dumps(cases[-1] | {"versions": environment["versions"]}), flush=True
    )
  names = ("abs_difference_logistic", "chi_square_logistic", "l1_logistic")
  for name in names if _HEADS.value else ():
    by_head.append(_by_head(name, _HEADS.value))
    print(json.dumps(by_head[-1]))
  outcome.write(OUT.value, environment | {"cases": cases, "heads": by_head})


if __name__ == "__main__":
  app.run(main)
