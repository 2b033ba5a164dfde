"""What a run was made with: versions, commit, devices, parameters.

run.json is written anew whenever a run is started or resumed, since the machine
may be another; parameters.txt says what is trained, and is the same each time.
"""

import json
import pathlib
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from typing import Any

import jax
import numpy as np

import facesiam_jax
from facesiam_jax import files

_PACKAGES = (
  *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
  *("grain", "tensorflow-datasets", "libtpu"),
)


def _versions() -> dict[str, str]:
  found = {"facesiam_jax": facesiam_jax.__version__}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue  # An extra that this run has no need of.
  return found


def _commit() -> str | None:
  """Returns the commit of the code, None where it is no checkout."""
  root = pathlib.Path(facesiam_jax.__file__).parents[1]
  if not (root / ".git").exists():
    return None  # Installed, perhaps inside somebody else's checkout.
  try:
    done = subprocess.run(
      ["git", "describe", "--always", "--dirty", "--abbrev=40"],
      cwd=root,
      capture_output=True,
      text=True,
      check=True,
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()


def _devices() -> list[dict[str, Any]]:
  return [
    {
      "id": device.id,
      "kind": device.device_kind,
      "platform": device.platform,
      "process": device.process_index,
    }
    for device in jax.devices()
  ]


def facts() -> dict[str, Any]:
  """Returns what made a result: the command, commit, Python and versions."""
  return {
    "command": _command(),
    "commit": _commit(),
    "python": platform.python_version(),
    "versions": _versions(),
  }


def _command() -> str:
  """Returns the command line as one would type it."""
  program, *words = sys.argv
  # `cli.main` puts the verb into the first word.
  return f"{pathlib.PurePath(program).name} {shlex.join(words)}".rstrip()


def write_run(workdir: pathlib.Path) -> None:
  """Writes run.json: how this run was started, by what code, on what."""
  facts = {
    "command": sys.argv,
    "commit": _commit(),
    "devices": _devices(),
    "processes": jax.process_count(),
    "machine": platform.platform(),
    "python": platform.python_version(),
    "versions": _versions(),
  }
  files.write(workdir / "run.json", json.dumps(facts, indent=1) + "\n")


def overview(params: Any) -> str:
  """Returns a table of the parameters: name, shape, numbers; their sum last.

  Args:
    params: a pytree of arrays, or of their shapes.

  Returns:
    Lines of text.
  """
  rows = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = "/".join(str(getattr(key, "key", key)) for key in path)
    shape = tuple(leaf.shape)
    rows.append((name, str(shape), int(np.prod(shape, dtype=np.int64))))
  total = sum(row[2] for row in rows)
  rows.append(("all", "", total))
  width = max(len(row[0]) for row in rows)
  lines = [f"{name:<{width}}  {shape:<22} {n:>14,}" for name, shape, n in rows]
  return "\n".join(lines) + "\n"


def write_overview(workdir: pathlib.Path, params: Any) -> None:
  """Writes parameters.txt."""
  files.write(workdir / "parameters.txt", overview(params))
