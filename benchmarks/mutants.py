"""Mutation test of the pure rooms: does some test notice each small mistake?

  python benchmarks/mutants.py --out=benchmarks/results/mutants.json

Each mutant (mutation.py says which there are) is tried in a throw-away clone of
the last commit, by the test files named after its module, the references and
examples of its functions, then all of its room's. Mutants are taken from the
modules in turn, in an order given by the seed, until the minutes are spent; the
tests of the unmutated code, which must pass first, are not counted in them.

The result file is added to: a mutant is not tried again while its module and
the tests that judged it do the same as then (comments do not count). What
survives must be explained in survivors.json, mutant -> why it is equivalent or
cannot matter; if one is not, it is printed and the exit status is 1.
"""

import functools
import itertools
import json
import pathlib
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from importlib import metadata
from typing import Any

import mutation
import trials
from absl import app, flags

from facesiam_jax import files

_ALL_ROOMS = ("ops", "heads", "losses", "mining", "metrics")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_MINUTES = flags.DEFINE_float("minutes", 20, "Time to try mutants for.")
_ROOMS = flags.DEFINE_list("rooms", list(_ALL_ROOMS), "Rooms to mutate.")
_PROCESSES = flags.DEFINE_integer("processes", 2, "Mutants tried at a time.")
_SEED = flags.DEFINE_integer("seed", 0, "Order of the mutants.")
_ROOT = flags.DEFINE_string(
  "root", str(pathlib.Path(__file__).resolve().parents[1]), "The repository."
)
# A test that takes so much longer than without the mutant does not end.
_PATIENCE = 5
_GRACE_SECONDS = 30
_SAVE_SECONDS = 10
_PACKAGES = ("cosmic-ray", "jax", "numpy", "pytest")
_Job = Callable[[pathlib.Path], Generator[None, None, Any]]


class Plan:
  """What there is to try and what is known of it.

  Attributes:
    folder: a clone, for reading.
    mutants: key -> mutant, of all modules.
    stages: module -> what is run on its mutants.
    report: what the result file holds.
  """

  def __init__(self, folder: pathlib.Path, rooms: list[str], report: Any):
    self.folder, self.rooms, self.report = folder, rooms, report
    package = folder / "facesiam_jax"
    paths = [
      path
      for room in _ALL_ROOMS
      for path in (*package.glob(f"{room}/*.py"), *package.glob(f"{room}.py"))
    ]
    self.modules = sorted(str(path.relative_to(folder)) for path in paths)
    self.mutants = {
      mutant.key: mutant
      for name in self.modules
      for mutant in mutation.mutants(name, self.read(name))
    }
    self.stages = {n: trials.stages(folder, n) for n in self.modules}
    kept = report.get("mutants", {}).items()
    self.report["mutants"] = {k: v for k, v in kept if self.holds(k, v)}

  @functools.cache  # noqa: B019  one plan a process
  def read(self, name: str) -> str:
    return (self.folder / name).read_text(encoding="utf-8")

  @functools.cache  # noqa: B019
  def digest(self, name: str) -> str:
    """Hash of a file; of wrong variants with their tables."""
    sources = [self.read(name)]
    if name.endswith("wrong_variants_test.py"):
      tables = sorted((self.folder / "tests" / "wrong").glob("*.py"))
      sources += [path.read_text(encoding="utf-8") for path in tables]
    return "".join(mutation.digest(source) for source in sources)

  def evidence(self, module: str, by: str) -> str:
    """Hash of a module and of the tests that judged a mutant of it."""
    names = sorted({f for stage in self.stages[module] for f in stage.files})
    judge = by.split("::")[0]
    names = [judge] if judge in names else names
    return mutation.digest(
      repr([self.digest(name) for name in (module, *names)])
    )

  def holds(self, key: str, record: dict[str, str]) -> bool:
    """Whether a verdict still stands."""
    evidence = functools.partial(self.evidence, key.split(":")[0])
    return key in self.mutants and record["evidence"] == evidence(record["by"])

  def order(self, seed: int) -> list[mutation.Mutant]:
    """Mutants not judged yet, modules in turn."""
    queues = []
    chosen = [m for m in self.modules if trials.room_of(m) in self.rooms]
    for module in chosen:
      queue = [m for m in self.mutants.values() if m.module == module]
      random.Random(f"{seed} {module}").shuffle(queue)
      queues.append(queue)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    return [m for m in turns if m and m.key not in self.report["mutants"]]


def _baseline(plan: Plan, folders: list[pathlib.Path]) -> dict[str, float]:
  """Runs each test file on the right code; returns its seconds."""
  names = [
    n for room in plan.rooms for n in trials.test_files(plan.folder, room)
  ]
  wanted = {name: trials.Stage((name,)) for name in names}
  for room in plan.rooms:
    wanted[room] = trials.room_stage(plan.folder, room)
  package = repr([plan.digest(name) for name in plan.modules])
  known = plan.report.get("baseline", {})
  digests, todo = {}, []
  for name, stage in wanted.items():
    tests = repr([plan.digest(file) for file in stage.files])
    digests[name] = mutation.digest(f"({package}, {tests})")
    if known.get(name, {}).get("evidence") != digests[name]:
      todo.append(name)

  def job(name: str) -> _Job:
    def run(folder: pathlib.Path) -> Generator[None, None, Any]:
      outcome = yield from trials.run(folder, wanted[name], 3600, writes=True)
      return name, outcome

    return run

  for name, outcome in trials.pool(folders, map(job, todo), float("inf")):
    print(f"unmutated {name}: {outcome.seconds:.1f} s", flush=True)
    if not outcome.passed:
      sys.exit(f"{outcome.output[-5000:]}\nthe unmutated tests do not pass")
    known[name] = {
      "evidence": digests[name],
      "seconds": round(outcome.seconds, 1),
    }
  plan.report["baseline"] = known
  return {name: known[name]["seconds"] for name in wanted}


def _trial(plan: Plan, seconds: dict[str, float], mutant: Any) -> _Job:
  """The job that tries one mutant; it returns (mutant, its record)."""
  room = trials.room_of(mutant.module)

  def run(folder: pathlib.Path) -> Generator[None, None, Any]:
    source, path = plan.read(mutant.module), folder / mutant.module
    path.write_text(mutant.applied(source), encoding="utf-8")
    by = ""
    try:
      for stage in plan.stages[mutant.module]:
        usual = sum(seconds.get(name, seconds[room]) for name in stage.files)
        limit = _PATIENCE * usual + _GRACE_SECONDS
        outcome = yield from trials.run(folder, stage, limit)
        by = outcome.by
        if not outcome.passed:
          break
    finally:
      path.write_text(source, encoding="utf-8")
    return mutant, {
      "by": by,
      "outcome": "killed" if by else "survived",
      "evidence": plan.evidence(mutant.module, by),
    }

  return run


def summary(plan: Plan, why: dict[str, str]) -> dict[str, dict[str, Any]]:
  """Counts by room; the score leaves out what is explained."""
  found = {}
  for room in _ALL_ROOMS:
    of_room = [
      key
      for key, mutant in plan.mutants.items()
      if trials.room_of(mutant.module) == room
    ]
    tried = [k for k in of_room if k in plan.report["mutants"]]
    survived = [
      k for k in tried if plan.report["mutants"][k]["outcome"] == "survived"
    ]
    explained = sum(key in why for key in survived)
    killed = len(tried) - len(survived)
    found[room] = {
      "possible": len(of_room),
      "tried": len(tried),
      "killed": killed,
      "explained": explained,
      "unexplained": len(survived) - explained,
      "score": round(killed / max(len(tried) - explained, 1), 3),
    }
  return found


def _work(
  plan: Plan, folders: list[pathlib.Path], commit: str, save: Callable[[], None]
) -> None:
  """Tries mutants until the minutes are spent."""
  seconds = _baseline(plan, folders)
  save()
  order = plan.order(_SEED.value)
  jobs: Iterator[_Job] = (_trial(plan, seconds, mutant) for mutant in order)
  deadline = time.monotonic() + 60 * _MINUTES.value
  saved = time.monotonic()
  for mutant, record in trials.pool(folders, jobs, deadline):
    plan.report["mutants"][mutant.key] = {**record, "commit": commit}
    if record["outcome"] == "survived":
      print(f"survived: {mutant.key}", flush=True)
    if time.monotonic() - saved > _SAVE_SECONDS:
      save()
      saved = time.monotonic()
  save()


def _print_survivors(plan: Plan, why: dict[str, str]) -> int:
  """Prints those that nobody has explained; returns how many."""
  unexplained = 0
  for key, record in sorted(plan.report["mutants"].items()):
    if record["outcome"] == "survived" and key in plan.mutants:
      mutant = plan.mutants[key]
      if key not in why:
        unexplained += 1
        print(f"\n{mutant.module}:{mutant.line}  UNEXPLAINED  {key}")
        print(f"- {mutant.before}\n+ {mutant.after}")
  for key in sorted(why):
    if plan.report["mutants"].get(key, {}).get("outcome") == "killed":
      print(f"\nexplained, but killed: {key}")
  return unexplained


def main(argv: list[str]) -> None:
  """Tries mutants; exit status 1 if one survives without a reason."""
  del argv
  root, out = pathlib.Path(_ROOT.value), pathlib.Path(_OUT.value)
  reasons = root / "benchmarks" / "survivors.json"
  why = json.loads(reasons.read_text()) if reasons.exists() else {}
  trials.preload(root / ".pytest_cache" / "mutants")
  with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
    folders = [
      pathlib.Path(temporary) / str(index) for index in range(_PROCESSES.value)
    ]
    for folder in folders:
      trials.clone(root, folder)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.check_output(command, cwd=folders[0], text=True).strip()
    report = json.loads(out.read_text()) if out.exists() else {}
    plan = Plan(folders[0], _ROOMS.value, report)

    def save() -> None:
      report.update(
        command=f"python {' '.join(sys.argv)}",
        commit=commit,
        python=platform.python_version(),
        versions={name: metadata.version(name) for name in _PACKAGES},
        summary=summary(plan, why),
      )
      files.write(out, json.dumps(report, indent=1, sort_keys=True) + "\n")

    _work(plan, folders, commit, save)
  unexplained = _print_survivors(plan, why)
  for room, counts in report["summary"].items():
    print(
      room, *(f"{count} {name}" for name, count in counts.items()), sep="  "
    )
  sys.exit(unexplained > 0)


if __name__ == "__main__":
  flags.mark_flag_as_required("out")
  app.run(main)
