"""Who of CelebA is a distractor: in the gallery, never trained on, no probe.

A distractor is somebody with exactly one image in celeba_manual, none in
celeba_wild112, whom the list of exclusions does not name (it names people who
are there under another number too). Training needs `dataset.min_images` = 2
with both sets in `dataset.name` and the same list, and then takes none of them,
since it counts the images of both sets after the list.
"""

import collections
import pathlib
from collections.abc import Mapping

from facesiam_jax.data import exclusion, listing

CELEBA = "celeba_identity/arcface_112_64"
WILD = "folder/celeba_wild112"
PINS = "folder/pins112"
EXCLUDE = pathlib.Path(__file__).parents[1] / "configs/pins_celeba_exclude.txt"


def distractors(
  celeba: Mapping[str, int], wild: Mapping[str, int]
) -> tuple[str, ...]:
  """Returns the distractors, always in one order, that of a stable hash.

  Args:
    celeba: CelebA's number of each person of celeba_manual -> images.
    wild: likewise of celeba_wild112.

  Returns:
    Their numbers, as `listing.canonical` writes them.
  """
  counts: collections.Counter[str] = collections.Counter()
  for name, count in celeba.items():
    counts[listing.canonical(name)] += count
  elsewhere = {listing.canonical(name) for name in wild}
  listed = exclusion.read(EXCLUDE, [CELEBA])[CELEBA].people
  found = [
    name
    for name, count in counts.items()
    if count == 1 and name not in elsewhere and int(name) not in listed
  ]
  return tuple(sorted(found, key=lambda name: (listing.draw(name), name)))
