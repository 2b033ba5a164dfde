"""The page of where the time goes: docs/performance.md.

  python benchmarks/performance_page.py

It is made of result files alone; each row names the script that made its
figure, and a test holds that the page is what they give.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_NAMES = {
  "article_cnn": "the article's network, 64 pairs",
  "resnet18": "ResNet-18",
  "resnet50": "ResNet-50",
  "mobilefacenet": "MobileFaceNet",
  "dlib_resnet29": "dlib's network",
}
_PEERS = {
  "keras": "Keras",
  "torch": "PyTorch",
  "dlib": "dlib",
  "onnxruntime": "ONNX Runtime",
}


class Row(NamedTuple):
  """A row of the page.

  Attributes:
    work: what is done.
    peer: what does it too.
    goal: of the ratio, at most; None where there is none.
    ratio: ours by theirs.
    ours: what ours takes, as text.
    script: that measured it.
  """

  work: str
  peer: str
  goal: float | None
  ratio: float
  ours: str
  script: str


def _training(found: Mapping[str, Any]) -> Iterator[Row]:
  goals = {
    "article": {"keras": 1.0, "torch": 0.45},
    "resnet18": {"keras": 1.0, "torch": 1.0},
    "resnet50": {"keras": 1.0, "torch": 1.0},
    "mobilefacenet": {"torch": 1.0},
  }
  for part, peers in goals.items():
    one = found[part]
    work = f"training step, {_NAMES[one['network']]}"
    if part != "article":
      work += f", {one['images'] // 3} triplets"
    own = next(n for n in one["milliseconds"] if n not in _PEERS)
    ours = f"{one['milliseconds'][own]:,.0f} ms"
    for peer, goal in peers.items():
      yield Row(
        work, _PEERS[peer], goal, one["ratio"][peer], ours, "training.py"
      )
  memory = found["memory"]
  yield Row(
    f"largest memory, ResNet-50, {memory['images'] // 3} triplets",
    "PyTorch",
    1.0,
    memory["memory_ratio"]["torch"],
    f"{memory['memory_bytes']['ours'] / 1e9:.1f} GB",
    "training.py",
  )
  mining = found["mining"]
  yield Row(
    f"mining the hardest triplets, ResNet-18, {mining['images']} images",
    "random triplets",
    1.02,
    mining["ratio"]["random"],
    f"{mining['milliseconds']['mined']:,.0f} ms",
    "training.py",
  )
  for name, one in found["feed"].items():
    if isinstance(one, dict) and "ratio" in one:
      network = name.removesuffix("_augmented")
      more = ", augmented" if name.endswith("_augmented") else ""
      yield Row(
        f"drawing from resident faces, {_NAMES[network]}{more}",
        "a fixed batch",
        1.1,
        one["ratio"]["fixed"],
        f"{one['milliseconds']['resident']:,.0f} ms",
        "training.py",
      )


def _forward(found: Mapping[str, Any]) -> Iterator[Row]:
  goals = {"dlib": 0.11, "torch": 1.0, "onnxruntime": 1.3}
  for case in found["cases"]:
    network, batch = case["network"], case["batch"]
    if network not in _NAMES or batch not in (1, 64):
      continue
    for peer, goal in goals.items():
      if f"{peer}_by_ours" in case:
        yield Row(
          f"embedding, {_NAMES[network]}, batch {batch}",
          _PEERS[peer],
          goal,
          1 / case[f"{peer}_by_ours"],
          f"{case['ours_ms_a_face']:.1f} ms a face",
          "encoders.py",
        )


def _startup(found: Mapping[str, Any]) -> Iterator[Row]:
  about = {
    "help": ("`facesiam --help`", "`import absl.app`", 1.5),
    "import": ("`import facesiam_jax`", "`import jax`", 0.3),
    "verify": ("`facesiam verify`, compiled before", "a script of dlib", 1.5),
  }
  for case in found["cases"]:
    work, peer, goal = about[case["case"]]
    ours = f"{case['seconds']['ours']:.2f} s"
    yield Row(work, peer, goal, case["ratio"], ours, "startup.py")


def _table(rows: list[Row]) -> str:
  titles = ["work", "beside", "ours", "ratio", "goal", "made by"]
  lines = [titles, ["---"] * len(titles)]
  for row in rows:
    missed = row.goal is not None and row.ratio > row.goal
    ratio = f"**{row.ratio:.2f}**" if missed else f"{row.ratio:.2f}"
    goal = "" if row.goal is None else f"{row.goal:g}"
    lines.append([row.work, row.peer, row.ours, ratio, goal, row.script])
  return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _growth(found: Mapping[str, Any]) -> str:
  """One line each for batch, devices and embedding: milliseconds an image."""
  names = {
    "pairs": "pairs in a batch",
    "devices": "devices on the same two cores",
    "dim": "numbers of an embedding",
  }
  return "\n".join(
    f"- {title}: "
    + ", ".join(
      f"{point['value']} {point['milliseconds_an_image']:.2f}"
      for point in found[name]
    )
    for name, title in names.items()
  )


def page(results: pathlib.Path) -> str:
  """Returns the page of a folder of result files, as Markdown."""
  read = lambda name: json.loads((results / f"{name}.json").read_text("utf-8"))
  training = read("training")
  template = pathlib.Path(__file__).with_suffix(".md").read_text("utf-8")
  startup = read("startup")
  minutes, seconds = divmod(round(startup["demo"]["seconds"]), 60)
  return template.format(
    demo=f"{minutes} min {seconds} s",
    training=_table([*_training(training)]),
    forward=_table([*_forward(read("encoders"))]),
    startup=_table([*_startup(startup)]),
    growth=_growth(training["growth"]),
  )


if __name__ == "__main__":
  (_ROOT / "docs" / "performance.md").write_text(
    page(_ROOT / "benchmarks" / "results"), encoding="utf-8"
  )
