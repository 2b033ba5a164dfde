"""A gallery on the device: slots that are filled and freed in place.

The arrays keep their shapes until the capacity doubles, so that enrolling and
removing people compiles nothing anew, and their buffers are donated, so that
nothing is copied. Slots are filled from the front, in the order of the template
ids, which saves the search a sort; those of removed templates are free again
when the gallery is next laid out, at the latest when its end is reached.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel
from facesiam_jax.gallery import search

LAST = np.iinfo(np.int32).max
# Slots in one call: the same number always, so that it is compiled once.
_BATCH = 256


class Slots(NamedTuple):
  """C slots, each with a template or free.

  Attributes:
    embeddings: float32 [C, D]; None where the gallery is kept compact.
    compact: the same in 8 bits; None otherwise.
    valid: whether there is a template, bool [C].
    template_ids: int32 [C], ascending on each device; of free slots the last
      one's, or LAST.
    people: whose template it is, int32 [C].
    quality: weight of the template, >= 0, float32 [C].
  """

  embeddings: jax.Array | None
  compact: search.Compact | None
  valid: jax.Array
  template_ids: jax.Array
  people: jax.Array
  quality: jax.Array

  @property
  def capacity(self) -> int:
    """C."""
    return self.valid.shape[0]


def capacity_for(count: int, num_devices: int = 1) -> int:
  """Returns how many slots to make for so many templates.

  Args:
    count: of templates; on the fullest device, times the devices.
    num_devices: that the slots are spread over.

  Returns:
    C = devices x BLOCK x 2^n, with an eighth of it free.
  """
  capacity = num_devices * search.BLOCK
  while 8 * count > 7 * capacity:
    capacity *= 2
  return capacity


def sharding_of(devices: Sequence[jax.Device]) -> Sharding:
  """Returns how slots lie on the devices: rows split evenly over them."""
  if len(devices) == 1:
    return SingleDeviceSharding(devices[0])
  return NamedSharding(parallel.make_mesh(devices), P(parallel.AXIS))


def mesh_of(slots: Slots) -> Mesh | None:
  """Returns the mesh that slots are spread over; None on one device."""
  sharding = slots.valid.sharding
  if not isinstance(sharding, NamedSharding):
    return None
  mesh = sharding.mesh
  return mesh if isinstance(mesh, Mesh) else None


def check_rows(rows: np.ndarray, template_ids: np.ndarray, dim: int) -> None:
  """Refuses rows that are not finite or have another length.

  Args:
    rows: float32 [N, D].
    template_ids: int [N], to name a row by.
    dim: the D that they must have.

  Raises:
    ValueError: naming the template.
  """
  if rows.shape != (len(template_ids), dim):
    raise ValueError(
      f"templates must have shape [{len(template_ids)}, {dim}], got "
      f"{rows.shape}."
    )
  finite = np.isfinite(rows).all(axis=1)
  if not finite.all():
    raise ValueError(
      f"template {template_ids[int(np.argmin(finite))]} is not finite."
    )


def unit_rows(rows: np.ndarray, template_ids: np.ndarray) -> np.ndarray:
  """Returns rows of length 1, for a search by cosine.

  The bits of a row do not depend on the others, nor on their order in memory.

  Args:
    rows: float32 [N, D].
    template_ids: int [N], to name a row by.

  Returns:
    float32 [N, D].

  Raises:
    ValueError: naming the template, if a row is zero: it is like nothing.
  """
  # Column by column NumPy would sum in another order.
  rows = np.ascontiguousarray(rows)
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  if not norms.all():
    raise ValueError(f"template {template_ids[int(np.argmin(norms))]} is zero.")
  return rows / norms


def make(
  rows: np.ndarray,
  template_ids: np.ndarray,
  people: np.ndarray,
  quality: np.ndarray,
  *,
  places: np.ndarray,
  capacity: int,
  compact: bool,
  sharding: Sharding,
) -> Slots:
  """Lays a gallery out on the device.

  Args:
    rows: templates, float32 [N, D].
    template_ids: int32 [N].
    people: int32 [N].
    quality: float32 [N].
    places: the slot of each, int [N], ascending with the ids on each device.
    capacity: C.
    compact: keep 8 bits of each number on the device.
    sharding: from `sharding_of`.

  Returns:
    The slots.

  Raises:
    ValueError: for a row that is not finite.
  """
  check_rows(rows, template_ids, rows.shape[1])

  def spread(values: np.ndarray, free: Any, dtype: Any) -> Any:
    full = np.full((capacity, *values.shape[1:]), free, dtype)
    full[places] = values
    return full

  embeddings = spread(rows, 0, np.float32)
  slots = Slots(
    None if compact else embeddings,
    _compress(embeddings) if compact else None,
    spread(np.ones(len(rows)), False, bool),
    spread(template_ids, LAST, np.int32),
    spread(people, LAST, np.int32),
    spread(quality, 0, np.float32),
  )
  return jax.device_put(slots, sharding)


_compress = jax.jit(search.compress)


@functools.lru_cache
def _filler(sharding: Sharding) -> Any:
  def fill(slots: Slots, places: jax.Array, rows: jax.Array,
           facts: tuple[jax.Array, ...]) -> Slots:  # fmt: skip
    new = Slots(
      None if slots.embeddings is None else rows,
      None if slots.compact is None else search.compress(rows),
      *facts,
    )
    return jax.tree.map(
      lambda x, y: x.at[places].set(y, mode="drop"), slots, new
    )

  return jax.jit(fill, donate_argnums=0, out_shardings=sharding)


@functools.lru_cache
def _freer(sharding: Sharding) -> Any:
  def free(slots: Slots, places: jax.Array) -> Slots:
    wiped = jax.tree.map(
      lambda x: x.at[places].set(jnp.zeros((), x.dtype), mode="drop"),
      (slots.embeddings, slots.compact, slots.valid, slots.quality),
    )
    embeddings, compact, valid, quality = wiped
    # The ids stay: in their order they save the search a sort.
    return Slots(
      embeddings, compact, valid, slots.template_ids, slots.people, quality
    )

  return jax.jit(free, donate_argnums=0, out_shardings=sharding)


def _batch(values: np.ndarray, first: int, free: Any = 0) -> np.ndarray:
  part = values[first : first + _BATCH]
  padding = [(0, _BATCH - len(part))] + [(0, 0)] * (part.ndim - 1)
  return np.pad(part, padding, constant_values=free)


def fill(
  slots: Slots,
  places: np.ndarray,
  rows: np.ndarray,
  template_ids: np.ndarray,
  people: np.ndarray,
  quality: np.ndarray,
) -> Slots:
  """Puts templates into slots; the given slots are used up.

  Args:
    slots: from `make`; its buffers are donated.
    places: int [N], each below the capacity.
    rows: float32 [N, D].
    template_ids: int32 [N], ascending with the places on each device.
    people: int32 [N].
    quality: float32 [N].

  Returns:
    The slots.

  Raises:
    ValueError: for a row that is not finite or has another length.
  """
  of = slots.embeddings if slots.compact is None else slots.compact.codes
  assert of is not None
  check_rows(rows, template_ids, of.shape[1])
  run = _filler(slots.valid.sharding)
  places = places.astype(np.int32)
  for first in range(0, len(places), _BATCH):
    facts = (
      np.ones(_BATCH, bool),
      *(_batch(x, first) for x in (template_ids, people, quality)),
    )
    where = _batch(places, first, slots.capacity)
    slots = run(slots, where, _batch(rows, first), facts)
  return slots


def free(slots: Slots, places: np.ndarray) -> Slots:
  """Wipes templates out of slots; the given slots are used up.

  Args:
    slots: from `make`; its buffers are donated.
    places: int [N].

  Returns:
    The slots.
  """
  run = _freer(slots.valid.sharding)
  places = places.astype(np.int32)
  for first in range(0, len(places), _BATCH):
    slots = run(slots, _batch(places, first, slots.capacity))
  return slots
