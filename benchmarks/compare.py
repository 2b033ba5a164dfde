"""The documents' systems side by side, on the same people: the README's tables.

  F="facesiam prepare --data_dir=DATA"
  $F --dataset=folder --manual_dir=celeba_wild112.tar \\
    --partition=celeba_manual/list_eval_partition.txt --num_validation=40 \\
    --alignment=arcface_112
  python benchmarks/compare.py --data_dir=DATA \\
    --out=benchmarks/results/compare.json [--data=celeba] [--parts=losses,...]

One small network, the same people, batches, augmentation and number of images;
only the loss differs. Each row tries two learning rates on validation people,
and is trained with three seeds. Intervals are of people and seeds drawn
together. What is trained is kept in --workdir, and a call that was stopped is
gone on with; each part is written as soon as it is done. The parts:

  losses     the table: eight losses, nine rows, each scored three ways
  add_people a new person: enrolment against a classifier's new output (celeba)
  curve      people x photos to train on, SupCon against classifier (celeba)
  sizes      length of the embedding against what compares it (celeba)
  frozen     a head fitted alone, on embeddings that stay as they are (celeba)
  speed      images a second in training, rows in turn (celeba)
"""

import importlib
import json
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))

import compare_data  # noqa: E402
import compare_systems  # noqa: E402
import outcome  # noqa: E402
from absl import app, flags, logging  # noqa: E402

_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Folder of the prepared sets; None for the usual one."
)
_DATA = flags.DEFINE_enum(
  "data", "olivetti", list(compare_systems.SETTINGS), "Whose faces."
)
_PARTS = flags.DEFINE_list("parts", None, "Which parts; None makes all.")
_OUT = flags.DEFINE_string("out", None, "JSON file, whose other parts stay.")
_WORKDIR = flags.DEFINE_string(
  "workdir", "runs/compare", "Folder for what was trained."
)
_TABLE = flags.DEFINE_bool("table", False, "Only print the tables of --out.")
_PAGE = flags.DEFINE_string("page", None, "Page that --table writes too.")
_PICTURE = flags.DEFINE_string("picture", None, "PNG that --table draws too.")
_PACKAGES = ("jax", "flax", "optax", "numpy", "scikit-learn")
_OF = {
  "olivetti": ("losses",),
  "celeba": ("losses", "add_people", "curve", "sizes", "frozen", "speed"),
}


def _keep_compiled() -> None:
  """Has a call that goes on with another's work compile nothing again."""
  import jax

  cache = pathlib.Path(_WORKDIR.value).absolute() / "compiled"
  jax.config.update("jax_compilation_cache_dir", str(cache))


def _stored() -> dict[str, Any]:
  if _OUT.value and os.path.exists(_OUT.value):
    return json.loads(pathlib.Path(_OUT.value).read_text(encoding="utf-8"))
  return {}


def _show() -> None:
  """Prints the tables; draws the figure, writes the page where asked for."""
  import compare_table

  print(compare_table.text(_OUT.value))
  if _PICTURE.value:
    import compare_figure

    compare_figure.draw(_stored(), _PICTURE.value)
  if _PAGE.value:
    import compare_page

    text = compare_page.page(_stored())
    pathlib.Path(_PAGE.value).write_text(text, encoding="utf-8")


def main(argv: list[str]) -> None:
  """Makes the parts one after another, and writes each."""
  del argv
  if _TABLE.value:
    _show()
    return
  logging.set_verbosity(logging.WARNING)
  data = _DATA.value
  parts = _PARTS.value or _OF[data]
  if wrong := sorted(set(parts) - set(_OF[data])):
    raise app.UsageError(
      f"--parts={','.join(wrong)}: of {data} there are {', '.join(_OF[data])}."
    )
  _keep_compiled()
  environment = outcome.environment(_PACKAGES)
  setting = compare_systems.SETTINGS[data]
  tasks = compare_data.load(data, _DATA_DIR.value, setting.images_per_person)
  runs = compare_systems.Runs(pathlib.Path(_WORKDIR.value))
  for part in parts:
    begun = time.monotonic()
    module = importlib.import_module(f"compare_{part}")
    result = module.run(runs, data, tasks) | environment
    result["seconds_of_this_call"] = time.monotonic() - begun
    stored = _stored()
    stored.setdefault(data, {})[part] = result
    outcome.write(_OUT.value, stored)
    print(f"{data} {part}: {result['seconds_of_this_call']:.0f} s")


if __name__ == "__main__":
  app.run(main)
