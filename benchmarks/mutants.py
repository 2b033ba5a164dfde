"""Mutation test of the pure rooms: does some test notice each small mistake?

  python benchmarks/mutants.py --out=benchmarks/results/mutants.json

Each mutant (mutation.py says which there are) is tried in a throw-away clone of
the last commit, by those test files of its room, references (wrong_variants)
and examples that enter its function, files named after its module first. Which
they are is noted while the unmutated code is tested, which must pass and is not
counted in the minutes. Mutants are taken from the modules in turn, in an order
given by the seed.

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
import signal
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
_LONGEST_SECONDS = 3600
_PACKAGES = ("cosmic-ray", "jax", "numpy", "pytest")
_Job = Callable[[pathlib.Path], Generator[None, None, Any]]


class Plan:
  """What there is to try and what is known of it.

  Attributes:
    folder: a clone, for reading.
    mutants: key -> mutant, of all modules.
    modules: paths of all modules.
    rooms: those to try mutants of.
    report: what the result file holds.
  """

  def __init__(self, folder: pathlib.Path, rooms: list[str], report: Any):
    self.folder, self.rooms, self.report = folder, rooms, report
    self.baseline: dict[str, Any] = {}
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

  @functools.cache  # noqa: B019
  def stages(self, module: str, function: str) -> list[trials.Stage]:
    """What is run on the mutants of a function."""
    entered: dict[str, list[str]] = {}
    for stage, tests in self.baseline.items():
      if stage.startswith(f"{trials.room_of(module)}:"):
        entered.update(tests["entered"])
    return trials.stages(module, function, entered)

  def evidence(self, mutant: mutation.Mutant, by: str) -> str:
    """Hash of a module and of the tests that judged a mutant of it."""
    stages = self.stages(mutant.module, mutant.function)
    names = {file.split("::")[0] for stage in stages for file in stage.files}
    judge = by.split("::")[0]
    names = {judge} if judge in names else names
    files = (mutant.module, *sorted(names))
    return mutation.digest(repr([self.digest(name) for name in files]))

  def holds(self, key: str, record: dict[str, str]) -> bool:
    """Whether a verdict still stands; other rooms' are not looked into."""
    mutant = self.mutants.get(key)
    if mutant is None or trials.room_of(mutant.module) not in self.rooms:
      return mutant is not None
    return record["evidence"] == self.evidence(mutant, record["by"])

  def forget(self) -> None:
    """Drops the verdicts that stand no more."""
    kept = self.report["mutants"].items()
    self.report["mutants"] = {k: v for k, v in kept if self.holds(k, v)}

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


def _baseline(
  plan: Plan, folders: list[pathlib.Path], cache: pathlib.Path
) -> None:
  """Tests the right code where it or its tests have changed since."""
  wanted = {
    f"{room}: {stage.files[0]}": stage
    for room in plan.rooms
    for stage in trials.unmutated(plan.folder, room)
  }
  package = [plan.digest(name) for name in plan.modules]
  evidence = {
    name: mutation.digest(
      repr((package, [plan.digest(f) for f in stage.files]))
    )
    for name, stage in wanted.items()
  }
  kept = json.loads(cache.read_text()) if cache.exists() else {}
  plan.baseline = {
    name: known
    for name, known in kept.items()
    if known["evidence"] == evidence.get(name)
  }
  todo = [name for name in wanted if name not in plan.baseline]

  def job(name: str) -> _Job:
    def run(folder: pathlib.Path) -> Generator[None, None, Any]:
      outcome = yield from trials.run(
        folder, wanted[name], _LONGEST_SECONDS, records=True
      )
      return name, outcome

    return run

  for name, outcome in trials.pool(folders, map(job, todo), float("inf")):
    print(f"unmutated {name}: {outcome.seconds:.1f} s", flush=True)
    if not outcome.passed:
      sys.exit(f"{outcome.output[-5000:]}\nthe unmutated tests do not pass")
    plan.baseline[name] = {
      "evidence": evidence[name],
      "seconds": round(outcome.seconds, 1),
      "entered": outcome.entered,
    }
    files.write(cache, json.dumps({**kept, **plan.baseline}))


def _trial(plan: Plan, mutant: mutation.Mutant) -> _Job:
  """The job that tries one mutant; it returns (mutant, its record)."""
  unit = {
    file: name
    for name, tests in plan.baseline.items()
    for file in tests["entered"]
  }

  def run(folder: pathlib.Path) -> Generator[None, None, Any]:
    source, path = plan.read(mutant.module), folder / mutant.module
    path.write_text(mutant.applied(source), encoding="utf-8")
    by = ""
    try:
      for stage in plan.stages(mutant.module, mutant.function):
        units = {unit[file] for file in stage.files}
        usual = sum(plan.baseline[name]["seconds"] for name in units)
        limit = round(_PATIENCE * usual + _GRACE_SECONDS)
        outcome = yield from trials.run(folder, stage, limit)
        by = outcome.by
        if by:
          break
    finally:
      path.write_text(source, encoding="utf-8")
    return mutant, {
      "by": by,
      "outcome": "killed" if by else "survived",
      "evidence": plan.evidence(mutant, by),
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
  order = plan.order(_SEED.value)
  jobs: Iterator[_Job] = (_trial(plan, mutant) for mutant in order)
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
  # So that clones and children go too.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
  cache = root / ".pytest_cache" / "mutants"
  cache.mkdir(parents=True, exist_ok=True)
  trials.preload(cache)
  with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
    folders = [
      pathlib.Path(temporary) / str(index) for index in range(_PROCESSES.value)
    ]
    for folder in folders:
      trials.clone(root, folder)
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.check_output(command, cwd=folders[0], text=True).strip()
    report = json.loads(out.read_text()) if out.exists() else {"mutants": {}}
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

    _baseline(plan, folders, cache / "baseline.json")
    plan.forget()
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
