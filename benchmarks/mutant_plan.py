"""Which tests judge a mutant, which mutants are left, which verdicts stand."""

import dataclasses
import functools
import itertools
import pathlib
import random
from collections.abc import Collection, Mapping
from typing import Any

import mutation

ROOMS = ("ops", "heads", "losses", "mining", "metrics")
# Tests with a case for each function: what each enters is noted apart.
VARIANTS = "tests/wrong_variants_test.py"
EXAMPLES = "tests/doctest_test.py"


@dataclasses.dataclass(frozen=True)
class Stage:
  """One run of pytest.

  Attributes:
    files: test files, below the root.
    chosen: pytest's -k; empty for all tests.
  """

  files: tuple[str, ...]
  chosen: str = ""


def room_of(module: str) -> str:
  """ "losses" of facesiam_jax/losses/triplet.py."""
  return pathlib.PurePath(module).parts[1].removesuffix(".py")


def test_files(folder: pathlib.Path, room: str) -> tuple[str, ...]:
  """Test files of a room, below the folder of a clone."""
  found = sorted((folder / "tests" / room).glob("*_test.py"))
  found += (folder / "tests").glob(f"{room}_test.py")
  return tuple(str(path.relative_to(folder)) for path in found)


def unmutated(folder: pathlib.Path, room: str) -> list[Stage]:
  """What must pass on the right code: a stage for each file of a room.

  The last one holds the references and the examples of the room's functions.
  """
  found = [Stage((name,)) for name in test_files(folder, room)]
  files = [name for name in (VARIANTS, EXAMPLES) if (folder / name).exists()]
  chosen = f"right_implementation and {room}. or examples_print and .{room}"
  return found + [Stage(tuple(files), chosen)] * bool(files)


def stages(
  module: str, function: str, entered: Mapping[str, Collection[str]]
) -> list[Stage]:
  """What to run on a mutant, the likeliest to notice it first.

  Args:
    module: path of its module.
    function: dotted name of the function that is mutated, "" for what runs on
      import, which every test file may notice.
    entered: test file or test -> the functions of the room it entered, as
      "module:name"; only tests that enter a function can notice its mutant.
  """
  place = f"{module}:{function}"
  below = f"{place}." if function else place

  def enters(name: str) -> bool:
    if not function and "::" not in name:
      return True
    return any(
      known == place or known.startswith(below) or place.startswith(f"{known}.")
      for known in entered[name]
    )

  stem = pathlib.PurePath(module).stem.strip("_")
  names = [name for name in sorted(entered) if enters(name)]
  tests = [name for name in names if "::" in name]
  whole = [name for name in names if name not in tests]
  own = [n for n in whole if pathlib.PurePath(n).name.startswith(stem)]
  rest = [name for name in whole if name not in own]
  return [Stage(tuple(group)) for group in (own, tests, rest) if group]


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
    self.again: dict[str, mutation.Mutant] = {}
    package = folder / "facesiam_jax"
    paths = [
      path
      for room in ROOMS
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
  def digest(self, name: str, test: str = "") -> str:
    """Hash of a file, or of one test in it; of wrong variants with tables."""
    sources = [self.read(name)]
    if name.endswith("wrong_variants_test.py"):
      tables = sorted((self.folder / "tests" / "wrong").glob("*.py"))
      sources += [path.read_text(encoding="utf-8") for path in tables]
    return "".join(mutation.digest(source, test) for source in sources)

  @functools.cache  # noqa: B019
  def stages(self, module: str, function: str) -> list[Stage]:
    """What is run on the mutants of a function."""
    entered: dict[str, list[str]] = {}
    for stage, tests in self.baseline.items():
      if stage.startswith(f"{room_of(module)}:"):
        entered.update(tests["entered"])
    return stages(module, function, entered)

  def evidence(self, mutant: mutation.Mutant, by: str) -> str:
    """Hash of a module and of the tests that judged a mutant of it.

    What has been killed stays so when its judge gets neighbours: of a file
    with the test that failed, the other tests do not count.
    """
    stages = self.stages(mutant.module, mutant.function)
    names = {file.split("::")[0] for stage in stages for file in stage.files}
    judge, _, test = by.partition("::")
    digests = [self.digest(mutant.module)]
    if judge in names:
      digests.append(self.digest(judge, test.split("[")[0]))
    else:
      digests += [self.digest(name) for name in sorted(names)]
    return mutation.digest(repr(digests))

  def holds(self, key: str, record: dict[str, str]) -> bool:
    """Whether a verdict still stands; other rooms' are not looked into."""
    mutant = self.mutants.get(key)
    if mutant is None or room_of(mutant.module) not in self.rooms:
      return mutant is not None
    return record["evidence"] == self.evidence(mutant, record["by"])

  def forget(self) -> None:
    """Drops the verdicts that stand no more."""
    kept = self.report["mutants"].items()
    self.report["mutants"] = {k: v for k, v in kept if self.holds(k, v)}
    self.again = {
      key: self.mutants[key]
      for key, record in kept
      if record["outcome"] == "survived" and key in self.mutants
    }

  def order(self, seed: int) -> list[mutation.Mutant]:
    """Mutants not judged yet: survivors of other tests, modules in turn."""
    queues = []
    chosen = [m for m in self.modules if room_of(m) in self.rooms]
    for module in chosen:
      queue = [m for m in self.mutants.values() if m.module == module]
      random.Random(f"{seed} {module}").shuffle(queue)
      queues.append(queue)
    turns = itertools.chain(
      self.again.values(), *itertools.zip_longest(*queues)
    )
    new = {m.key: m for m in turns if m}
    return [m for k, m in new.items() if k not in self.report["mutants"]]
