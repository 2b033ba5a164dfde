"""Erasing what was removed, and moving a gallery to another bundle."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from facesiam_jax import errors
from facesiam_jax.gallery import (
  exports,
  filesystem,
  schema,
  sharding,
  sqlite_file,
  tables,
)
from facesiam_jax.gallery.records import (
  Templates,
  check_templates,
  clean_name,
)

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store

# A reader holds the erasing up until it has finished: tried so often, each
# time as long as the connection waits for others.
_TRIES = 3


def erase(store: "Store") -> None:
  """Empties the log, which keeps removed bytes until then, and all copies.

  What can be reached is erased also where something else cannot.

  Args:
    store: an open gallery.

  Raises:
    UserError: if another program is still reading the gallery, or an export or
      a shard set cannot be cleaned.
  """
  problems = []
  for clean in (exports.clean, sharding.clean, _empty_log):
    try:
      clean(store)
    except errors.UserError as error:
      problems.append(str(error))
  if problems:
    raise errors.UserError(" ".join(problems))


def _empty_log(store: "Store") -> None:
  log = f"{store.path}-wal"
  for _ in range(_TRIES):
    with sqlite_file.explained(store.path):
      busy = store.checkpoint()
    if not busy and (not os.path.exists(log) or os.path.getsize(log) == 0):
      return
  readers = ", ".join(filesystem.openers(store.path)) or "maybe this one"
  raise errors.UserError(
    f"{store.path}: what was removed is not erased: it is still in {log} "
    f"because another program is reading the gallery ({readers}); close that "
    f"and run `facesiam gallery --gallery={store.path} check`."
  )


def move(
  store: "Store",
  people: Mapping[str, Templates],
  *,
  fingerprint: str,
  dim: int,
  metric: str,
  drop: bool = False,
) -> list[str]:
  """Gives everybody templates of another bundle, in one transaction.

  Who they are and on what terms stays. Processes that have the gallery open
  with the bundle of before are told so at their next call.

  Args:
    store: an open gallery.
    people: name -> templates by the new bundle; nobody but the enrolled.
    fingerprint: of the new bundle.
    dim: D of its embeddings.
    metric: "cosine" or "euclidean".
    drop: remove those who have no new templates; else nothing is changed if
      there are such.

  Returns:
    The names of those who have none.

  Raises:
    UserError: as `Store.add`, for an unknown name, and if nobody is left.
  """
  cleaned = {clean_name(name): people[name] for name in people}
  check_templates(list(cleaned.items()), dim, metric)
  with store.transaction("IMMEDIATE") as connection:
    store.check_not_moved()
    ids = {name: store.id_of(name) for name in cleaned}
    behind = [name for name in store.people() if name not in ids]
    if behind and not drop:
      return behind
    if not ids:
      raise errors.UserError(
        f"Nobody would be left in {store.path}; give photos of the people."
      )
    tables.delete(connection, [store.id_of(name) for name in behind])
    connection.execute("DELETE FROM templates")
    rows = [(ids[name], templates) for name, templates in cleaned.items()]
    storage = store.meta["storage"]
    tables.put_templates(connection, rows, storage, store.codec)
    new = {"fingerprint": fingerprint, "dim": str(dim), "metric": metric}
    schema.write_meta(connection, schema.read_meta(connection) | new)
    schema.next_generation(connection, erased=True)
  store.reload()
  store.erase()
  return behind
