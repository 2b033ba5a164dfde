"""Prepared data sets as faces, split by people.

The images are in memory where they fit, else on the disk until they are asked
for; the same function reads them either way.
"""

import dataclasses
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import tqdm

from facesiam_jax import errors
from facesiam_jax.data import (
  exclusion,
  listing,
  place,
  prepared,
  records,
  sets,
  shards,
)

_GB = 1e9
# Images between two steps of the progress bar.
_BLOCK = 256


@dataclasses.dataclass(frozen=True)
class Faces:
  """Faces of prepared data sets, in the order of their rows.

  Attributes:
    images: uint8 [N, H, W, C], in memory or `records.RecordImages`.
    identity_ids: person of each image, 0..M-1, int32 [N].
    image_numbers: number of each image, int32 [N].
    names: name of each person, by identity id.
  """

  images: Any
  identity_ids: np.ndarray
  image_numbers: np.ndarray
  names: tuple[str, ...]


def load(
  config: ml_collections.ConfigDict, image_size: int, *, lazy: bool = False
) -> sets.DataSet:
  """Opens prepared data sets, in the order of their rows.

  Says on stderr what the images take, before it reads anything. Where that is
  more than config.memory_gb, they stay on the disk. Every file is compared
  with its SHA-256. Of several sets
  (names with commas between), people of one name or number are one person, who
  is for the test if any of the sets says so, else for validation, else for
  training: nobody who is held out in one is trained on in another.

  Args:
    config: the `dataset` part of a training config; an older one may lack
      channels, crop, memory_gb and exclude.
    image_size: height and width of the faces, pixels.
    lazy: whether the images stay on the disk however few they are.

  Returns:
    The faces, and the people of each split. Validation people are the
    `num_validation` of a stable hash, of the sets' own validation people or,
    where they have none, of their training people; their own that are not
    taken are in no split.

  Raises:
    UserError: if a data set is not prepared or damaged, or has no identities
      or too few people.
  """
  root = place.data_root(config.data_dir, config.name)
  found = [prepared.open_prepared(n, root) for n in config.name.split(",")]
  for one in found:
    if not one.has_identities:
      raise errors.UserError(
        f"config.dataset.name={one.name} has pairs but does not say who is"
        " who: it can be evaluated on, not trained on."
      )
  images = _images(found, config, image_size)
  memory_gb = config.get("memory_gb", 4.0)
  lazy = lazy or images.nbytes > memory_gb * _GB
  _say(found, images, memory_gb, lazy)
  without = {}
  if config.get("exclude", ""):
    without = exclusion.read(config.exclude, [one.name for one in found])
  for one in found:
    one.check()
  labels, split_of, kept = _people(found, without, len(images))
  images = _left(images, kept)
  faces = Faces(images if lazy else _whole(images), **labels)
  people = {
    split: [p for p, own in enumerate(split_of) if own == split]
    for split in listing.SPLITS
  }
  validation = _choose(
    people["validation"] or people["train"], faces.names, config
  )
  alignments = {one.alignment for one in found}
  return sets.DataSet(
    faces,
    train=tuple(p for p in people["train"] if p not in set(validation)),
    validation=tuple(validation),
    test=tuple(people["test"]),
    alignment=alignments.pop() if len(alignments) == 1 else "mixed",
  )


def _images(
  found: Sequence[prepared.Prepared],
  config: ml_collections.ConfigDict,
  image_size: int,
) -> records.RecordImages:
  """Returns the images on the disk, in the order of `_rows`."""
  parts = [
    (one.folder, split, one.num_images(split))
    for one in found
    for split in listing.SPLITS
    if one.num_images(split)
  ]
  shape = image_size, image_size, config.get("channels", 1)
  return records.open_images(parts, shape, config.get("crop", 1.0))


def _say(
  found: Sequence[prepared.Prepared],
  images: records.RecordImages,
  memory_gb: float,
  lazy: bool,
) -> None:
  """Says what the images take, and where they will be."""
  name = ",".join(one.name for one in found)
  size = "x".join(map(str, images.shape[1:]))
  how = "are read when they are asked for" if lazy else "are read into memory"
  print(
    f"{name}: {len(images):,} images at {size} take {images.nbytes / _GB:.3g}"
    f" GB, of config.dataset.memory_gb={memory_gb:g}; they {how}.",
    file=sys.stderr,
  )


def _bar(of: Iterable[Any] | None, total: int, what: str) -> Any:
  return tqdm.tqdm(
    of, total=total, desc=what, unit="image", leave=False, disable=None
  )


def _whole(images: records.RecordImages) -> np.ndarray:
  """Returns all images as an array in memory."""
  out = np.empty(images.shape, np.uint8)
  with _bar(None, len(images), "reading") as bar:
    for first in range(0, len(images), _BLOCK):
      block = images[first : first + _BLOCK]
      out[first : first + _BLOCK] = block
      bar.update(len(block))
  return out


def _rows(
  found: Sequence[prepared.Prepared],
  without: Mapping[str, exclusion.Exclusion],
) -> Iterator[tuple[Hashable | None, str, shards.Example]]:
  """Yields (who, split, example) of all images; `who` is a person's own.

  It is None for an image that is to be left out.
  """
  for one in found:
    left_out = without.get(one.name, exclusion.Exclusion())
    for split in listing.SPLITS:
      for example in one.examples(split) if one.num_images(split) else ():
        # Numbers are a set's own; names and CelebA's numbers hold for all.
        known = len(found) > 1
        who = listing.canonical(example.name) if known else example.identity
        out = left_out.covers(example.identity, example.image_number)
        yield None if out else who, split, example


def _people(
  found: Sequence[prepared.Prepared],
  without: Mapping[str, exclusion.Exclusion],
  total: int,
) -> tuple[dict[str, Any], list[str], np.ndarray]:
  """Returns who is who, people numbered from 0, their splits, rows kept."""
  identity_ids = np.zeros(total, np.int32)
  image_numbers = np.zeros(total, np.int32)
  kept = np.zeros(total, bool)
  numbers: dict[Hashable, int] = {}
  names: list[str] = []
  splits: list[str] = []
  bar = _bar(_rows(found, without), total, "reading names")
  for row, (who, split, example) in enumerate(bar):
    if who is None:
      continue
    person = numbers.setdefault(who, len(names))
    if person == len(names):
      names.append(example.name)
      splits.append(split)
    splits[person] = max(splits[person], split, key=listing.SPLITS.index)
    identity_ids[row] = person
    image_numbers[row] = example.image_number
    kept[row] = True
  labels = {
    "identity_ids": identity_ids[kept],
    "image_numbers": image_numbers[kept],
    "names": tuple(names),
  }
  return labels, splits, kept


def _left(
  images: records.RecordImages, kept: np.ndarray
) -> records.RecordImages:
  """Returns the images that no list leaves out, and says how many it does."""
  if kept.all():
    return images
  print(
    f"{len(kept) - kept.sum():,} images left out, as config.dataset.exclude"
    " says.",
    file=sys.stderr,
  )
  left = images[kept]
  assert isinstance(left, records.RecordImages)
  return left


def _choose(
  people: Sequence[int],
  names: Sequence[str],
  config: ml_collections.ConfigDict,
) -> list[int]:
  """Returns so many of the people as asked for, by a hash of their names."""
  if not 0 <= config.num_validation <= len(people):
    raise errors.UserError(
      f"config.dataset.num_validation must be 0 to {len(people)} for"
      f" {config.name}, got {config.num_validation}."
    )
  ranked = sorted(people, key=lambda p: (listing.draw(names[p]), p))
  return sorted(ranked[: config.num_validation])
