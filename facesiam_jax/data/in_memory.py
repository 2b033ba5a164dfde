"""Prepared data sets as faces in memory, split by people."""

import sys

import ml_collections
import numpy as np
import tqdm

from facesiam_jax import errors
from facesiam_jax.data import encoded, listing, olivetti, place, prepared, sets
from facesiam_jax.faces import photo

_GB = 1e9


def load(config: ml_collections.ConfigDict, image_size: int) -> sets.DataSet:
  """Loads a prepared data set whole, in the order of its rows.

  Says on stderr what it takes, before it reads anything.

  Args:
    config: the `dataset` part of a training config; an older one may lack
      channels, crop and memory_gb.
    image_size: height and width of the faces, pixels.

  Returns:
    The faces, and the people of each split. Validation people are the
    `num_validation` of a stable hash, of the set's own validation people or,
    where it has none, of its training people; its own that are not taken are
    in no split.

  Raises:
    UserError: if the data set is not prepared or damaged, has no identities
      or too few people, or its faces take more memory than allowed.
  """
  found = prepared.open_prepared(
    config.name, place.data_root(config.data_dir, config.name)
  )
  if not found.has_identities:
    raise errors.UserError(
      f"config.dataset.name={config.name} has pairs but does not say who is"
      " who: it can be evaluated on, not trained on."
    )
  channels = config.get("channels", 1)
  shape = image_size, image_size, channels
  _check_memory(found, shape, config.get("memory_gb", 4.0))
  found.check()
  faces, splits = _read(found, shape, config.get("crop", 1.0))
  names = dict(enumerate(faces.names))
  own = splits["validation"] or splits["train"]
  validation = _choose(own, names, config.num_validation, found.name)
  train = [p for p in splits["train"] if p not in set(validation)]
  return sets.DataSet(
    faces,
    train=tuple(train),
    validation=tuple(validation),
    test=tuple(splits["test"]),
    alignment=found.alignment,
  )


def _check_memory(
  found: prepared.Prepared, shape: tuple[int, int, int], memory_gb: float
) -> None:
  total = sum(found.num_images(split) for split in listing.SPLITS)
  people = sum(found.num_people(split) for split in listing.SPLITS)
  takes = total * int(np.prod(shape)) / _GB
  size = "x".join(map(str, shape))
  what = f"{total:,} images of {people:,} people at {size} take {takes:.3g} GB"
  if takes > memory_gb:
    raise errors.UserError(
      f"{found.name}: {what} of memory, more than"
      f" config.dataset.memory_gb={memory_gb:g}: raise that where there is"
      " enough, lower config.image_size, or take config.dataset.channels=1."
    )
  print(f"{found.name}: {what} of {memory_gb:g} GB.", file=sys.stderr)


def _read(
  found: prepared.Prepared, shape: tuple[int, int, int], crop: float
) -> tuple[olivetti.FaceSet, dict[str, list[int]]]:
  """Returns all faces, people numbered from 0, and the people of each split."""
  total = sum(found.num_images(split) for split in listing.SPLITS)
  images = np.zeros((total, *shape), np.uint8)
  identity_ids = np.zeros(total, np.int32)
  image_numbers = np.zeros(total, np.int32)
  places: dict[int, int] = {}
  names: list[str] = []
  splits: dict[str, list[int]] = {split: [] for split in listing.SPLITS}
  row = 0
  with tqdm.tqdm(
    total=total, unit="image", desc="reading", leave=False, disable=None
  ) as bar:
    for split in listing.SPLITS:
      for example in found.examples(split) if found.num_images(split) else ():
        if example.identity not in places:
          places[example.identity] = len(names)
          splits[split].append(len(names))
          names.append(example.name)
        images[row] = _face(example.image, shape, crop)
        identity_ids[row] = places[example.identity]
        image_numbers[row] = example.image_number
        row += 1
        bar.update()
  faces = olivetti.FaceSet(images, identity_ids, image_numbers, tuple(names))
  return faces, splits


def _face(data: bytes, shape: tuple[int, int, int], crop: float) -> np.ndarray:
  """Returns an encoded image as uint8 [H, W, C]."""
  pixels = encoded.decode(data)
  gray = shape[2] == 1
  pixels = photo.to_gray(pixels) if gray else photo.to_rgb(pixels)
  return encoded.square(pixels, shape[0], crop=crop).reshape(shape)


def _choose(
  people: list[int], names: dict[int, str], count: int, what: str
) -> list[int]:
  """Returns so many of the people, by a stable hash of their names."""
  if not 0 <= count <= len(people):
    raise errors.UserError(
      f"config.dataset.num_validation must be 0 to {len(people)} for {what},"
      f" got {count}."
    )
  ranked = sorted(people, key=lambda p: (listing.draw(names[p]), p))
  return sorted(ranked[:count])
