"""Training steps against PyTorch and Keras, on CPU; growth; a figure.

The peers are no dependencies of this package: `make test-peers` makes the
environment .venv-peers with torch; TensorFlow is added for this.

  make .venv-peers/.ready
  .venv-peers/bin/python -m pip install tensorflow-cpu
  .venv-peers/bin/python benchmarks/training.py \\
    --out=benchmarks/results/training.json --figure=docs/speed.png

Parts (--parts; each is written to the file when it is done, and the others
that the file has stay):

- article: the article's network, 64x64 grey, 64 pairs. Ours is the whole step
  of `facesiam train`: pairs drawn from resident faces, gathered, turned,
  shifted, lit and partly erased, loss, gradient, Adam. Keras' `fit` and
  PyTorch (channels_last, fused Adam) have one batch, ready as float32.
- resnet18, resnet50, mobilefacenet: the same on 112x112 colour, triplets, with
  each process's largest memory. Ours draws and augments here too.
- memory: the largest memory of two steps of ResNet-50, 48 triplets.
- mining: a step of ResNet-18 of 128 images on the hardest triplets of the
  batch, beside the same step on triplets drawn from it at random.
- feed: steps whose batch is drawn and gathered from resident faces, beside the
  same steps on a fixed batch; augmented on both sides, or on neither.
- growth: milliseconds a step of the article's network by pairs of a batch (2
  to 512), by devices and by size of the embedding.

A contender is a process (training_contenders.py), and contenders take turns, so
that a busy machine slows all alike. A turn begins with a step that is not
timed. Before the peers are timed, each makes a
few steps of plain gradient descent from the same weights on the same faces:
parameters and losses must agree. A ratio is ours by theirs, the median over
the rounds, below 1 where ours is faster.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import outcome
import training_cases as cases
import training_growth as growth
from absl import app, flags
from training_contenders import Contender, alternate, check_alike, running

_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_FIGURE = flags.DEFINE_string("figure", None, "PNG of the part growth.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed turns of each side.")
_PARTS = flags.DEFINE_list("parts", None, "Parts to run; all by default.")
_TRIPLETS = flags.DEFINE_integer("triplets", 16, "Of a batch at 112x112.")
_PACKAGES = (
  *("flax", "jax", "jaxlib", "keras", "numpy", "optax"),
  *("tensorflow-cpu", "torch"),
)
_PEERS = ("keras", "torch")
_MINING_PEOPLE, _MINING_IMAGES = 32, 4
_MEMORY_TRIPLETS = 48


def _against(
  case: cases.Case, peers: tuple[str, ...], steps: int
) -> dict[str, Any]:
  """Times a case against peers, after all have computed the same."""
  alike = check_alike(case, ["ours", *peers])
  names = ("ours", *peers)
  with running([Contender(name, case) for name in names]) as some:
    timed = alternate(some, rounds=_ROUNDS.value, steps=steps)
    memory = {x.name: x.ask(do="memory")["bytes"] for x in some}
  ratios = {name: memory["ours"] / memory[name] for name in peers}
  return {
    "network": case.network,
    "images": case.rows,
    "alike": alike,
    **timed,
    "memory_bytes": memory,
    "memory_ratio": ratios,
  }


def _article() -> dict[str, Any]:
  return _against(cases.article(), _PEERS, 8)


def _resnet18() -> dict[str, Any]:
  return _against(cases.Case("resnet18", _TRIPLETS.value), _PEERS, 1)


def _resnet50() -> dict[str, Any]:
  case = cases.Case("resnet50", _TRIPLETS.value, dim=256)
  return _against(case, _PEERS, 1)


def _mobilefacenet() -> dict[str, Any]:
  case = cases.Case("mobilefacenet", _TRIPLETS.value, dim=512)
  return _against(case, ("torch",), 1)


def _memory() -> dict[str, Any]:
  """Two steps: the first has all buffers, the second both states."""
  case = cases.Case("resnet50", _MEMORY_TRIPLETS, dim=256)
  memory, seconds = {}, {}
  for name in ("ours", "torch"):
    with running([Contender(name, case)]) as (contender,):
      contender.ask(do="steps", count=1)
      seconds[name] = contender.seconds(1)
      memory[name] = contender.ask(do="memory")["bytes"]
  return {
    "network": case.network,
    "images": case.rows,
    "memory_bytes": memory,
    "memory_ratio": {"torch": memory["ours"] / memory["torch"]},
    "seconds_of_the_second_step": seconds,
  }


def _mining() -> dict[str, Any]:
  rows = _MINING_PEOPLE * _MINING_IMAGES
  case = cases.Case("resnet18", rows // 3)
  args = {"num_people": _MINING_PEOPLE, "images_per_person": _MINING_IMAGES}
  objectives = {
    "mined": "batch_hard_triplet",
    "random": "training_objectives:RandomTriplet",
  }
  some = [
    Contender(name, case, {"objective": {"name": kind, "args": args}})
    for name, kind in objectives.items()
  ]
  with running(some):
    timed = alternate(some, rounds=_ROUNDS.value, steps=1)
  return {"network": case.network, "images": rows, **timed}


def _feed() -> dict[str, Any]:
  found: dict[str, Any] = {}
  small, large = cases.article(), cases.Case("resnet18", _TRIPLETS.value)
  for case, steps in ((small, 16), (large, 1)):
    for augment in (False, True):
      some = [
        Contender(name, case, {"augment": augment, "fixed": name == "fixed"})
        for name in ("resident", "fixed")
      ]
      with running(some):
        timed = alternate(some, rounds=_ROUNDS.value, steps=steps)
      name = f"{case.network}{'_augmented' if augment else ''}"
      found[name] = {"images": case.rows, **timed}
  return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
  "article": _article,
  "resnet18": _resnet18,
  "resnet50": _resnet50,
  "mobilefacenet": _mobilefacenet,
  "memory": _memory,
  "mining": _mining,
  "feed": _feed,
  "growth": lambda: growth.measure(_ROUNDS.value),
}


def main(argv: list[str]) -> None:
  """Runs the parts, adds each to the file and draws the figure."""
  del argv
  names = list(PARTS) if _PARTS.value is None else _PARTS.value
  if unknown := sorted({*names} - {*PARTS}):
    raise app.UsageError(f"--parts: {unknown} are none of {list(PARTS)}.")
  result: dict[str, Any] = {}
  if _OUT.value and pathlib.Path(_OUT.value).is_file():
    result = json.loads(pathlib.Path(_OUT.value).read_text("utf-8"))
  for name in names:
    result[name] = outcome.environment(_PACKAGES) | PARTS[name]()
    print(json.dumps({name: result[name]}), flush=True)
    outcome.write(_OUT.value, result)
  if _FIGURE.value and "growth" in result:
    growth.draw(result["growth"], _FIGURE.value)


if __name__ == "__main__":
  app.run(main)
