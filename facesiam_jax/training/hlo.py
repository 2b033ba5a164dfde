"""What goes between devices, read from the text of a compiled program."""

import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
  *("all-reduce", "all-gather", "reduce-scatter", "all-to-all"),
  *("ragged-all-to-all", "collective-permute", "collective-broadcast"),
)
_BYTES = {"pred": 1, "token": 0, "opaque": 0}
_COMMENT = re.compile(r"/\*.*?\*/")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = ([^=%\"]*?) ([a-z][\w-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_CALLED = re.compile(
  r"\b(?:calls|to_apply|body|condition|branch_computations"
  r"|true_computation|false_computation|called_computations)="
  r"(?:\{([^}]*)\}|%?([\w.\-]+))"
)


class Collective(NamedTuple):
  """Collective operations of one kind and size.

  Attributes:
    kind: one of KINDS.
    num_bytes: of the whole that is reduced, gathered, scattered or sent, as
      one device sees it: what an all-reduce returns, what an all-gather
      returns, what a reduce-scatter is given.
    group: devices that take part together.
    times: how often a device does it in one run of the program.
  """

  kind: str
  num_bytes: int
  group: int
  times: int

  @property
  def sent_bytes(self) -> float:
    """Bytes that a device must send, all of them together; around a ring."""
    share = (self.group - 1) / self.group
    if self.kind == "all-reduce":
      share *= 2
    elif self.kind == "collective-permute":
      share = 1.0
    return self.times * self.num_bytes * share


def _array_bytes(kind: str, dimensions: str) -> int:
  if kind in _BYTES:
    width = 8 * _BYTES[kind]
  else:
    found = re.match(r"[a-z]+(\d+)", kind)  # bf16, f8e4m3fn, s4, c64
    width = int(found[1]) if found else 0
  size = 1
  for length in filter(None, dimensions.split(",")):
    size *= int(length)
  return (size * width + 7) // 8


def _group_size(line: str, num_devices: int) -> int:
  listed = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
  if listed:
    return len(listed[1].split(","))
  # [groups,size]<=[devices]: the short form of a regular list.
  short = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line)
  return int(short[2]) if short else num_devices


def _collective(line: str, num_devices: int) -> Collective | None:
  found = _INSTRUCTION.match(line)
  if not found:
    return None
  kind = found[2].removesuffix("-start")
  if kind not in KINDS:
    return None
  sizes = [_array_bytes(*array) for array in _ARRAY.findall(found[1])]
  group = _group_size(line, num_devices)
  # What an asynchronous one returns holds its operands too, and a permute's
  # two more words of bookkeeping.
  if kind != found[2] and kind == "collective-permute":
    sizes = sizes[1:2]
  elif kind != found[2] and kind != "all-reduce":
    sizes = sizes[len(sizes) // 2 :]
  total = sum(sizes) * (group if kind == "reduce-scatter" else 1)
  return Collective(kind, total, group, 1)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """Returns the lines of each computation, and the name of the first one."""
  found: dict[str, list[str]] = {}
  entry, name = "", ""
  for raw in text.splitlines():
    line = _COMMENT.sub("", raw)
    head = _COMPUTATION.match(line)
    if head:
      name = head[2]
      found[name] = []
      entry = name if head[1] else entry
    elif name:
      found[name].append(line)
  return found, entry


def _rounds(line: str, condition: list[str]) -> int:
  """How often a while loop runs: told, or what its condition counts to."""
  told = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', line)
  if told:
    return int(told[1])
  bounds = re.findall(
    r" = [su]32\[\]\S* constant\((\d+)\)", "\n".join(condition)
  )
  counts = any("direction=LT" in part for part in condition)
  return int(bounds[0]) if counts and len(bounds) == 1 else 1


def _calls(
  line: str, computations: dict[str, list[str]]
) -> Iterator[tuple[str, int]]:
  """Yields what an instruction calls, and how often."""
  called = [
    name.strip().lstrip("%")
    for several, one in _CALLED.findall(line)
    for name in (several.split(",") if several else [one])
  ]
  times = 1
  condition = re.search(r"\bcondition=%?([\w.\-]+)", line)
  if condition:
    times = _rounds(line, computations.get(condition[1], []))
  for name in called:
    if name in computations:
      yield name, times


def collectives(text: str, num_devices: int) -> list[Collective]:
  """Returns what a program does between devices.

  Loops count as often as they run, where the program tells (a loop whose
  length depends on the data counts once); all branches of a condition count.

  Args:
    text: of a compiled program, `compiled.as_text()`.
    num_devices: that it was compiled for.

  Returns:
    One entry a kind, size and group, the most bytes sent first.
  """
  computations, entry = _computations(text)
  counts: collections.Counter[tuple[str, int, int]] = collections.Counter()

  def visit(name: str, times: int) -> None:
    for line in computations[name]:
      found = _collective(line, num_devices)
      if found and found.group > 1:
        counts[found[:3]] += times
      for called, rounds in _calls(line, computations):
        visit(called, times * rounds)

  if entry:
    visit(entry, 1)
  found = [Collective(*key, times) for key, times in counts.items()]
  return sorted(found, key=lambda one: (-one.sent_bytes, one))
