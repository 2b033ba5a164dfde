"""Writers that are killed, and many at once."""

import collections
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import sharding
from facesiam_jax.gallery.parts import ShardSet
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import create, templates


def _kill_while_enrolling(path, first, delay_s):
  """Returns the last folder acknowledged before the worker was killed."""
  worker = pathlib.Path(__file__).parent / "kill_worker.py"
  process = subprocess.Popen(
    [sys.executable, str(worker), str(path), str(first)],
    stdout=subprocess.PIPE,
    text=True,
  )
  acknowledged = int(process.stdout.readline())
  time.sleep(delay_s)
  process.send_signal(signal.SIGKILL)
  rest = process.stdout.read().split()
  process.stdout.close()
  process.wait()
  return int(rest[-1]) if rest else acknowledged


def _check_after_kill(path, last):
  with Store.open(path) as store:
    assert store.check() == []
    people = store.people()
    records = store.records()
  assert set(people.values()) == {3}
  folders = collections.Counter(int(name.split("-")[0]) for name in people)
  assert set(folders.values()) == {7}
  # All that was acknowledged, and at most the one folder in flight.
  assert max(folders) in (last, last + 1)
  assert sorted(folders) == list(range(max(folders) + 1))
  for row, person in zip(records.embeddings, records.person_ids, strict=True):
    folder, number = map(int, records.names[int(person)].split("-"))
    assert (row == folder + (number + 1) / 8).all()
  return max(folders) + 1


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.soak)])
def test_kill_while_enrolling(tmp_path, kills):
  path, first = tmp_path / "g.db", 0
  for kill in range(kills):
    last = _kill_while_enrolling(
      path, first, delay_s=0.002 + 0.013 * (kill % 9)
    )
    first = _check_after_kill(path, last)


def _kill_while_sharding(path, folder, delay_s):
  """Kills a worker that writes one set after another."""
  worker = pathlib.Path(__file__).parent / "shard_worker.py"
  argv = [sys.executable, str(worker), str(path), str(folder), "40"]
  process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "begun\n"
  time.sleep(delay_s)
  process.send_signal(signal.SIGKILL)
  process.stdout.close()
  process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_kill_while_sharding(tmp_path, kills):
  path, folder = tmp_path / "g.db", tmp_path / "set"
  with create(path) as store:
    people = {f"Person {i}": templates(i % 5 + 1, i) for i in range(50)}
    store.add(people)
  for kill in range(kills):
    delay_s = 0.02 + 0.17 * (kill % 7)
    _kill_while_sharding(path, folder, delay_s)
    # While one set takes the place of another there may be none for a moment.
    if folder.exists():
      assert ShardSet(folder).problems() == []
    with Store.open(path) as store:
      assert store.check() == []
      if kill % 2:
        # Who is removed is in nothing that a killed writer has left.
        store.remove(f"Person {kill}")
        assert not [name for name in os.listdir(tmp_path) if "set" in name]
  with Store.open(path) as store:
    sharding.write(store, folder)
  assert ShardSet(folder).problems() == []
  assert [name for name in os.listdir(tmp_path) if "set" in name] == ["set"]


def _writer(path, first, count):
  worker = pathlib.Path(__file__).parent / "kill_worker.py"
  argv = [sys.executable, str(worker), str(path), str(first), str(count)]
  return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_eight_writers_and_a_reader(tmp_path):
  path, each = tmp_path / "g.db", 6
  writers = [_writer(path, 100 * n, each) for n in range(8)]
  seen = []
  while any(writer.poll() is None for writer in writers):
    if path.exists():
      with Store.open(path) as store:
        seen.append(len(store.records().template_ids))
  said = [int(n) for writer in writers for n in writer.stdout.read().split()]
  for writer in writers:
    writer.stdout.close()
    assert writer.returncode == 0
  wanted = [100 * n + i for n in range(8) for i in range(each)]
  assert sorted(said) == wanted
  # A reader sees whole transactions, and never fewer than before.
  assert seen == sorted(seen) and all(count % 21 == 0 for count in seen)
  with Store.open(path) as store:
    people, records = store.people(), store.records()
    assert store.check() == []
  assert sorted({int(name.split("-")[0]) for name in people}) == wanted
  assert set(people.values()) == {3} and len(people) == 7 * len(wanted)
  assert records.template_ids.tolist() == [*range(1, 21 * len(wanted) + 1)]


def test_who_holds_the_lock_is_named(store):
  code = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], "
    "isolation_level=None); c.execute('BEGIN IMMEDIATE'); "
    "print('held', flush=True); input()"
  )
  holder = subprocess.Popen(
    [sys.executable, "-c", code, str(store.path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == "held\n"
  with pytest.raises(errors.UserError, match="another program") as caught:
    store.add({"Ada": templates(1, 1)})
  assert f"process {holder.pid} (" in str(caught.value)
  holder.communicate("\n")
  store.add({"Ada": templates(1, 1)})
