"""Contenders of benchmarks/training.py: a process each, one at work at a time.

Each framework has threads of its own, some of which spin for a while after
their work; in one process they would take the cores, and the memory's peak
would be of all. So each contender is a process that waits for its turn, and a
pause goes before each turn.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import training_cases as cases

from facesiam_jax.cli import common

_HERE = pathlib.Path(__file__).resolve().parent
_PAUSE_S = 0.3
_MODULES = {"torch": "training_torch", "keras": "training_keras"}
# Loss of a step after a few: float32 sums in another order.
_TOLERANCE = 2e-3


class Contender:
  """A side in a process of its own.

  Attributes:
    name: "torch" and "keras" are the peers; any other is ours.
  """

  def __init__(
    self,
    name: str,
    case: cases.Case,
    options: dict[str, Any] | None = None,
    devices: int = 1,
  ) -> None:
    self.name = name
    said = {"case": dataclasses.asdict(case), "options": options or {}}
    environment = dict(os.environ)
    if devices > 1:
      flag = f"--xla_force_host_platform_device_count={devices}"
      environment["XLA_FLAGS"] = flag
    if name not in _MODULES:
      # As `facesiam train` starts.
      environment = common.huge_pages_environment(environment) or environment
    self._errors = tempfile.TemporaryFile(mode="w+")
    self._process = subprocess.Popen(
      [
        sys.executable,
        str(_HERE / "training_worker.py"),
        _MODULES.get(name, "training_ours"),
        json.dumps(said),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env=environment,
      text=True,
    )

  def ask(self, **what: Any) -> dict[str, Any]:
    """Returns the answer; see training_worker.py.

    Raises:
      SystemExit: if the process has ended; says what it said last.
    """
    assert self._process.stdin and self._process.stdout
    with contextlib.suppress(BrokenPipeError):
      print(json.dumps(what), file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    if not line:
      self._errors.seek(0)
      raise SystemExit(f"{self.name} ended: {self._errors.read()[-3000:]}")
    return json.loads(line)

  def seconds(self, steps: int) -> float:
    """Returns the seconds a step took, the mean of some in a row.

    A step that is not timed goes before them, as in a run of many: what a
    framework gave back after its last turn a virtual machine may have handed on
    by now, and has to find anew (ResNet-50, ours: 3 s more).
    """
    time.sleep(_PAUSE_S)
    self.ask(do="steps", count=1)
    return self.ask(do="steps", count=steps)["seconds"] / steps

  def close(self) -> None:
    """Ends the process."""
    assert self._process.stdin
    self._process.stdin.close()
    self._process.wait()
    self._errors.close()


@contextlib.contextmanager
def running(some: list[Contender]) -> Iterator[list[Contender]]:
  """Ends all contenders' processes, whatever happens."""
  try:
    yield some
  finally:
    for contender in some:
      contender.close()


def check_alike(case: cases.Case, names: list[str]) -> dict[str, Any]:
  """Checks that all sides make the same steps from the same weights.

  Args:
    case: of any batch; dropout is off here, since each draws its own.
    names: contenders, PyTorch among them, whose weights all take.

  Returns:
    Parameters, and the losses of each side.

  Raises:
    SystemExit: if they differ.
  """
  case = dataclasses.replace(case, dropout=0.0)
  found: dict[str, Any] = {}
  with tempfile.TemporaryDirectory() as folder:
    path = str(pathlib.Path(folder) / "weights.npz")
    for name in ("torch", *(x for x in names if x != "torch")):
      with running([Contender(name, case)]) as (contender,):
        found[name] = contender.ask(do="check", path=path)
  counts = {side["parameters"] for side in found.values()}
  if len(counts) > 1:
    raise SystemExit(f"{case.network}: parameters differ: {found}.")
  for side in found.values():
    for a, b in zip(side["losses"], found["torch"]["losses"], strict=True):
      if not math.isclose(a, b, rel_tol=_TOLERANCE):
        raise SystemExit(f"{case.network}: losses differ: {found}.")
  losses = {name: side["losses"] for name, side in found.items()}
  return {"parameters": counts.pop(), "losses": losses}


def alternate(
  some: list[Contender], *, rounds: int, steps: int
) -> dict[str, Any]:
  """Times contenders in turn.

  Args:
    some: the first is ours; the others are compared with it.
    rounds: timed turns of each, after one that is not counted.
    steps: of a turn.

  Returns:
    Medians and ranges of milliseconds a step, and of the ratio, ours by
    theirs, of each round.
  """
  for contender in some:
    contender.ask(do="steps", count=2)
  times: dict[str, list[float]] = {contender.name: [] for contender in some}
  for _ in range(rounds):
    for contender in some:
      times[contender.name].append(1e3 * contender.seconds(steps))
  result: dict[str, Any] = {
    "milliseconds": {n: statistics.median(x) for n, x in times.items()},
    "range": {name: [min(x), max(x)] for name, x in times.items()},
    "ratio": {},
    "ratio_range": {},
    "rounds": rounds,
    "steps_a_round": steps,
    "load_average": os.getloadavg()[0],
  }
  ours = times[some[0].name]
  for contender in some[1:]:
    pairs = zip(ours, times[contender.name], strict=True)
    ratios = [a / b for a, b in pairs]
    result["ratio"][contender.name] = statistics.median(ratios)
    result["ratio_range"][contender.name] = [min(ratios), max(ratios)]
  return result
