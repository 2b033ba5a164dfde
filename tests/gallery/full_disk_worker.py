"""Enrols people and writes shard sets on a small disk that fills up.

  full_disk_worker.py FOLDER

Run in a mount namespace of its own; mounts 4 MB on FOLDER/small.
"""

import os
import pathlib
import subprocess
import sys

from facesiam_jax import errors
from facesiam_jax.gallery import parts, sharding
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import create, templates

DIM, PHOTOS = 512, 20


def refused(action):
  """Returns what a UserError says that an action ends with."""
  try:
    action()
  except errors.UserError as error:
    assert "no space left" in str(error), error
    return str(error)
  raise AssertionError("it fitted")


def enrol_until_full(path):
  """Enrols folders of people until the disk is full; returns how many."""
  done = 0
  with create(path, DIM) as store:

    def enrol():
      nonlocal done
      while True:
        store.add({f"{done}": templates(PHOTOS, done, DIM)})
        done += 1

    refused(enrol)
    assert sorted(store.people()) == sorted(map(str, range(done)))
  return done


def main():
  folder = pathlib.Path(sys.argv[1])
  small = folder / "small"
  small.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
  subprocess.run(mount, check=True)
  ballast = small / "ballast"
  ballast.write_bytes(bytes(2 << 20))
  done = enrol_until_full(small / "g.db")
  assert done > 2
  ballast.unlink()
  with Store.open(small / "g.db") as store:
    assert store.check() == []
    assert store.people() == dict.fromkeys(map(str, range(done)), PHOTOS)
    store.add({f"{done}": templates(PHOTOS, done, DIM)})
    assert store.remove("0") == PHOTOS
  with create(folder / "large.db", DIM) as store:
    store.add({f"{i}": templates(100, i, DIM) for i in range(20)})
    said = refused(lambda: sharding.write(store, small / "set"))
    assert str(small / "set") in said
    assert not [p for p in os.listdir(small) if "set" in p]
    sharding.write(store, folder / "set")
    assert parts.ShardSet(folder / "set").problems() == []
    assert store.check() == []
  print("done")


if __name__ == "__main__":
  main()
