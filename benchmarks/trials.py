"""Runs of the tests on one mutant: clones, stages, forked children.

Importing JAX and the rest takes longer than most tests, so a trial is a fork of
a process that has imported them. That is safe as long as no JAX backend has
started before the fork, and facesiam_jax itself is imported by the child, from
a clone of the repository in which one module is a mutant. A child only reads
the cache of compiled functions: killed while writing, it would spoil it.
"""

import ast
import contextlib
import dataclasses
import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

_PRELOADED = (
  *("jax", "jax.numpy", "flax.linen", "chex", "doctest", "pytest"),
  *("scipy.stats", "scipy.spatial", "sklearn.metrics", "sklearn.isotonic"),
)
_VARIANTS = "tests/wrong_variants_test.py"
_EXAMPLES = "tests/doctest_test.py"
_NO_TESTS = 5  # pytest's exit status where -k chooses none
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Stage:
  """One run of pytest.

  Attributes:
    files: test files, below the root.
    chosen: pytest's -k; empty for all tests.
  """

  files: tuple[str, ...]
  chosen: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a stage ended.

  Attributes:
    passed: whether no test failed.
    by: the test that failed, "time limit", or what ended the process.
    seconds: wall time.
    output: what pytest printed.
  """

  passed: bool
  by: str
  seconds: float
  output: str


def room_of(module: str) -> str:
  """ "losses" of facesiam_jax/losses/triplet.py."""
  return pathlib.PurePath(module).parts[1].removesuffix(".py")


def test_files(folder: pathlib.Path, room: str) -> tuple[str, ...]:
  """Test files of a room, below the folder of a clone."""
  found = sorted((folder / "tests" / room).glob("*_test.py"))
  found += (folder / "tests").glob(f"{room}_test.py")
  return tuple(str(path.relative_to(folder)) for path in found)


def room_stage(folder: pathlib.Path, room: str) -> Stage:
  """References and examples of a whole room."""
  files = [name for name in (_VARIANTS, _EXAMPLES) if (folder / name).exists()]
  chosen = f"right_implementation and {room}. or examples_print and .{room}"
  return Stage(tuple(files), chosen)


def stages(folder: pathlib.Path, module: str) -> list[Stage]:
  """What to run on a mutant of a module, the likeliest to notice it first."""
  room, path = room_of(module), pathlib.PurePath(module)
  files = test_files(folder, room)
  stem = path.stem.strip("_")
  own = tuple(f for f in files if pathlib.PurePath(f).name.startswith(stem))
  tree = ast.parse((folder / module).read_text(encoding="utf-8"))
  chosen = [
    f"right_implementation and {room}.{node.name}"
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
  ]
  dotted = ".".join(path.with_suffix("").parts)
  chosen.append(f"examples_print and {dotted}")
  whole = room_stage(folder, room)
  rest = tuple(name for name in files if name not in own)
  found = [
    Stage(own),
    Stage(whole.files, " or ".join(chosen)),
    Stage(rest),
    whole,
  ]
  return [stage for stage in found if stage.files]


def clone(root: pathlib.Path, folder: pathlib.Path) -> None:
  """Clones the last commit; changes not committed are no part of it."""
  command = ["git", "clone", "--quiet", "--shared", str(root), str(folder)]
  subprocess.run(command, check=True)


def preload(cache: pathlib.Path) -> None:
  """Imports what the tests import, without starting a backend."""
  os.environ.update(
    JAX_PLATFORMS="cpu",
    TF_CPP_MIN_LOG_LEVEL="3",
    JAX_COMPILATION_CACHE_DIR=str(cache),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    # Plugins of others cost start-up time and nothing here needs them.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    OPENBLAS_NUM_THREADS="1",
  )
  for name in _PRELOADED:
    with contextlib.suppress(ImportError):
      importlib.import_module(name)


def _child(
  folder: pathlib.Path, stage: Stage, log: pathlib.Path, writes: bool
) -> None:
  """Runs pytest in the clone; does not return."""
  code = 1
  try:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    # A mutant may have the size and the second of the file it replaces, which
    # is all that tells old byte code from new.
    sys.dont_write_bytecode = True
    os.environ.update(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    sys.path.insert(0, str(folder))
    for name in [n for n in sys.modules if n.split(".")[0] == "facesiam_jax"]:
      del sys.modules[name]
    if not writes:
      import jax

      name = "jax_persistent_cache_min_compile_time_secs"
      jax.config.update(name, float("inf"))
    import pytest

    arguments = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    if stage.chosen:
      arguments += ["-k", stage.chosen]
    code = int(pytest.main([*arguments, *stage.files]))
    sys.stdout.flush()
  finally:
    os._exit(code)


def _failed_test(output: str) -> str:
  for line in output.splitlines():
    if line.startswith(("FAILED ", "ERROR ")):
      return line.split(" ", 1)[1].split(" - ")[0]
  return "no report"


def run(
  folder: pathlib.Path, stage: Stage, limit: float, *, writes: bool = False
) -> Generator[None, None, Outcome]:
  """Runs one stage in a forked child.

  Args:
    folder: the clone.
    stage: what to run.
    limit: seconds after which it counts as failed.
    writes: whether it adds to the cache of compiled functions.

  Yields:
    None, while it runs; when closed, the child is killed.

  Returns:
    The Outcome.
  """
  log = folder.with_suffix(".log")
  begun = time.monotonic()
  pid = os.fork()
  if pid == 0:
    # Ends the child even where this process is gone or a loop is in C++.
    signal.alarm(int(limit) + 1)
    _child(folder, stage, log, writes)
  done, status = 0, 0
  try:
    while not done:
      yield
      done, status = os.waitpid(pid, os.WNOHANG)
  finally:
    if not done:
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
  code = os.waitstatus_to_exitcode(status)
  output = log.read_text(encoding="utf-8", errors="replace")
  passed = code in (0, _NO_TESTS)
  by = "" if passed else _failed_test(output)
  if code < 0:
    name = signal.Signals(-code).name
    by = "time limit" if name == "SIGALRM" else name
  return Outcome(passed, by, time.monotonic() - begun, output)


def pool(
  folders: Iterable[pathlib.Path],
  jobs: Iterator[Callable[[pathlib.Path], Generator[None, None, _T]]],
  deadline: float,
) -> Iterator[_T]:
  """Works through jobs, one at a time in each clone.

  Args:
    folders: the clones.
    jobs: each takes a clone and runs while it is iterated.
    deadline: time.monotonic() at which what still runs is given up.

  Yields:
    What the jobs return, as they end.
  """
  slots: list[Any] = [(folder, None) for folder in folders]
  try:
    while slots and time.monotonic() < deadline:
      for slot in list(slots):
        folder, running = slot
        if running is None:
          job = next(jobs, None)
          slots.remove(slot)
          if job is not None:
            slots.append((folder, job(folder)))
          continue
        try:
          next(running)
        except StopIteration as end:
          slots[slots.index(slot)] = (folder, None)
          yield end.value
      time.sleep(0.01)
  finally:
    for _, running in slots:
      if running is not None:
        running.close()
