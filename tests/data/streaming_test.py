"""The streaming feed: the resident draws, on any devices, from any step."""

import pathlib
import pickle
import socket
import subprocess
import sys
import threading
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import record_set

from facesiam_jax import errors, parallel, sampling
from facesiam_jax.data import feeds, records, streaming
from facesiam_jax.training import objectives

_STEPS = 7
_ROOT = pathlib.Path(__file__).parents[2]
OBJECTIVES = {
  "supcon": {"num_people": 4, "images_per_person": 2},
  "pair_bce": {"num_pairs": 8},
  "softmax": {"num_images": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  images, ids = record_set.faces()
  return record_set.write(tmp_path_factory.mktemp("set"), images, ids)


@pytest.fixture(scope="module")
def faces(folder):
  return records.open_faces(folder)


def _feed(faces, devices, objective="supcon", seed=5, **options):
  return streaming.Streaming(
    faces.images,
    faces.identity_ids,
    objective=objectives.create(objective, **OBJECTIVES[objective]),
    draw_key=jax.random.key(seed),
    mesh=parallel.make_mesh(devices),
    num_steps=_STEPS,
    options=streaming.Options(**options),
  )


def _take(feed, steps=range(_STEPS)):
  """The batches of some steps, on the host."""
  taken = [jax.device_get(feed.at(step)) for step in steps]
  feed.close()
  return taken


def _expected(objective, step, seed=5):
  """The batch that the resident step would gather."""
  images, ids = record_set.faces()
  numbers = np.unique(ids, return_inverse=True)[1]
  index = sampling.index_identities(numbers)
  draw = objectives.create(objective, **OBJECTIVES[objective]).draw
  rows = jax.jit(draw)(index, jax.random.key(seed), jnp.int32(step))
  return images[np.asarray(rows)], numbers[np.asarray(rows)]


def _assert_equal(batches, others):
  for a, b in zip(batches, others, strict=True):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.identity_ids, b.identity_ids)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_batches_are_those_of_the_resident_draw(faces, devices, objective):
  for step, batch in enumerate(_take(_feed(faces, devices[:1], objective))):
    images, ids = _expected(objective, step)
    np.testing.assert_array_equal(batch.images, images)
    np.testing.assert_array_equal(batch.identity_ids, ids)
    assert batch.images.dtype == np.uint8


def test_the_check_above_tells_steps_and_seeds_apart():
  first = _expected("supcon", 0)[0]
  assert np.any(first != _expected("supcon", 1)[0])
  assert np.any(first != _expected("supcon", 0, seed=6)[0])


def test_images_in_memory_stream_as_well(devices, faces):
  images, ids = record_set.faces()
  in_memory = records.RecordFaces(images, ids, ())
  _assert_equal(
    _take(_feed(in_memory, devices[:1])), _take(_feed(faces, devices[:1]))
  )


@pytest.mark.parametrize("count", [2, 8])
def test_the_device_count_does_not_matter(faces, devices, count):
  feed = _feed(faces, devices[:count])
  batch = feed.at(0)
  whole = np.asarray(batch.images)
  assert len(batch.images.addressable_shards) == count
  for shard in batch.images.addressable_shards:
    np.testing.assert_array_equal(shard.data, whole[shard.index])
    assert shard.data.shape[0] == 8 // count
  feed.close()
  _assert_equal(
    _take(_feed(faces, devices[:count])), _take(_feed(faces, devices[:1]))
  )


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 5}])
def test_neither_do_threads_and_prefetching(faces, devices, options):
  again = _take(_feed(faces, devices[:1], prefetch=1, **options))
  _assert_equal(again, _take(_feed(faces, devices[:1])))


@pytest.mark.slow
def test_nor_do_worker_processes(faces, devices):
  ours = _take(_feed(faces, devices[:2], workers=2), range(2, _STEPS))
  _assert_equal(ours, _take(_feed(faces, devices[:1]), range(2, _STEPS)))


@pytest.mark.parametrize("first", [1, _STEPS - 1])
def test_a_resumed_run_reads_on_from_its_step(faces, devices, first):
  whole = _take(_feed(faces, devices[:1]))
  _assert_equal(
    _take(_feed(faces, devices[:1]), range(first, _STEPS)), whole[first:]
  )


def test_resuming_reads_nothing_of_the_steps_before(
  faces, devices, monkeypatch
):
  steps = []
  rows = streaming.Batches.rows
  monkeypatch.setattr(
    streaming.Batches,
    "rows",
    lambda self, step: (steps.append(step), rows(self, step))[1],
  )
  _take(_feed(faces, devices[:1]), [_STEPS - 2])
  assert set(steps) == {_STEPS - 2, _STEPS - 1}


def test_any_order_of_steps(faces, devices):
  whole = _take(_feed(faces, devices[:1]))
  order = [3, 4, 1, 1, 6, 0]
  taken = _take(_feed(faces, devices[:1]), order)
  _assert_equal(taken, [whole[step] for step in order])
  feed = _feed(faces, devices[:1])
  _assert_equal([jax.device_get(b) for b in feed], whole)
  feed.close()


def test_batches_can_be_sent_to_a_process(faces, devices):
  batches = _feed(faces, devices[:1]).batches
  here, there = batches[2], pickle.loads(pickle.dumps(batches))[2]
  np.testing.assert_array_equal(here["images"], there["images"])


def test_threads_end_with_the_feed(faces, devices):
  before = threading.active_count()
  feed = _feed(faces, devices[:1], threads=4)
  feed.at(0)
  assert threading.active_count() > before
  feed.close()
  feed.close()
  deadline = time.monotonic() + 60
  while threading.active_count() > before and time.monotonic() < deadline:
    time.sleep(0.01)
  assert threading.active_count() <= before


def test_a_damaged_image_ends_the_run_with_its_name(tmp_path, devices):
  images, ids = record_set.faces()
  broken = [b"broken" if person == ids[0] else image
            for image, person in zip(images, ids, strict=True)]  # fmt: skip
  folder = record_set.write(tmp_path, broken, ids)
  feed = _feed(records.open_faces(folder, size=12), devices[:1])
  with pytest.raises(errors.UserError, match="is damaged"):
    for step in range(_STEPS):
      feed.at(step)
  feed.close()


def test_uneven_batch_is_refused(faces, devices):
  with pytest.raises(ValueError, match="8 rows does not divide by 3"):
    _feed(faces, devices[:3])


def _free_port():
  with socket.socket() as found:
    found.bind(("localhost", 0))
    return found.getsockname()[1]


@pytest.mark.slow
def test_shares_of_two_processes_join_to_the_batch(folder, tmp_path):
  port = str(_free_port())
  outs = [tmp_path / f"{rank}.npz" for rank in range(2)]
  running = [
    subprocess.Popen(
      [sys.executable, "-W", "ignore", str(_ROOT / "tests/data/pod_worker.py"),
       str(rank), port, str(folder), str(out)],
      cwd=_ROOT, env={"PYTHONPATH": str(_ROOT), "PATH": ""},
      stderr=subprocess.PIPE, text=True,
    )
    for rank, out in enumerate(outs)
  ]  # fmt: skip
  for process in running:
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
  shares = [dict(np.load(out)) for out in outs]
  np.testing.assert_array_equal(shares[0]["own"], np.arange(4))
  np.testing.assert_array_equal(shares[1]["own"], np.arange(4, 8))
  for number, step in enumerate((3, 4)):
    images, ids = _expected("supcon", step)
    joined = [np.concatenate([s[f"{name}{number}"] for s in shares])
              for name in ("images", "ids")]  # fmt: skip
    np.testing.assert_array_equal(joined[0], images)
    np.testing.assert_array_equal(joined[1], ids)
  # Two batches of eight, half of each for each process.
  assert [len(share["read"]) for share in shares] == [8, 8]


def _feed_config(**changes):
  fields = {"kind": "auto", "memory_gb": 1.0, "threads": 1, "workers": 0}
  return ml_collections.ConfigDict({**fields, "prefetch": 2, **changes})


def _make_feed(faces, devices, **changes):
  return feeds.make_feed(
    _feed_config(**changes),
    faces.images,
    faces.identity_ids,
    objective=objectives.create("supcon", **OBJECTIVES["supcon"]),
    draw_key=jax.random.key(5),
    mesh=parallel.make_mesh(devices[:2]),
    num_steps=_STEPS,
  )


def test_the_budget_chooses_the_feed_which_says_what_it_takes(faces, devices):
  needed = 30 * 12 * 12 * 3 / 1e9
  held = _make_feed(faces, devices, memory_gb=1.001 * needed)
  assert not held.streamed
  assert held.summary == "resident, 0.0 MB a device"
  streamed = _make_feed(faces, devices, memory_gb=0.999 * needed)
  assert streamed.streamed
  # Two read, two placed, one in use, of eight faces each.
  assert streamed.host_bytes == 5 * 8 * 12 * 12 * 3
  assert streamed.summary == "streaming, 0.0 MB of the host"
  assert not _make_feed(faces, devices).streamed
  assert _make_feed(faces, devices, kind="streaming").streamed
  with pytest.raises(errors.UserError, match="config.feed.memory_gb=1e-06"):
    _make_feed(faces, devices, kind="resident", memory_gb=1e-6)


def test_both_feeds_give_the_step_the_same_faces(faces, devices):
  """What a step gathers of the resident split is what is streamed to it."""
  held = _make_feed(faces, devices)
  streamed = _make_feed(faces, devices, kind="streaming")
  assert held.num_people == streamed.num_people == 6
  objective = objectives.create("supcon", **OBJECTIVES["supcon"])
  for step in range(2):
    data = held.at(step)
    rows = objective.draw(data.index, jax.random.key(5), step)
    np.testing.assert_array_equal(data.images[rows], streamed.at(step).images)
  streamed.close()
  held.close()
