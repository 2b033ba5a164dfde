"""Synthetic people: their contact sheet, and how hard they are to tell apart.

  .venv/bin/python benchmarks/synthetic.py --sheet=docs/synthetic.png \\
    --out=benchmarks/results/synthetic.json

Draws the README's contact sheet, one person a row; times the drawing; and
measures, on people held out, the equal error rate of raw pixels and of the
article's network after a short training with SupCon on drawn people: they
should be hard for the one and learnable for the other.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np
import outcome
import PIL.Image
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

_SHEET = flags.DEFINE_string("sheet", None, "PNG of the contact sheet.")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_STEPS = flags.DEFINE_integer(
  "steps", 600, "Steps of training; 0 leaves the errors out."
)
_ROWS, _COLUMNS, _SIDE = 4, 8, 72


def _draw_sheet(path: str) -> None:
  from facesiam_jax.data import synthetic

  # Drawn larger and shrunk, for smooth edges.
  faces = synthetic.make_faces(_ROWS, _COLUMNS, size=2 * _SIDE, channels=3)
  grid = faces.images.reshape(_ROWS, _COLUMNS, *faces.images.shape[1:])
  sheet = PIL.Image.fromarray(
    grid.transpose(0, 2, 1, 3, 4).reshape(
      2 * _SIDE * _ROWS, 2 * _SIDE * _COLUMNS, 3
    )
  )
  half = sheet.resize((_SIDE * _COLUMNS, _SIDE * _ROWS), PIL.Image.LANCZOS)
  half.save(path, optimize=True)


def _rate(size: int, channels: int) -> float:
  """Pictures drawn a second, compiling aside."""
  from facesiam_jax.data import synthetic

  def draw(count: int) -> None:
    synthetic.make_faces(count, 8, size=size, channels=channels)

  draw(8)
  begun = time.perf_counter()
  draw(64)
  return 512 / (time.perf_counter() - begun)


def _errors() -> dict[str, float]:
  """EER of raw pixels and of a trained network on people held out."""
  from facesiam_jax.data import sets
  from facesiam_jax.evaluation import measure
  from facesiam_jax.training import config as config_lib
  from facesiam_jax.training import run

  # The article's network, learning by SupCon.
  config = config_lib.default_config()
  with config.unlocked():
    config.dataset.name = "synthetic"
    config.dataset.num_people = 400
    config.dataset.images_per_person = 10
    config.dataset.num_validation = 16
    config.augment.flip = 0.5
    config.objective.args = {"num_people": 16, "images_per_person": 4}
    config.num_steps = _STEPS.value
    config.log_every = config.eval_every = config.checkpoint_every = 100
  with tempfile.TemporaryDirectory() as folder:
    bundle = run.train(config, pathlib.Path(folder) / "run")
  data = sets.load(config.dataset, image_size=config.image_size)
  measured = measure.measure(bundle, data)
  return {
    "raw_pixels_eer": _eer(measured.baselines["Raw pixels"], measured),
    "eigenfaces_eer": _eer(measured.baselines["Eigenfaces"], measured),
    "trained_eer": measured.result["eer"],
    "test_people": len(data.test),
    "training_people": len(data.train),
  }


def _eer(similarity: np.ndarray, measured: Any) -> float:
  from facesiam_jax.evaluation import protocols

  ids = measured.identity_ids
  report = protocols.verification_report(similarity, ids, None)
  return float(report["eer"])


def main(argv: list[str]) -> None:
  """Draws, times and measures."""
  del argv
  if _SHEET.value:
    _draw_sheet(_SHEET.value)
  if not _OUT.value:
    return
  result = outcome.environment(("jax", "flax", "numpy")) | {
    "pictures_per_second": {
      "64x64 grey": _rate(64, 1), "112x112 colour": _rate(112, 3)
    },
    "load_average": os.getloadavg()[0],
  }  # fmt: skip
  if _STEPS.value:
    result |= {"steps": _STEPS.value} | _errors()
  print(json.dumps(result))
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
