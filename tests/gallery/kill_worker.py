"""Enrols one folder of people after another, COUNT of them or until killed.

Prints the number of a folder once its enrolment has been acknowledged.
"""

import itertools
import sys

import numpy as np

from facesiam_jax.gallery.records import Templates
from facesiam_jax.gallery.store import Store

PEOPLE, PHOTOS, DIM = 7, 3, 512


def main():
  path, first, *count = sys.argv[1], *map(int, sys.argv[2:])
  folders = itertools.islice(itertools.count(first), *count or [None])
  with Store.create(
    path, fingerprint="f" * 64, dim=DIM, metric="cosine"
  ) as store:
    for folder in folders:
      people = {}
      for person in range(PEOPLE):
        name = f"{folder}-{person}"
        rows = np.full((PHOTOS, DIM), folder + (person + 1) / 8, np.float32)
        digests = [f"{name}-{i}".encode() for i in range(PHOTOS)]
        people[name] = Templates(rows, digests, [name] * PHOTOS)
      store.add(people)
      print(folder, flush=True)


if __name__ == "__main__":
  main()
