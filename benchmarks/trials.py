"""Runs of the tests on one mutant: clones, stages, forked children.

Importing JAX and the rest takes longer than most tests, so a trial is a fork of
a process that has imported them. That is safe as long as no JAX backend has
started before the fork, and facesiam_jax itself is imported by the child, from
a clone of the repository in which one module is a mutant. A child only reads
the cache of compiled functions: killed while writing, it would spoil it.
"""

import contextlib
import dataclasses
import importlib
import inspect
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import (
  Callable,
  Generator,
  Iterable,
  Iterator,
)
from typing import Any, TypeVar

import mutant_plan

_PRELOADED = (
  *("jax", "jax.numpy", "flax.linen", "chex", "doctest", "pytest"),
  *("scipy.stats", "scipy.spatial", "sklearn.metrics", "sklearn.isotonic"),
)
_NO_TESTS = 5  # pytest's exit status where -k chooses none
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a stage ended.

  Attributes:
    passed: whether no test failed.
    by: the test that failed, "time limit", or what ended the process.
    seconds: processor time.
    output: what pytest printed.
    entered: test file or test -> the functions it entered, if recorded.
  """

  passed: bool
  by: str
  seconds: float
  output: str
  entered: dict[str, list[str]]


def clone(root: pathlib.Path, folder: pathlib.Path) -> None:
  """Clones the last commit; changes not committed are no part of it."""
  command = ["git", "clone", "--quiet", "--shared", str(root), str(folder)]
  subprocess.run(command, check=True)


def preload(folder: pathlib.Path, cache: pathlib.Path) -> None:
  """Imports what a clone imports, without starting a backend."""
  os.environ.update(
    JAX_PLATFORMS="cpu",
    TF_CPP_MIN_LOG_LEVEL="3",
    JAX_COMPILATION_CACHE_DIR=str(cache),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    # As tests/conftest.py has it; JAX reads this when it is imported, here.
    JAX_DISABLE_MOST_OPTIMIZATIONS="1",
    # Plugins of others cost start-up time and nothing here needs them.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    OPENBLAS_NUM_THREADS="1",
  )
  paths = folder.rglob("*.py")
  text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
  for name in _PRELOADED:
    if not re.search(rf"\b{name.split('.')[0]}\b", text):
      continue
    with contextlib.suppress(ImportError):
      importlib.import_module(name)


class _Recorder:
  """A pytest plugin that notes which functions of a folder a test enters.

  What a test file has compiled is not entered again, so a file's tests count
  together; the references and examples, each with its own function, do not.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder, self._prefix = f"{folder}/", f"{folder}/facesiam_jax/"
    self._codes: dict[int, Any] = {}
    self.entered: dict[str, set[str]] = {}

  def _enter(self, frame: Any, event: str, argument: Any) -> None:
    del argument
    if event == "call":
      self._codes[id(frame.f_code)] = frame.f_code

  def _note(self, name: str) -> None:
    names = self.entered.setdefault(name, set())
    for code in self._codes.values():
      is_class = not code.co_flags & inspect.CO_OPTIMIZED
      if code.co_filename.startswith(self._prefix) and not is_class:
        path = code.co_filename.removeprefix(self._folder)
        names.add(f"{path}:{code.co_qualname.split('.<locals>')[0]}")
    self._codes = {}

  def pytest_sessionstart(self) -> None:
    sys.setprofile(self._enter)

  def pytest_runtest_logfinish(self, nodeid: str) -> None:
    file = nodeid.split("::")[0]
    self._note(
      nodeid if file in (mutant_plan.VARIANTS, mutant_plan.EXAMPLES) else file
    )

  def pytest_sessionfinish(self) -> None:
    sys.setprofile(None)


def _child(
  folder: pathlib.Path, stage: mutant_plan.Stage, records: bool
) -> None:
  """Runs pytest in the clone; does not return."""
  code = 1
  try:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    file = os.open(folder.with_suffix(".log"), flags, 0o644)
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
    import pytest

    if not records and "jax" in sys.modules:
      name = "jax_persistent_cache_min_compile_time_secs"
      sys.modules["jax"].config.update(name, float("inf"))
    arguments = ["-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    if stage.chosen:
      arguments += ["-k", stage.chosen]
    recorder = _Recorder(folder)
    plugins = [recorder] if records else []
    code = int(pytest.main([*arguments, *stage.files], plugins=plugins))
    entered = {name: sorted(v) for name, v in recorder.entered.items()}
    folder.with_suffix(".json").write_text(json.dumps(entered))
    sys.stdout.flush()
  finally:
    os._exit(code)


def _failed_test(output: str) -> str:
  for line in output.splitlines():
    if line.startswith(("FAILED ", "ERROR ")):
      return line.split(" ", 1)[1].split(" - ")[0]
  return "no report"


def run(
  folder: pathlib.Path,
  stage: mutant_plan.Stage,
  limit: int,
  *,
  records: bool = False,
) -> Generator[None, None, Outcome]:
  """Runs one stage in a forked child.

  Args:
    folder: the clone.
    stage: what to run.
    limit: seconds of processor time after which it counts as failed.
    records: whether it adds to the cache of compiled functions, and notes which
      functions were entered.

  Yields:
    None, while it runs; when closed, the child is killed.

  Returns:
    The Outcome.
  """
  pid = os.fork()
  if pid == 0:
    # Limits that hold even where this process is gone or a loop is in C++. The
    # second is for what waits for ever without computing.
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    signal.alarm(20 * limit)
    _child(folder, stage, records)
  done, status, usage = 0, 0, None
  try:
    while not done:
      yield
      done, status, usage = os.wait4(pid, os.WNOHANG)
  finally:
    if not done:
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
  assert usage is not None
  code = os.waitstatus_to_exitcode(status)
  log = folder.with_suffix(".log")
  output = log.read_text(encoding="utf-8", errors="replace")
  seconds = usage.ru_utime + usage.ru_stime
  passed = code in (0, _NO_TESTS)
  by = "" if passed else _failed_test(output)
  if code < 0:
    late = seconds >= limit - 1 or -code == signal.SIGALRM
    by = "time limit" if late else signal.Signals(-code).name
  entered = {}
  if passed and records:
    entered = json.loads(folder.with_suffix(".json").read_text())
  return Outcome(passed, by, seconds, output, entered)


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
