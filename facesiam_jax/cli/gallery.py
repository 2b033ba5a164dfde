"""`facesiam gallery`: look after the people of a gallery."""

import json
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store

HELP = "List, remove, export or check the people of a gallery."
USAGE = """facesiam gallery --gallery=FILE list [--json]
       facesiam gallery --gallery=FILE remove NAME
       facesiam gallery --gallery=FILE export FILE.npz
       facesiam gallery --gallery=FILE check"""


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_gallery(flag_values)
  common.define_json(flag_values)


def _list(store: "Store", as_json: bool) -> None:
  people = store.people()
  if as_json:
    print(json.dumps(people))
  elif not people:
    print(f"Nobody is enrolled in {store.path}.")
  else:
    rows = [[name, str(count)] for name, count in people.items()]
    print(common.table(["person", "photos"], rows))


def _export(store: "Store", path: str) -> None:
  import numpy as np

  records = store.records()
  names = [records.names[int(person)] for person in records.person_ids]
  common.write_file(
    path,
    lambda file: np.savez(
      file,
      embeddings=records.embeddings,
      names=np.array(names, np.str_),
      template_ids=records.template_ids,
      fingerprint=np.array(store.meta["fingerprint"]),
      metric=np.array(store.meta["metric"]),
    ),
  )
  print(f"Wrote {len(names)} embeddings to {path}.")


def _check(store: "Store") -> None:
  problems = store.check()
  for problem in problems:
    print(problem)
  if problems:
    raise errors.UserError(
      f"{store.path} has {len(problems)} problems; restore it from a backup "
      "or enroll the people again."
    )
  count = sum(store.people().values())
  print(
    f"{store.path} is sound: {count} photos of {len(store.people())} people."
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Does the one thing that the first argument names."""
  wanted = {"list": 0, "remove": 1, "export": 1, "check": 0}
  if not args or wanted.get(args[0]) != len(args) - 1:
    raise common.UsageError(
      "after --gallery give one of: list, remove NAME, export FILE.npz, check."
    )
  from facesiam_jax.gallery import store as store_lib

  action, *rest = args
  with store_lib.Store.open(flag_values.gallery) as store:
    if action == "list":
      _list(store, flag_values.json)
    elif action == "remove":
      count = store.remove(rest[0])
      print(f"Removed {rest[0]} ({count} photos) from {store.path}.")
    elif action == "export":
      _export(store, rest[0])
    else:
      _check(store)
  return 0
