"""Writes the shard set of a gallery again and again until killed.

  shard_worker.py GALLERY DIR ROWS

Prints a line before it begins and after each set.
"""

import sys

from facesiam_jax.gallery import sharding
from facesiam_jax.gallery.store import Store


def main():
  path, folder, rows = sys.argv[1:]
  sharding._LEAST_ROWS = int(rows)
  with Store.open(path) as store:
    print("begun", flush=True)
    while True:
      sharding.write(store, folder)
      print("written", flush=True)


if __name__ == "__main__":
  main()
