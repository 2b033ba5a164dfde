"""The page of what the benchmarks of speed measured: docs/performance.md.

  python benchmarks/performance_page.py --out=docs/performance.md

Every figure is read from benchmarks/results; a test holds that the page is
what this makes of them.
"""

import dataclasses
import json
import pathlib
from typing import Any

from absl import app, flags

_HERE = pathlib.Path(__file__).resolve().parent
RESULTS = _HERE / "results"
_MISSING = "not measured"
# Files that hold parts, each with the versions that it was measured with.
_BY_PARTS = ("training", "training_newest")
_WHOLE = ("encoders", "encoders_newest", "startup", "feed", "gallery")


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table.

  Attributes:
    work: what is done.
    against: what it is compared with.
    ratio: time or memory of ours by theirs; None where it was not measured.
    goal: the largest ratio that is good enough.
    figures: what the ratio is made of, as text.
    command: script that measures it.
    why: why the goal is not reached, where it is known.
  """

  work: str
  against: str
  ratio: float | None
  goal: float
  figures: str
  command: str
  why: str = ""

  @property
  def reached(self) -> bool:
    """Whether the goal is reached."""
    return self.ratio is not None and self.ratio <= self.goal

  def text(self) -> str:
    """Returns the line, as Markdown."""
    ratio = "-" if self.ratio is None else f"{self.ratio:.3g}"
    verdict = "yes" if self.reached else "**no**"
    if self.ratio is None:
      verdict = _MISSING
    elif not self.reached and self.why:
      verdict = f"**no**: {self.why}"
    cells = [self.work, self.against, f"{self.goal:g}", ratio, self.figures]
    return f"| {' | '.join([*cells, verdict, f'`{self.command}`'])} |"


def _read(name: str, folder: pathlib.Path) -> dict[str, Any]:
  path = folder / f"{name}.json"
  return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _span(numbers: list[float]) -> str:
  return f"{numbers[0]:.2f} to {numbers[1]:.2f}"


def _timed(
  part: dict[str, Any], peer: str, work: str, against: str, goal: float,
  command: str, why: str = "", ours: str = "ours",
) -> Row:  # fmt: skip
  """A row of `training_contenders.alternate`'s result."""
  ratio, figures = None, "-"
  if part:
    ratio = part["ratio"][peer]
    times = part["milliseconds"]
    figures = (
      f"{times[ours]:.0f} / {times[peer]:.0f} ms,"
      f" {_span(part['ratio_range'][peer])}"
    )
  return Row(work, against, ratio, goal, figures, command, why)


def _training_rows(found: dict[str, Any]) -> list[Row]:
  command = "benchmarks/training.py --parts="
  rows = []
  for part, name, goals in (
    ("article", "article CNN, 64 pairs, whole step", (1.0, 0.45)),
    ("resnet18", "ResNet-18 triplet step", (1.0, 1.0)),
    ("resnet50", "ResNet-50 triplet step", (1.0, 1.0)),
    ("mobilefacenet", "MobileFaceNet triplet step", (1.0, 1.0)),
  ):
    got = found.get(part, {})
    images = f", {got['images']} images" if got and part != "article" else ""
    sides = (("keras", "Keras `fit`"), ("torch", "PyTorch channels_last"))
    for (peer, against), goal in zip(sides, goals, strict=True):
      if not got or peer in got["ratio"]:
        rows.append(
          _timed(got, peer, name + images, against, goal, command + part)
        )
  rows.append(
    _timed(found.get("mining", {}), "random", "batch-hard mining, ResNet-18,"
           " 128 images", "random triplets", 1.02, command + "mining",
           ours="mined")
  )  # fmt: skip
  feed = found.get("feed", {})
  for name, work in (
    ("article_cnn", "resident feed, article CNN"),
    ("article_cnn_augmented", "resident feed, article CNN, both augmented"),
    ("resnet18", "resident feed, ResNet-18"),
    ("resnet18_augmented", "resident feed, ResNet-18, both augmented"),
  ):
    rows.append(
      _timed(feed.get(name, {}), "fixed", work, "a fixed batch", 1.1,
             command + "feed", ours="resident")
    )  # fmt: skip
  return [*rows, _memory_row(found.get("memory", {}), command + "memory")]


def _memory_row(part: dict[str, Any], command: str) -> Row:
  ratio, figures = None, "-"
  if part:
    ratio, got = part["memory_ratio"]["torch"], part["memory_bytes"]
    figures = f"{got['ours'] / 1e9:.2f} / {got['torch'] / 1e9:.2f} GB"
  work = "peak memory, ResNet-50, 48 triplets"
  return Row(work, "PyTorch", ratio, 1.0, figures, command)


def _forward_rows(found: dict[str, Any]) -> list[Row]:
  rows = []
  goals = {"dlib": 0.11, "torch": 1.0, "onnxruntime": 1.3}
  names = {"dlib": "dlib", "torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
  for case in found.get("cases", []):
    for peer, goal in goals.items():
      if f"{peer}_by_ours" not in case:
        continue
      figures = (
        f"{case['ours_ms_a_face']:.1f} /"
        f" {case[f'{peer}_ms_a_face']:.1f} ms a face"
      )
      work = f"forward, {case['network']}, batch {case['batch']}"
      ratio = 1 / case[f"{peer}_by_ours"]
      rows.append(
        Row(work, names[peer], ratio, goal, figures, "benchmarks/encoders.py")
      )
  return rows


def _import_text(found: dict[str, Any]) -> str:
  """Says how much of a command is importing JAX, from the same file."""
  cases = {case["case"]: case["seconds"] for case in found.get("cases", [])}
  if "import" not in cases:
    return ""
  return f"importing JAX alone takes {cases['import']['other']:.2f} s"


def _startup_rows(found: dict[str, Any]) -> list[Row]:
  known = {
    "help": ("`facesiam --help`", "`import absl.app`", 1.5, ""),
    "import": ("`import facesiam_jax`", "`import jax`", 0.3, ""),
    "verify": (
      "`facesiam verify A B`, warm",
      "a script of dlib's functions",
      1.5,
      _import_text(found),
    ),
  }
  rows = []
  for case in found.get("cases", []):
    work, against, goal, why = known[case["case"]]
    seconds = case["seconds"]
    figures = f"{seconds['ours']:.2f} / {seconds['other']:.2f} s"
    rows.append(
      Row(work, against, case["ratio"], goal, figures,
          "benchmarks/startup.py", why)
    )  # fmt: skip
  if demo := found.get("demo"):
    seconds = demo["seconds"]
    rows.append(
      Row("`make demo` after set-up", "five minutes", seconds / 300, 1.0,
          f"{seconds:.0f} / 300 s", "benchmarks/startup.py --demo")
    )  # fmt: skip
  return rows


def _gallery_rows(found: dict[str, Any]) -> list[Row]:
  rows = []
  for case in found.get("cases", []):
    times = case["milliseconds"]
    best = case["best_other"]
    work = (
      f"exact search, {case['templates']:,} x {case['width']},"
      f" {case['queries']} faces, k {case['k']}"
    )
    figures = f"{times['ours']:.1f} / {times[best]:.1f} ms"
    rows.append(
      Row(work, best, case["ratio"], 1.0, figures, "benchmarks/gallery.py")
    )
  return rows


def _feed_rows(found: dict[str, Any]) -> list[Row]:
  rows = []
  for case in found.get("cases", []):
    rates = case["images_per_second"]
    for peer in rates:
      if peer == "ours":
        continue
      figures = f"{rates['ours']:.0f} / {rates[peer]:.0f} images/s"
      rows.append(
        Row(f"feed, {case['case']}", f"DataLoader, {peer}",
            1 / case[f"ratio_to_{peer}"], 1.0, figures, "benchmarks/feed.py")
      )  # fmt: skip
  return rows


def table(folder: pathlib.Path = RESULTS) -> list[Row]:
  """Returns all rows that the result files hold, those of training always."""
  read = lambda name: _read(name, folder)
  return [
    *_training_rows(read("training")),
    *_forward_rows(read("encoders")),
    *_startup_rows(read("startup")),
    *_feed_rows(read("feed")),
    *_gallery_rows(read("gallery")),
  ]


def _versions(folder: pathlib.Path) -> str:
  lines = []
  for name in (*_BY_PARTS, *_WHOLE):
    found = _read(name, folder)
    parts = found if name in _BY_PARTS else {"": found}
    said = {
      ", ".join(f"{k} {v}" for k, v in part["versions"].items() if v)
      for part in parts.values()
      if part
    }
    lines += [f"- {name}.json: {versions}" for versions in sorted(said)]
  return "\n".join(lines)


def _text(rows: list[Row]) -> str:
  header = ["work", "against", "goal", "ratio", "ours / theirs", "reached"]
  header.append("command")
  lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
  return "\n".join([*lines, *(row.text() for row in rows)])


def _newest(folder: pathlib.Path) -> str:
  """Returns steps and forwards under another JAX, those measured only."""
  found = _training_rows(_read("training_newest", folder))
  rows = [row for row in found if row.ratio is not None]
  rows += _forward_rows(_read("encoders_newest", folder))
  return _text(rows) if rows else "Not measured."


def page(folder: pathlib.Path = RESULTS) -> str:
  """Returns the page of the results in a folder, as Markdown.

  Args:
    folder: of the JSON files.
  """
  template = (_HERE / "performance_page.md").read_text("utf-8")
  figure = ""
  if _read("training", folder).get("growth"):
    figure = "![Milliseconds an image](speed.png)\n"
  return template.format(
    table=_text(table(folder)),
    newest=_newest(folder),
    figure=figure,
    versions=_versions(folder),
  )


if __name__ == "__main__":
  _OUT = flags.DEFINE_string("out", None, "The page.", required=True)
  app.run(lambda _: pathlib.Path(_OUT.value).write_text(page(), "utf-8") and 0)
