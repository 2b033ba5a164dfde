"""`facesiam gallery`: look after the people of a gallery."""

import json
import os
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, photos, shards

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store

HELP = "List, remove, export or check the people of a gallery."
USAGE = """facesiam gallery --gallery=FILE list [--json]
       facesiam gallery --gallery=FILE remove NAME
       facesiam gallery --gallery=FILE expire
       facesiam gallery --gallery=FILE export FILE.npz
       facesiam gallery --gallery=FILE import FILE.npz
       facesiam gallery --gallery=FILE --bundle=NEW [flags] reenroll PEOPLE/
       facesiam gallery --gallery=FILE --out=DIR shard
       facesiam gallery --gallery=FILE tune [--json]
       facesiam gallery --gallery=FILE|DIR check"""
_WANTED = {
  **{"list": 0, "remove": 1, "expire": 0, "export": 1, "import": 1},
  **{"reenroll": 1, "shard": 0, "tune": 0, "check": 0},
}


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_gallery(flag_values)
  common.define_json(flag_values)
  photos.define_flags(flag_values)
  flags.DEFINE_string(
    "bundle",
    None,
    "reenroll: folder of the bundle that the gallery is to be moved to.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "out",
    None,
    "shard: folder to make, from which `facesiam identify` searches the "
    "gallery with several processes, each of which loads some of the people.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "in_clear",
    False,
    "export, shard: also of an encrypted gallery; what is written is not "
    "encrypted.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "drop",
    False,
    "reenroll: remove those of whom there is no usable photo; without it they "
    "keep the gallery as it is.",
    flag_values=flag_values,
  )


def _list(store: "Store", as_json: bool) -> None:
  from facesiam_jax.gallery import telling

  facts = [telling.person(member) for member in store.members()]
  if as_json:
    print(json.dumps(facts))
  elif not facts:
    print(f"Nobody is enrolled in {store.path}.")
  else:
    # The age is that of the oldest photo; terms where somebody has some.
    columns = {"name": "person", "photos": "photos", "age_days": "days old"}
    columns |= {
      name: name
      for name in ("expires", "purpose", "consent")
      if any(fact[name] is not None for fact in facts)
    }
    rows = [
      ["-" if fact[name] is None else str(fact[name]) for name in columns]
      for fact in facts
    ]
    print(common.table(list(columns.values()), rows))


def _remove(store: "Store", name: str) -> None:
  from facesiam_jax.gallery import sharding

  before = sharding.known(store)
  count = store.remove(name)
  print(
    f"Removed {name} ({count} photos) and erased them from {store.path} and "
    "its exports."
  )
  shards.tell_of_deleted(store, before)
  shards.tell_of_missing(store)


def _expire(store: "Store") -> None:
  from facesiam_jax.gallery import sharding

  before = sharding.known(store)
  removed = store.expire()
  for name, count in removed.items():
    print(f"{name} ({count} photos): removed and erased")
  print(f"Removed {len(removed)} people whose day has come from {store.path}.")
  if removed:
    shards.tell_of_deleted(store, before)
    shards.tell_of_missing(store)


def _export(store: "Store", path: str, in_clear: bool) -> None:
  from facesiam_jax.gallery import exports

  count = exports.write(store, path, in_clear=in_clear)
  print(f"Wrote {count} embeddings to {path} and {exports.table_of(path)}.")
  if store.is_encrypted:
    print("The two files are not encrypted.")


def _import(flag_values: flags.FlagValues, path: str) -> None:
  from facesiam_jax.gallery import exports

  added = exports.bring(
    path, flag_values.gallery, key_file=flag_values.key_file
  )
  print(
    f"Enrolled {added.templates} embeddings of {path} in "
    f"{flag_values.gallery}; {len(added.duplicates)} were there already."
  )


def _check(store: "Store") -> None:
  problems = store.check() + shards.problems(store)
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
  if not args or _WANTED.get(args[0]) != len(args) - 1:
    raise common.UsageError(
      "after --gallery give one of: list, remove NAME, expire, export "
      "FILE.npz, import FILE.npz, reenroll PEOPLE/, shard, tune, check."
    )
  from facesiam_jax.gallery import store as store_lib

  action, *rest = args
  if action == "import":
    _import(flag_values, rest[0])
    return 0
  if os.path.isdir(flag_values.gallery):
    if action != "check":
      shards.refuse(flag_values.gallery, action)
    shards.check(flag_values.gallery)
    return 0
  with store_lib.Store.open(
    flag_values.gallery, key_file=flag_values.key_file
  ) as store:
    if action == "list":
      _list(store, flag_values.json)
    elif action == "remove":
      _remove(store, rest[0])
    elif action == "expire":
      _expire(store)
    elif action == "export":
      _export(store, rest[0], flag_values.in_clear)
    elif action == "shard":
      shards.write(flag_values, store)
    elif action == "tune":
      from facesiam_jax.cli import tune

      return tune.run(store, as_json=flag_values.json)
    elif action == "reenroll":
      from facesiam_jax.cli import reenroll

      return reenroll.run(flag_values, store, rest[0])
    else:
      _check(store)
  return 0
