"""Tests of facesiam_jax.gallery.slots and of an index that follows a file."""

import jax
import numpy as np
import pytest

from facesiam_jax.gallery import index as index_lib
from facesiam_jax.gallery import ranking, search, slots
from facesiam_jax.gallery.records import Records

_COMPILED = []
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"
jax.monitoring.register_event_duration_secs_listener(
  lambda name, *_, **__: _COMPILED.append(name) if name == _LOWERED else None
)
DIM = 3
EITHER = pytest.mark.parametrize(
  "compact, devices", [(False, 1), (True, 1), (False, 2)]
)


class _File:
  """What a gallery file holds, and what an index has to be told of it."""

  def __init__(self, seed=0):
    self.rng = np.random.default_rng(seed)
    self.rows = np.zeros((0, DIM), np.float32)
    self.ids = np.zeros(0, np.int32)
    self.owners = np.zeros(0, np.int32)
    self.quality = np.zeros(0, np.float32)
    self.last = 0

  def records(self, after=0):
    new = self.ids > after
    names = {int(i): str(i) for i in self.owners}
    each = (self.ids, self.owners, self.rows, self.quality)
    return Records(*(values[new] for values in each), names)

  def change(self, added, removed):
    keep = np.ones(len(self.ids), bool)
    keep[self.rng.permutation(len(keep))[:removed]] = False
    ids = np.arange(self.last + 1, self.last + 1 + added, dtype=np.int32)
    self.last += added
    rows = self.rng.normal(size=(added, DIM)).astype(np.float32)
    owners = self.rng.integers(1, 90, added).astype(np.int32)
    self.rows = np.concatenate([self.rows[keep], rows])
    self.ids = np.concatenate([self.ids[keep], ids])
    self.owners = np.concatenate([self.owners[keep], owners])
    quality = self.rng.uniform(0.1, 1, added).astype(np.float32)
    self.quality = np.concatenate([self.quality[keep], quality])


def _best(index, rule="max"):
  queries = np.random.default_rng(9).normal(size=(8, DIM)).astype(np.float32)
  return ranking.best_people(index, queries, 4, metric="dot", rule=rule)


@EITHER
def test_following_compiles_nothing_and_equals_reading_anew(compact, devices):
  file = _File()
  # On two devices a gallery must be large enough to be spread.
  file.change(9000 if devices == 2 else 500, 0)
  make = lambda: index_lib.Index(
    file.records(), unit=False, compact=compact,
    devices=jax.devices()[:devices],
  )  # fmt: skip
  index = make()
  assert index.slots.valid.sharding.num_devices == devices
  before, counts = index.slots.capacity, []
  for added, removed in ((300, 0), (0, 10), (257, 256), (1, 1), (400, 300)):
    last = int(file.ids[-1])
    file.change(added, removed)
    old = index.slots
    compiled = len(_COMPILED)
    assert index.follow(file.ids, file.records(last))
    found = _best(index)
    counts.append(len(_COMPILED) - compiled)
    assert old.valid.is_deleted()
    for got, want in zip(found, _best(make()), strict=True):
      np.testing.assert_array_equal(got, want)
  assert index.slots.capacity == before
  # Filling, freeing and searching were compiled in the first rounds.
  assert counts[2:] == [0, 0, 0], counts
  for rule in ("mean", "weighted_mean"):
    for got, want in zip(_best(index, rule), _best(make(), rule),
                         strict=True):  # fmt: skip
      np.testing.assert_array_equal(got, want)


def test_removed_rows_are_wiped():
  file = _File()
  file.change(20, 0)
  for compact in (False, True):
    index = index_lib.Index(file.records(), unit=False, compact=compact)
    kept = file.ids[5:]
    assert index.follow(kept, file.records(file.last))
    of = index.slots.compact.codes if compact else index.slots.embeddings
    assert not np.asarray(of)[:5].any() and np.asarray(of)[5:20].any()
    assert index.rows is None or not index.rows[:5].any()
    assert index.num_people == len(np.unique(file.owners[5:]))


def test_full_slots_say_so():
  file = _File()
  file.change(7000, 0)
  index = index_lib.Index(file.records(), unit=False)
  assert index.slots.capacity == search.BLOCK
  last = file.last
  file.change(1193, 0)
  assert not index.follow(file.ids, file.records(last))
  assert len(index.ids) == 7000
  index = index_lib.Index(file.records(), unit=False, devices=jax.devices()[:1])
  assert index.slots.capacity == 2 * search.BLOCK


def test_the_length_of_a_row_is_its_own():
  rows = np.random.default_rng(0).normal(size=(9, 128)).astype(np.float32)
  ids, by_columns = np.arange(9), np.asfortranarray(rows)
  assert (np.linalg.norm(rows, axis=1) != np.linalg.norm(by_columns, axis=1)
          ).any()  # fmt: skip
  want = slots.unit_rows(rows, ids)
  np.testing.assert_array_equal(slots.unit_rows(by_columns, ids), want)
  for place in range(9):
    one = slice(place, place + 1)
    np.testing.assert_array_equal(
      slots.unit_rows(rows[one], ids[one]), want[one]
    )


def test_capacity():
  block = search.BLOCK
  assert slots.capacity_for(0) == slots.capacity_for(7 * block // 8) == block
  assert slots.capacity_for(7 * block // 8 + 1) == 2 * block
  assert slots.capacity_for(1, 6) == 6 * block
  assert slots.capacity_for(7 * block, 6) == 12 * block


def test_bad_rows_are_refused_by_name():
  file = _File()
  file.change(4, 0)
  index = index_lib.Index(file.records(), unit=True)
  good = np.ones((2, DIM), np.float32)
  for rows, match in (
    (good * np.float32(np.nan), "template 5 is not finite"),
    (good * np.array([[1], [0]], np.float32), "template 6 is zero"),
    (good[:, :2], r"shape \[2, 3\], got \(2, 2\)"),
  ):
    numbers, quality = np.array([5, 6], np.int32), np.ones(2, np.float32)
    new = Records(numbers, np.ones(2, np.int32), rows, quality, {})
    ids = np.append(file.ids, [5, 6]).astype(np.int32)
    with pytest.raises(ValueError, match=match):
      index_lib.Index(file.records(), unit=True).follow(ids, new)
  assert len(index.ids) == 4
