"""`facesiam encoders`: what encoders there are and what they cost."""

import dataclasses
import json
from typing import Any

from absl import flags

from facesiam_jax.cli import common

HELP = "List the encoders: input, cost, licence of known weights."
USAGE = "facesiam encoders [--json]"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_json(flag_values)


def _entries() -> list[dict[str, Any]]:
  from facesiam_jax.encoders import catalogue, cost

  found = []
  for name, entry in catalogue.ENTRIES.items():
    shape = (entry.size, entry.size, entry.channels)
    costs = cost.measure(catalogue.create(name), shape)
    found.append(
      {
        "name": name,
        "input": shape,
        **dataclasses.asdict(costs),
        "known_weights": entry.weights,
      }
    )
  return found


def _millions(number: int) -> str:
  return f"{number / 1e6:.2f}"


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Prints the list."""
  if args:
    raise common.UsageError(f"encoders takes flags only, got {args[0]!r}.")
  entries = _entries()
  if flag_values.json:
    print(json.dumps(entries, indent=2))
    return 0
  header = ["name", "input", "embedding", "parameters, M", "multiply-adds, M"]
  rows = [
    [
      entry["name"],
      "x".join(map(str, entry["input"])),
      str(entry["dim"]),
      _millions(entry["parameters"]),
      _millions(entry["multiply_adds"]),
      entry["known_weights"],
    ]
    for entry in entries
  ]
  print(common.table([*header, "known weights"], rows))
  return 0
