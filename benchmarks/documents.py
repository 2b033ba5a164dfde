"""The recipes of the four documents this grew from: the README's table.

  python benchmarks/documents.py --out=benchmarks/results/documents.json \\
    [RECIPE ...]

Trains each recipe by the last command of its head comment, for two cores, and
measures it on people held out, as `facesiam evaluate` does: the ten of fold 0
of Olivetti, or the 58 test people of celeba_wild112. Rows of the recipes named
are made anew and those of others kept; without names all are made. A run that
was stopped is gone on with, and its times are then those of the last part.
The data sets are read where `facesiam prepare` wrote them; TFDS_DATA_DIR moves
that.
"""

import ast
import json
import os
import pathlib
import resource
import shlex
import subprocess
import sys
import time
from typing import Any, NamedTuple

import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
_PACKAGES = ("jax", "flax", "optax", "numpy", "opencv-python-headless")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_TABLE = flags.DEFINE_bool("table", False, "Only print the table of --out.")
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/benchmark-documents", "Folder for the runs."
)


class _Row(NamedTuple):
  """A row of the table: the document, and which of its systems."""

  document: str
  what: str


_ROWS = {
  "difference_bce": _Row(
    "Siamese Networks or Binary Classification?",
    "logistic regression on the difference",
  ),
  "chi_square_bce": _Row("", "logistic regression on chi-square"),
  "olivetti_article": _Row(
    "Face Recognition using Siamese Networks", "distance, sigmoid, BCE"
  ),
  "euclidean_bce": _Row(
    "Siamese Neural networks for Face Recognition", "BCE of the distance"
  ),
  "euclidean_contrastive": _Row("", "contrastive loss of the distance"),
  "csc413_triplet": _Row("CSC413 report", "random triplets"),
  "csc413_cnn": _Row("", "its baseline, a classifier"),
}
_METRICS = (
  ("eer", "EER"),
  ("triplet_accuracy", "triplet accuracy"),
  ("auc", "AUC"),
  ("one_shot_accuracy", "one-shot, 10-way"),
)


def _processor_seconds() -> float:
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


def _command(recipe: str) -> list[str]:
  """Returns the last command of a recipe's head comment, less --workdir."""
  path = _ROOT / "configs" / f"{recipe}.py"
  tree = ast.parse(path.read_text(encoding="utf-8"))
  text = (ast.get_docstring(tree) or "").replace("\\\n", "")
  lines = [line.strip() for line in text.splitlines()]
  last = [line for line in lines if line.startswith("facesiam train ")][-1]
  words = shlex.split(last)[1:]
  return [word for word in words if not word.startswith("--workdir=")]


def _train(recipe: str, workdir: pathlib.Path) -> dict[str, Any]:
  """Trains in a process of its own; returns what it took."""
  command = _command(recipe)
  begun, used = time.monotonic(), _processor_seconds()
  subprocess.run(
    [sys.executable, "-m", "facesiam_jax.cli.main", *command]
    + [f"--workdir={workdir}"],
    env={**os.environ, "PYTHONPATH": str(_ROOT)},
    check=True,
  )
  return {
    "command": f"facesiam {' '.join(command)} --workdir=DIR",
    "train_seconds": time.monotonic() - begun,
    "train_processor_seconds": _processor_seconds() - used,
    "load_average_after": os.getloadavg()[0],
  }


def _row(recipe: str) -> dict[str, Any]:
  """Trains and measures one recipe."""
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.evaluation import measure

  environment = outcome.environment(_PACKAGES)
  workdir = pathlib.Path(_WORKDIR.value) / recipe
  taken = _train(recipe, workdir)
  bundle = bundle_lib.load(workdir / "bundle")
  data = measure.load_data(bundle)
  config = bundle.spec["config"]
  return {
    **environment,
    **taken,
    "num_steps": config["num_steps"],
    "training_people": len(data.train),
    "training_images": len(data.of(data.train)[1]),
    "result": measure.measure(bundle, data).result,
  }


def _cell(result: dict[str, Any], name: str) -> str:
  text = f"{100 * result[name]:.1f}"
  interval = result["interval"] or {}
  if name in interval:
    low, high = interval[name]
    text += f" ({100 * low:.1f} to {100 * high:.1f})"
  return text


def _table(rows: dict[str, dict[str, Any]]) -> str:
  """The README's table, in Markdown, in %."""
  titles = ["document", "recipe", *(title for _, title in _METRICS)]
  titles += ["people, faces", "processor time"]
  lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
  for recipe, about in _ROWS.items():
    cells = [about.document, f"[{about.what}](configs/{recipe}.py)"]
    if recipe in rows:
      row = rows[recipe]
      result = row["result"]
      cells += [_cell(result, name) for name, _ in _METRICS]
      cells.append(f"{result['num_people']}, {result['num_images']:,}")
      cells.append(f"{row['train_processor_seconds'] / 60:.0f} min")
    else:
      cells += ["-"] * (len(titles) - len(cells))
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Makes the rows, one after another, and writes them as they come."""
  recipes = argv[1:] or list(_ROWS)
  for recipe in recipes:
    if recipe not in _ROWS:
      raise app.UsageError(f"{recipe!r} is none of {', '.join(_ROWS)}.")
  rows: dict[str, Any] = {}
  if _OUT.value and os.path.exists(_OUT.value):
    rows = json.loads(pathlib.Path(_OUT.value).read_text(encoding="utf-8"))
  for recipe in () if _TABLE.value else recipes:
    rows[recipe] = _row(recipe)
    outcome.write(_OUT.value, rows)
  print(_table(rows))


if __name__ == "__main__":
  app.run(main)
