"""`facesiam gallery tune`: what an approximate search of a gallery would find.

No verb of its own: cli/gallery.py calls it.
"""

import json
from typing import TYPE_CHECKING

from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.gallery.store import Store


def run(store: "Store", *, as_json: bool) -> int:
  """Measures and prints a table of lists against recall and time."""
  from facesiam_jax.gallery import tuning

  trials = list(tuning.measure(store))
  if as_json:
    print(json.dumps([trial._asdict() for trial in trials]))
    return 0
  rows = [
    [
      str(trial.lists) if trial.lists else "exact",
      f"{trial.share:.1%}",
      f"{trial.recall:.4f}",
      f"{1000 * trial.seconds:.3f}",
    ]
    for trial in trials
  ]
  print(common.table(["lists", "looked at", "recall", "ms a face"], rows))
  print(
    "recall: share of the 10 nearest other photos that are found, in batches "
    "of 64; `facesiam identify --approximate=LISTS` looks through so many"
  )
  return 0
