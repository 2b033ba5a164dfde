"""Identifying people in a shard set, with all processes of a run together.

Each process loads the rows of its own devices and no others. A search is one
of all processes: each asks for the same queries and gets the same answer, with
the bits that one process gives that searches the gallery's file.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from facesiam_jax import errors, parallel
from facesiam_jax.gallery import choice, gallery, search, sharding, tables
from facesiam_jax.gallery import slots as slots_lib
from facesiam_jax.gallery.enrolment import Bundle
from facesiam_jax.gallery.index import Index
from facesiam_jax.gallery.parts import ShardSet
from facesiam_jax.gallery.store import Store


class _Names(dict[int, str]):
  """Person id -> name, read when it is asked for."""

  def __init__(self, shards: ShardSet):
    super().__init__()
    self._shards = shards

  def __missing__(self, person: int) -> str:
    return self._shards.name(person)


def edges(bounds: list[int], num_devices: int) -> np.ndarray:
  """Returns the first row of each device, and the number of rows.

  Args:
    bounds: the first row of each piece, and the number of rows.
    num_devices: to spread the pieces over, each whole.

  Returns:
    int64 [num_devices + 1], rising.
  """
  starts = np.array(bounds[:-1], np.int64)
  device = starts * num_devices // max(1, bounds[-1])
  pieces = np.searchsorted(device, np.arange(num_devices + 1))
  return np.array(bounds, np.int64)[pieces]


def _load(
  shards: ShardSet, first: int, last: int, room: int, unit: bool
) -> slots_lib.Slots:
  """Reads one device's rows, and puts them in the order of the template ids."""
  count = last - first
  rows = np.zeros((room, shards.manifest.dim), np.float32)
  ids = np.full(room, slots_lib.LAST, np.int32)
  people, quality = ids.copy(), np.zeros(room, np.float32)
  for start, block in shards.rows(first, last):
    place = slice(start - first, start - first + len(block.template_ids))
    rows[place] = tables.join(block.vectors, block.scales)
    ids[place], people[place] = block.template_ids, block.person_ids
    quality[place] = block.quality
  order = np.argsort(ids[:count])
  for values in (rows, ids, people, quality):
    values[:count] = values[order]
  if unit and count:
    rows[:count] = slots_lib.unit_rows(rows[:count], ids[:count])
  valid = np.arange(room) < count
  # NumPy's until they are on the device.
  arrays = (rows, None, valid, ids, people, quality)
  return slots_lib.Slots(*arrays)  # type: ignore[arg-type]


class ShardedIndex(Index):
  """The templates of a shard set, spread over the devices of all processes."""

  def __init__(self, shards: ShardSet, *, unit: bool, mesh: Mesh):
    """Loads the rows of this process's devices.

    Args:
      shards: the set.
      unit: scale templates to length 1.
      mesh: all devices, of all processes.

    Raises:
      UserError: if a part that is read is damaged.
    """
    self.names = _Names(shards)
    self.rows = None
    self._manifest = shards.manifest
    starts = edges(shards.bounds, mesh.size)
    room = -(-int(np.diff(starts).max()) // search.BLOCK) * search.BLOCK
    room = max(room, search.BLOCK)
    placed = []
    for number, device in enumerate(mesh.devices.flat):
      if device.process_index == jax.process_index():
        first, last = int(starts[number]), int(starts[number + 1])
        own = _load(shards, first, last, room, unit)
        placed.append(jax.device_put(own, device))
    spread = NamedSharding(mesh, P(parallel.AXIS))
    self.slots = jax.tree.map(
      lambda *own: jax.make_array_from_single_device_arrays(
        (mesh.size * room, *own[0].shape[1:]), spread, list(own)
      ),
      *placed,
    )
    self._find = _owner_finder(mesh)

  @property
  def num_people(self) -> int:
    """How many people have a template."""
    return self._manifest.num_people

  @property
  def num_templates(self) -> int:
    """How many templates there are."""
    return self._manifest.num_templates

  def inverted(self, metric: str) -> search.Inverted:
    """There are no lists: a shard set is searched exactly."""
    raise errors.UserError(
      "--approximate is for a gallery's file, not for a shard set; leave it "
      "away."
    )

  def owners_of(self, template_ids: np.ndarray) -> np.ndarray:
    """Returns the people of template ids; NO_MATCH for NO_MATCH."""
    slots = self.slots
    found = self._find(slots.template_ids, slots.people, template_ids)
    return np.asarray(jax.device_get(found))


@functools.lru_cache
def _owner_finder(mesh: Mesh):  # type: ignore[no-untyped-def]
  def find(ids: jax.Array, people: jax.Array, wanted: jax.Array) -> jax.Array:
    place = jnp.minimum(jnp.searchsorted(ids, wanted), ids.shape[0] - 1)
    own = jnp.where(ids[place] == wanted, people[place], search.NO_MATCH)
    return lax.pmax(own, parallel.AXIS)

  split = P(parallel.AXIS)
  return parallel.pmap(find, mesh, in_specs=(split, split, P()), out_specs=P())


class ShardedGallery(gallery.Gallery):
  """Enrolled people of a shard set: what `identify` asks of a `Gallery`.

  Attributes:
    shards: the set.
    bundle: what embeds and decides.
  """

  def __init__(
    self, shards: ShardSet, bundle: Bundle, *, mesh: Mesh | None = None
  ):
    """Loads the rows of this process's devices.

    Args:
      shards: a set.
      bundle: the one that filled its gallery.
      mesh: what to spread the people over, the same in each process; None
        means all devices of all processes.

    Raises:
      UserError: if another bundle filled the gallery, somebody was enrolled or
        removed since, or what is read is damaged.
    """
    shards.check_bundle(bundle.fingerprint)
    sharding.check_fresh(shards)
    self.shards = shards
    self.bundle = bundle
    self._metric = choice.search_metric(bundle)
    self._index = ShardedIndex(
      shards,
      unit=bundle.metric == "cosine",
      mesh=parallel.make_mesh() if mesh is None else mesh,
    )

  @classmethod
  def load(
    cls, folder: str | os.PathLike[str], bundle: Bundle
  ) -> "ShardedGallery":
    """Opens the shard set in a folder; see `ShardedGallery`."""
    return cls(ShardSet(folder), bundle)

  @property
  def store(self) -> Store:  # type: ignore[override]
    """There is none: people are enrolled in and removed from the file."""
    raise errors.UserError(
      f"{self.shards.folder} is a shard set, which is searched only; name the "
      f"gallery's file, {self.shards.manifest.path}."
    )

  def close(self) -> None:
    """Lets go of nothing; all files are closed."""

  def _current(self) -> Index:
    assert self._index is not None
    return self._index
