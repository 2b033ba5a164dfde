"""How long commands take as whole processes: help, importing, verifying.

  pip install '.[dlib,olivetti]'
  python benchmarks/startup.py --out=benchmarks/results/startup.json

Each command is a process of its own, begun and waited for, ours and the other
alternating; medians of --rounds, the files and XLA's compiled programs already
on the disk from a first round that is not counted:

- `facesiam --help` beside `python -c 'import absl.app'`;
- `python -c 'import facesiam_jax'` beside `python -c 'import jax'`;
- `facesiam verify` with dlib's network, imported, beside a script of dlib's
  functions that does the same: finds the face in two photos, cuts it out,
  embeds it and compares. The photos are AT&T's, four times as large;
- `facesiam demo`, once, from an empty folder, with --demo: all that `make demo`
  runs after it has made the environment.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed rounds.")
_DEMO = flags.DEFINE_bool("demo", False, "Time the demo, and that alone.")
_PACKAGES = ("absl-py", "dlib-bin", "jax", "jaxlib", "numpy")
_LARGER = 4
_DLIB = """
import sys
import dlib, face_recognition_models as models, numpy, PIL.Image
find = dlib.get_frontal_face_detector()
shape = dlib.shape_predictor(models.pose_predictor_five_point_model_location())
embed = dlib.face_recognition_model_v1(models.face_recognition_model_location())
rows = []
for path in sys.argv[1:]:
  photo = numpy.asarray(PIL.Image.open(path).convert("RGB"))
  chip = dlib.get_face_chip(photo, shape(photo, find(photo)[0]))
  rows.append(numpy.array(embed.compute_face_descriptor(chip)))
print(numpy.linalg.norm(rows[0] - rows[1]))
"""


def _photos(folder: pathlib.Path) -> list[str]:
  """Writes two photos of one person."""
  import PIL.Image

  from facesiam_jax.data import olivetti

  paths = []
  for number, face in enumerate(olivetti.read_source()[0][:2]):
    image = PIL.Image.fromarray(face)
    image = image.resize((image.width * _LARGER, image.height * _LARGER))
    paths.append(str(folder / f"{number}.png"))
    image.save(paths[-1])
  return paths


def _facesiam(*words: str) -> list[str]:
  return [sys.executable, "-m", "facesiam_jax.cli.main", *words]


def _python(code: str, *words: str) -> list[str]:
  return [sys.executable, "-c", code, *words]


def _commands(folder: pathlib.Path) -> dict[str, dict[str, list[str]]]:
  """Returns the two commands of each case."""
  bundle, photos = str(folder / "dlib"), _photos(folder)
  _seconds(_facesiam("import", "--from=dlib", f"--bundle={bundle}"))
  return {
    "help": {
      "ours": _facesiam("--help"),
      "other": _python("import absl.app"),
    },
    "import": {
      "ours": _python("import facesiam_jax"),
      "other": _python("import jax"),
    },
    "verify": {
      "ours": _facesiam("verify", f"--bundle={bundle}", *photos),
      "other": _python(_DLIB, *photos),
    },
  }


def _seconds(command: list[str]) -> float:
  """Runs a command to its end."""
  begun = time.perf_counter()
  done = subprocess.run(
    command, cwd=_ROOT, capture_output=True, text=True, check=False
  )
  taken = time.perf_counter() - begun
  if done.returncode:
    raise SystemExit(f"{command} failed: {done.stderr[-2000:]}")
  return taken


def _case(name: str, commands: dict[str, list[str]]) -> dict[str, Any]:
  times: dict[str, list[float]] = {side: [] for side in commands}
  for round_number in range(_ROUNDS.value + 1):
    for side, command in commands.items():
      taken = _seconds(command)
      if round_number:
        times[side].append(taken)
  medians = {side: statistics.median(some) for side, some in times.items()}
  return {
    "case": name,
    "seconds": medians,
    "range": {side: [min(some), max(some)] for side, some in times.items()},
    "ratio": medians["ours"] / medians["other"],
    "load_average": os.getloadavg()[0],
  }


def _found() -> dict[str, Any]:
  """Returns what the result file has already."""
  if _OUT.value and os.path.exists(_OUT.value):
    return json.loads(pathlib.Path(_OUT.value).read_text("utf-8"))
  return {}


def _demo(folder: str) -> dict[str, Any]:
  """Times the demo."""
  taken = _seconds(_facesiam("demo", f"--workdir={folder}"))
  demo = {"seconds": taken, "load_average": os.getloadavg()[0]}
  return {"demo": demo | outcome.environment(_PACKAGES)}


def main(argv: list[str]) -> None:
  """Times the demo or all other cases; what the file has of the rest stays."""
  del argv
  with tempfile.TemporaryDirectory() as name:
    if _DEMO.value:
      outcome.write(_OUT.value, _found() | _demo(name))
      return
    cases = []
    for case, commands in _commands(pathlib.Path(name)).items():
      cases.append(_case(case, commands))
      print(json.dumps(cases[-1]), flush=True)
  result = outcome.environment(_PACKAGES)
  result |= {"rounds": _ROUNDS.value, "cases": cases}
  outcome.write(_OUT.value, _found() | result)


if __name__ == "__main__":
  app.run(main)
