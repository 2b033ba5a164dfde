"""The long tests: kills, repetitions, mutants, every Python found.

  python benchmarks/soak.py --out=benchmarks/results/soak.json

Runs the tests marked `soak` (kills of training and of enrolment at many
moments, disks that fill up), the property tests on fresh examples, mutants of
the pure rooms for a while (benchmarks/mutants.py) and, under each newer Python
on this machine, the fast tests with the newest JAX that Python allows, in an
environment of its own. The result file is written after each step, so that a
kill loses one step; --steps runs some of them and keeps what the file has of
the others, each with the commit it was run at.
"""

import glob
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from absl import app, flags

from facesiam_jax import files

_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_PYTHONS = flags.DEFINE_list(
  "pythons", ["3.12", "3.13"], "Versions to run the fast tests under, if found."
)
_MUTANT_MINUTES = flags.DEFINE_float(
  "mutant_minutes", 20, "Time to try mutants for; 0 leaves them out."
)
_STEPS = flags.DEFINE_list(
  "steps", ["tests", "properties", "mutants", "pythons"], "Which steps to run."
)
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


def _run(name: str, command: list[str]) -> dict[str, Any]:
  """Runs a command in the root; returns its outcome and last line."""
  print(f"== {name}", flush=True)
  begun = time.monotonic()
  done = subprocess.run(
    command, cwd=_ROOT, text=True, capture_output=True, check=False
  )
  lines = [line for line in done.stdout.splitlines() if line.strip()]
  last = lines[-1].strip("= ") if lines else done.stderr[-300:]
  print(last, flush=True)
  if done.returncode:
    print(done.stdout[-5000:], done.stderr[-2000:], sep="\n", flush=True)
  return {
    "name": name,
    "command": " ".join(command).replace(str(_ROOT) + os.sep, ""),
    "status": done.returncode,
    "summary": re.sub(r" in [0-9.]+s.*", "", last),
    "seconds": round(time.monotonic() - begun),
  }


def _find_python(version: str) -> str | None:
  """Returns a working interpreter of the version, or None."""
  candidates = [shutil.which(f"python{version}") or ""]
  candidates += sorted(
    glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}*/bin/python"))
  )
  for candidate in filter(None, candidates):
    done = subprocess.run(
      [candidate, "-c", "import venv"], capture_output=True, check=False
    )
    if done.returncode == 0:
      return candidate
  return None


def _versions(python: str) -> dict[str, str]:
  code = (
    "import json; from importlib import metadata as m; "
    f"print(json.dumps({{n: m.version(n) for n in {_PACKAGES!r}}}))"
  )
  done = subprocess.run(
    [python, "-c", code], capture_output=True, text=True, check=False
  )
  return json.loads(done.stdout) if done.returncode == 0 else {}


def _other_python(version: str) -> dict[str, Any]:
  """Installs the newest everything under a Python; runs the fast tests."""
  interpreter = _find_python(version)
  if interpreter is None:
    return {"name": f"python {version}", "summary": "not on this machine"}
  folder = _ROOT / f".venv-{version}"
  python = str(folder / "bin" / "python")
  if not folder.exists():
    subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
  install = [python, "-m", "pip", "install", "--quiet", "--upgrade"]
  subprocess.run(
    [*install, "--editable", ".[olivetti,dev]"], cwd=_ROOT, check=True
  )
  result = _run(
    f"fast tests, python {version}",
    [python, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow and not soak"],
  )
  return {**result, "versions": _versions(python)}


def _mutants() -> list[dict[str, Any]]:
  """Tries mutants; the result carries their counts by room."""
  if not _MUTANT_MINUTES.value:
    return []
  out = _ROOT / "benchmarks" / "results" / "mutants.json"
  command = [sys.executable, "benchmarks/mutants.py", f"--out={out}"]
  command.append(f"--minutes={_MUTANT_MINUTES.value:g}")
  result = _run("mutants", command)
  rooms = json.loads(out.read_text())["summary"] if out.exists() else {}
  return [{**result, "rooms": rooms}]


def _properties() -> dict[str, Any]:
  """Tries the properties of the pure rooms on fresh random examples."""
  command = ["env", "FACESIAM_HYPOTHESIS=soak", sys.executable, "-m", "pytest"]
  return _run(
    "property tests, fresh examples",
    [*command, "-q", "-n", "auto", "--dist", "worksteal", "tests/properties"],
  )


def _steps() -> Iterator[dict[str, Any]]:
  """Runs the wanted steps, one after another."""
  unknown = set(_STEPS.value) - {"tests", "properties", "mutants", "pythons"}
  if unknown:
    raise app.UsageError(f"--steps: unknown {', '.join(sorted(unknown))}.")
  if "tests" in _STEPS.value:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "soak"]
    yield _run("soak tests: kills and repetitions", command)
  if "properties" in _STEPS.value:
    yield _properties()
  if "mutants" in _STEPS.value:
    yield from _mutants()
  if "pythons" in _STEPS.value:
    yield from map(_other_python, _PYTHONS.value)


def _write(report: dict[str, Any]) -> None:
  if _OUT.value:
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    files.write(pathlib.Path(_OUT.value), text)


def main(argv: list[str]) -> None:
  """Runs the steps; exit status 1 if anything failed."""
  del argv
  describe = ["git", "describe", "--always", "--dirty"]
  commit = subprocess.run(
    describe, capture_output=True, text=True, cwd=_ROOT, check=True
  ).stdout.strip()
  # Here the tests compile as users do; see tests/conftest.py.
  os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"
  results: dict[str, Any] = {}
  if _OUT.value and pathlib.Path(_OUT.value).exists():
    results = json.loads(pathlib.Path(_OUT.value).read_text())["results"]
  failed = False
  for result in _steps():
    failed |= bool(result.get("status"))
    results[result.pop("name")] = {**result, "commit": commit}
    _write(
      {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "results": results,
      }
    )
  sys.exit(failed)


if __name__ == "__main__":
  app.run(main)
