"""What `facesiam gallery` does with shard sets."""

import os
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle
  from facesiam_jax.gallery.gallery import Gallery
  from facesiam_jax.gallery.store import Store


def open_gallery(flag_values: flags.FlagValues, bundle: "Bundle") -> "Gallery":
  """Opens --gallery, a gallery's file or a shard set, to be searched."""
  from facesiam_jax import parallel
  from facesiam_jax.gallery import gallery, sharded

  path = flag_values.gallery
  if os.path.isdir(path):
    return sharded.ShardedGallery.load(path, bundle)
  if parallel.num_processes() > 1:
    raise errors.UserError(
      f"{path} is searched by one process; several search the folder that "
      f"`facesiam gallery --gallery={path} --out=DIR shard` makes."
    )
  return gallery.Gallery.open(path, bundle, key_file=flag_values.key_file)


def write(flag_values: flags.FlagValues, store: "Store") -> None:
  """Writes the gallery as a shard set."""
  if flag_values.out is None:
    raise common.UsageError("shard needs --out, the folder to make.")
  from facesiam_jax.gallery import sharding

  manifest = sharding.write(
    store, flag_values.out, in_clear=flag_values.in_clear
  )
  print(
    f"Wrote {manifest.num_templates} photos of {manifest.num_people} people to "
    f"{flag_values.out}, in {len(manifest.pieces)} parts, at generation "
    f"{manifest.generation} of {store.path}."
  )
  if store.is_encrypted:
    print(f"{flag_values.out} is not encrypted.")


def check(folder: str) -> None:
  """Looks for damage in a shard set, and whether it is stale."""
  from facesiam_jax.gallery import parts, sharding

  shards = parts.ShardSet(folder)
  problems = shards.problems()
  stale = sharding.staleness(shards)
  if problems or stale:
    raise errors.UserError(" ".join([*problems, *([stale] if stale else [])]))
  of = shards.manifest
  print(
    f"{folder} is sound: {of.num_templates} photos of {of.num_people} people, "
    f"generation {of.generation} of {of.path}."
  )


def refuse(folder: str, action: str) -> None:
  """Raises UserError for what is done with a gallery's file alone."""
  from facesiam_jax.gallery import parts

  path = parts.ShardSet(folder).manifest.path
  raise errors.UserError(
    f"{folder} is a shard set, and {action} is done with the gallery's file, "
    f"{path}; name that."
  )


def problems(store: "Store") -> list[str]:
  """Returns what is wrong with the gallery's sets; tells of stale ones."""
  from facesiam_jax.gallery import sharding

  found = []
  for shards in sharding.sets(store):
    found += shards.problems()
    stale = sharding.staleness(shards)
    if stale:
      print(stale)
  return found


def tell_of_deleted(store: "Store", before: list[pathlib.Path]) -> None:
  """Tells which of the sets of before were deleted by an erasing."""
  from facesiam_jax.gallery import sharding

  left = sharding.known(store)
  for folder in before:
    if folder not in left:
      print(
        f"{folder}: the shard set held who was removed, and is deleted; write "
        f"it anew with `facesiam gallery --gallery={store.path} shard "
        f"--out={folder}`"
      )


def tell_of_missing(store: "Store") -> None:
  """Tells of copies that are not where they were written."""
  from facesiam_jax.gallery import exports, sharding

  for what, paths in (
    ("an export", exports.missing(store)),
    ("a shard set", sharding.missing(store)),
  ):
    for path in paths:
      print(
        f"{path}: {what} was written here and is not here any more; if it was "
        "moved or copied, delete that yourself"
      )
