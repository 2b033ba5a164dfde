"""A gallery file in memory, followed as the file changes."""

from collections.abc import Sequence

import jax
import numpy as np

from facesiam_jax.gallery import search
from facesiam_jax.gallery import slots as slots_lib
from facesiam_jax.gallery.records import Records
from facesiam_jax.gallery.store import Store


class Index:
  """The templates of a gallery, on one device or spread over several.

  All templates of a person lie on one device. A small gallery takes one device,
  however many there are.

  Attributes:
    slots: the templates on the device.
    rows: the same in float32 on the host, [C, D], where `slots` is compact.
    names: person id -> name.
    ids: template ids, ascending, int32 [G].
    owners: their people, int32 [G].
    places: their slots, int64 [G].
  """

  def __init__(
    self,
    records: Records,
    *,
    unit: bool,
    compact: bool = False,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Puts a gallery on the device.

    Args:
      records: the gallery.
      unit: scale templates to length 1.
      compact: keep 8 bits of each number on the device, and float32 on the
        host; on one device only.
      devices: to spread it over; None means all of this process.
    """
    self._unit = unit
    self.names = records.names
    self.ids, self.owners = records.template_ids, records.person_ids
    devices = list(jax.local_devices() if devices is None else devices)
    if slots_lib.capacity_for(len(self.ids)) == search.BLOCK:
      devices = devices[:1]
    parts = np.bincount(self.owners % len(devices), minlength=len(devices))
    capacity = slots_lib.capacity_for(
      int(parts.max()) * len(devices), len(devices)
    )
    self._room = capacity // len(devices)
    self._used = np.zeros(len(devices), np.int64)
    places = self._take(self.owners)
    assert places is not None
    self.places = places
    rows = self._scaled(records)
    compact = compact and len(devices) == 1
    self.slots = slots_lib.make(
      rows,
      self.ids,
      self.owners,
      records.quality,
      places=places,
      capacity=capacity,
      compact=compact,
      sharding=slots_lib.sharding_of(devices),
    )
    self._inverted: search.Inverted | None = None
    self.rows: np.ndarray | None = None
    if compact:
      self.rows = np.zeros((capacity, rows.shape[1]), np.float32)
      self.rows[places] = rows

  @property
  def num_people(self) -> int:
    """How many people have a template."""
    return len(np.unique(self.owners))

  @property
  def num_templates(self) -> int:
    """How many templates there are."""
    return len(self.ids)

  def _scaled(self, records: Records) -> np.ndarray:
    rows = records.embeddings
    if not self._unit:
      return rows
    return slots_lib.unit_rows(rows, records.template_ids)

  def _take(self, owners: np.ndarray) -> np.ndarray | None:
    """Returns the next slots of the people's devices; None if one is full."""
    num_devices = len(self._used)
    device = owners % num_devices
    places = np.zeros(len(owners), np.int64)
    used = self._used.copy()
    for number in range(num_devices):
      own = np.flatnonzero(device == number)
      places[own] = number * self._room + used[number] + np.arange(len(own))
      used[number] += len(own)
    if (used > self._room).any():
      return None
    self._used = used
    return places

  def owners_of(self, template_ids: np.ndarray) -> np.ndarray:
    """Returns the people of template ids; any person's for NO_MATCH."""
    if not len(self.ids):
      return np.full(template_ids.shape, search.NO_MATCH, np.int32)
    found = np.searchsorted(self.ids, template_ids)
    return self.owners[np.minimum(found, len(self.ids) - 1)]

  def inverted(self, metric: str) -> search.Inverted:
    """Returns lists for an approximate search, made anew after a change."""
    if self._inverted is None:
      rows = self.slots.embeddings if self.rows is None else self.rows
      assert rows is not None
      self._inverted = search.build_inverted(
        rows, self.slots.valid, metric=metric
      )
    return self._inverted

  def follow(self, ids: np.ndarray, new: Records) -> bool:
    """Takes in what has changed in the file.

    Args:
      ids: of all templates that are in it now, ascending, int32 [G].
      new: those that have come.

    Returns:
      Whether there was room; the index is else as it was.

    Raises:
      ValueError: for a template that cannot be compared; the index is then no
        more to be used.
    """
    places = self._take(new.person_ids)
    if places is None:
      return False
    self._inverted = None
    keep = np.isin(self.ids, ids, assume_unique=True)
    gone, rows = self.places[~keep], self._scaled(new)
    if len(gone):
      self.slots = slots_lib.free(self.slots, gone)
    if len(places):
      self.slots = slots_lib.fill(
        self.slots,
        places,
        rows,
        new.template_ids,
        new.person_ids,
        new.quality,
      )
    if self.rows is not None:
      self.rows[gone], self.rows[places] = 0, rows
    self.names = new.names
    self.ids = np.concatenate([self.ids[keep], new.template_ids])
    self.owners = np.concatenate([self.owners[keep], new.person_ids])
    self.places = np.concatenate([self.places[keep], places])
    return True


def changes(store: Store, after: int) -> tuple[np.ndarray, Records]:
  """Reads what has come into a gallery file, and what is in it.

  Args:
    store: the file.
    after: the last template id that is known; ids only ever rise.

  Returns:
    (ids of all templates, ascending, int32 [G]; the records of those beyond
    `after`, with the names of all people).

  Raises:
    UserError: as `Store.records`.
  """
  with store.transaction("DEFERRED") as connection:
    rows = connection.execute("SELECT id FROM templates ORDER BY id").fetchall()
    new = store.read(connection, after=after)
  return np.array(rows, np.int32).reshape(-1), new
