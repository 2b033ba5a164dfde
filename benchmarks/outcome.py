"""What every result file says of the run, and writing it."""

import json
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

# The folders of an absolute path, which are one machine's own.
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^/]+/)+")


def command() -> str:
  """Returns the command line, of absolute paths only the last part."""
  words = (_FOLDERS.sub("", word) for word in sys.argv)
  return f"python {shlex.join(words)}"


def environment(packages: Sequence[str]) -> dict[str, Any]:
  """Returns the command, the commit, the machine and versions of packages.

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
    "command": command(),
    "commit": commit(),
    "python": platform.python_version(),
    "machine": platform.machine(),
    "cores": os.cpu_count(),
    "versions": versions,
  }


def commit() -> str:
  """Returns the commit that is checked out, and whether it was changed."""
  return subprocess.run(
    ["git", "describe", "--always", "--dirty"],
    cwd=pathlib.Path(__file__).parent,
    capture_output=True,
    text=True,
    check=False,
  ).stdout.strip()


def write(path: str | None, result: dict[str, Any]) -> None:
  """Writes a result file, and its folder; None writes nothing."""
  if path:
    out = pathlib.Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
