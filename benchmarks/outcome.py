"""What every result file says of the run, and writing it."""

import json
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any


def environment(packages: Sequence[str]) -> dict[str, Any]:
  """Returns the command, the machine and the versions of packages.

  Args:
    packages: names on the package index; one that is absent gets None.
  """
  versions: dict[str, str | None] = {}
  for name in packages:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = None
  return {
    "command": f"python {' '.join(sys.argv)}",
    "python": platform.python_version(),
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "versions": versions,
  }


def write(path: str | None, result: dict[str, Any]) -> None:
  """Writes a result file, and its folder; None writes nothing."""
  if path:
    out = pathlib.Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
