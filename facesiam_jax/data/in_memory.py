"""Prepared data sets as faces in memory, split by people."""

import sys
from collections.abc import Hashable, Iterator, Sequence

import ml_collections
import numpy as np
import tqdm

from facesiam_jax import errors
from facesiam_jax.data import (
  encoded,
  listing,
  olivetti,
  place,
  prepared,
  sets,
  shards,
)
from facesiam_jax.faces import pixels as pixels_lib

_GB = 1e9


def load(config: ml_collections.ConfigDict, image_size: int) -> sets.DataSet:
  """Loads prepared data sets whole, in the order of their rows.

  Says on stderr what they take, before it reads anything. Of several sets
  (names with commas between), people of one name or number are one person, who
  is for the test if any of the sets says so, else for validation, else for
  training: nobody who is held out in one is trained on in another.

  Args:
    config: the `dataset` part of a training config; an older one may lack
      channels, crop and memory_gb.
    image_size: height and width of the faces, pixels.

  Returns:
    The faces, and the people of each split. Validation people are the
    `num_validation` of a stable hash, of the sets' own validation people or,
    where they have none, of their training people; their own that are not
    taken are in no split.

  Raises:
    UserError: if a data set is not prepared or damaged, has no identities
      or too few people, or the faces take more memory than allowed.
  """
  root = place.data_root(config.data_dir, config.name)
  found = [prepared.open_prepared(n, root) for n in config.name.split(",")]
  for one in found:
    if not one.has_identities:
      raise errors.UserError(
        f"config.dataset.name={one.name} has pairs but does not say who is"
        " who: it can be evaluated on, not trained on."
      )
  shape = image_size, image_size, config.get("channels", 1)
  _check_memory(found, shape, config.get("memory_gb", 4.0))
  for one in found:
    one.check()
  faces, split_of = _read(found, shape, config.get("crop", 1.0))
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


def _num_images(found: Sequence[prepared.Prepared]) -> int:
  return sum(one.num_images(s) for one in found for s in listing.SPLITS)


def _check_memory(
  found: Sequence[prepared.Prepared],
  shape: tuple[int, int, int],
  memory_gb: float,
) -> None:
  name = ",".join(one.name for one in found)
  takes = _num_images(found) * int(np.prod(shape)) / _GB
  size = "x".join(map(str, shape))
  what = f"{_num_images(found):,} images at {size} take {takes:.3g} GB"
  if takes > memory_gb:
    raise errors.UserError(
      f"{name}: {what} of memory, more than"
      f" config.dataset.memory_gb={memory_gb:g}: raise that where there is"
      " enough, lower config.image_size, or take config.dataset.channels=1."
    )
  print(f"{name}: {what} of {memory_gb:g} GB.", file=sys.stderr)


def _rows(
  found: Sequence[prepared.Prepared],
) -> Iterator[tuple[Hashable, str, shards.Example]]:
  """Yields (who, split, example) of all images; `who` is a person's own."""
  for one in found:
    for split in listing.SPLITS:
      for example in one.examples(split) if one.num_images(split) else ():
        # Numbers are a set's own; names and CelebA's numbers hold for all.
        known = len(found) > 1
        who = listing.canonical(example.name) if known else example.identity
        yield who, split, example


def _read(
  found: Sequence[prepared.Prepared],
  shape: tuple[int, int, int],
  crop: float,
) -> tuple[olivetti.FaceSet, list[str]]:
  """Returns all faces, people numbered from 0, and each person's split."""
  total = _num_images(found)
  images = np.zeros((total, *shape), np.uint8)
  identity_ids = np.zeros(total, np.int32)
  image_numbers = np.zeros(total, np.int32)
  numbers: dict[Hashable, int] = {}
  names: list[str] = []
  splits: list[str] = []
  bar = tqdm.tqdm(
    _rows(found),
    total=total,
    unit="image",
    desc="reading",
    leave=False,
    disable=None,
  )
  for row, (who, split, example) in enumerate(bar):
    person = numbers.setdefault(who, len(names))
    if person == len(names):
      names.append(example.name)
      splits.append(split)
    splits[person] = max(splits[person], split, key=listing.SPLITS.index)
    images[row] = _face(example.image, shape, crop)
    identity_ids[row] = person
    image_numbers[row] = example.image_number
  faces = olivetti.FaceSet(images, identity_ids, image_numbers, tuple(names))
  return faces, splits


def _face(data: bytes, shape: tuple[int, int, int], crop: float) -> np.ndarray:
  """Returns an encoded image as uint8 [H, W, C]."""
  pixels = encoded.decode(data)
  gray = shape[2] == 1
  pixels = pixels_lib.to_gray(pixels) if gray else pixels_lib.to_rgb(pixels)
  return encoded.square(pixels, shape[0], crop=crop).reshape(shape)


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
