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

import json
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from importlib import metadata
from typing import Any

import mutant_plan
import mutation
import trials
from absl import app, flags

from facesiam_jax import files

_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_MINUTES = flags.DEFINE_float("minutes", 20, "Time to try mutants for.")
_ROOMS = flags.DEFINE_list("rooms", list(mutant_plan.ROOMS), "Rooms to mutate.")
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


def _baseline(
  plan: mutant_plan.Plan, folders: list[pathlib.Path], cache: pathlib.Path
) -> None:
  """Tests the right code where it or its tests have changed since."""
  wanted = {
    f"{room}: {stage.files[0]}": stage
    for room in plan.rooms
    for stage in mutant_plan.unmutated(plan.folder, room)
  }
  evidence = {}
  for name, stage in wanted.items():
    rooms = ("ops", name.split(":")[0])
    code = [n for n in plan.modules if mutant_plan.room_of(n) in rooms]
    evidence[name] = mutation.digest(
      repr([plan.digest(file) for file in (*code, *stage.files)])
    )
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


def _trial(plan: mutant_plan.Plan, mutant: mutation.Mutant) -> _Job:
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


def summary(
  plan: mutant_plan.Plan, why: dict[str, str]
) -> dict[str, dict[str, Any]]:
  """Counts by room; the score leaves out what is explained."""
  found = {}
  for room in mutant_plan.ROOMS:
    of_room = [
      key
      for key, mutant in plan.mutants.items()
      if mutant_plan.room_of(mutant.module) == room
    ]
    tried = [k for k in of_room if k in plan.report["mutants"]]
    survived = [
      k for k in tried if plan.report["mutants"][k]["outcome"] == "survived"
    ]
    explained = sum(key in why for key in survived)
    killed = len(tried) - len(survived)
    counted = len(tried) - explained
    found[room] = {
      "possible": len(of_room),
      "tried": len(tried),
      "killed": killed,
      "explained": explained,
      "unexplained": len(survived) - explained,
      "score": round(killed / counted, 3) if counted else None,
    }
  return found


def _save(plan: mutant_plan.Plan, why: dict[str, str], commit: str) -> None:
  plan.report.update(
    command=f"python {' '.join(sys.argv)}",
    commit=commit,
    python=platform.python_version(),
    versions={name: metadata.version(name) for name in _PACKAGES},
    summary=summary(plan, why),
  )
  text = json.dumps(plan.report, indent=1, sort_keys=True)
  files.write(_OUT.value, text + "\n")


def _work(
  plan: mutant_plan.Plan, folders: list[pathlib.Path], why: dict[str, str]
) -> None:
  """Tries mutants until the minutes are spent."""
  command = ["git", "rev-parse", "--short", "HEAD"]
  commit = subprocess.check_output(command, cwd=folders[0], text=True).strip()
  order = plan.order(_SEED.value)
  jobs: Iterator[_Job] = (_trial(plan, mutant) for mutant in order)
  deadline = time.monotonic() + 60 * _MINUTES.value
  saved = time.monotonic()
  for mutant, record in trials.pool(folders, jobs, deadline):
    plan.report["mutants"][mutant.key] = {**record, "commit": commit}
    if record["outcome"] == "survived":
      print(f"survived: {mutant.key}", flush=True)
    if time.monotonic() - saved > _SAVE_SECONDS:
      _save(plan, why, commit)
      saved = time.monotonic()
  _save(plan, why, commit)


def _print_survivors(plan: mutant_plan.Plan, why: dict[str, str]) -> int:
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
  with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
    folders = [
      pathlib.Path(temporary) / str(index) for index in range(_PROCESSES.value)
    ]
    for folder in folders:
      trials.clone(root, folder)
    trials.preload(folders[0], cache)
    report = json.loads(out.read_text()) if out.exists() else {"mutants": {}}
    plan = mutant_plan.Plan(folders[0], _ROOMS.value, report)
    _baseline(plan, folders, cache / "baseline.json")
    plan.forget()
    _work(plan, folders, why)
  unexplained = _print_survivors(plan, why)
  for room, counts in report["summary"].items():
    print(
      room, *(f"{count} {name}" for name, count in counts.items()), sep=", "
    )
  sys.exit(unexplained > 0)


if __name__ == "__main__":
  flags.mark_flag_as_required("out")
  app.run(main)
