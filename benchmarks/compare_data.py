"""The people that systems are compared on: of Olivetti, and of CelebA."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from facesiam_jax.data import sets
from facesiam_jax.training import config as config_lib

SIDE = 64
# Photos of each training person that no network sees: for what a classifier
# can do at all, name people it was trained on.
SEEN = 2
_WILD = "folder/celeba_wild112"


@dataclasses.dataclass(frozen=True)
class Photos:
  """Photos and who they show.

  Attributes:
    images: uint8 [N, SIDE, SIDE, 1].
    ids: person of each, int [N].
  """

  images: np.ndarray
  ids: np.ndarray

  def __getitem__(self, rows: np.ndarray) -> "Photos":
    return Photos(self.images[rows], self.ids[rows])

  def of(self, people: Sequence[int]) -> "Photos":
    """Returns the photos of some people."""
    return self[np.isin(self.ids, people)]


@dataclasses.dataclass(frozen=True)
class Task:
  """People to train, tune and test on; no person is in two of the three.

  Attributes:
    name: of the data set, and of the fold.
    train: photos to train on.
    seen: other photos of the same people.
    validation: for the learning rate and for what is fitted afterwards.
    test: looked at when all is chosen.
  """

  name: str
  train: Photos
  seen: Photos
  validation: Photos
  test: Photos


def split_photos(
  photos: Photos, per_person: int, seed: int = 0
) -> tuple[Photos, Photos]:
  """Takes some photos of each person aside.

  Args:
    photos: of people with more than `per_person` photos each.
    per_person: photos of each person to take.
    seed: of which ones.

  Returns:
    (the others, those taken).

  Raises:
    ValueError: if somebody would be left without a photo.
  """
  rng = np.random.default_rng(seed)
  taken = np.zeros(len(photos.ids), bool)
  for person in np.unique(photos.ids):
    rows = np.flatnonzero(photos.ids == person)
    if len(rows) <= per_person:
      raise ValueError(
        f"person {person} has {len(rows)} photos: {per_person} cannot be taken"
        " and some be left"
      )
    taken[rng.permutation(rows)[:per_person]] = True
  return photos[~taken], photos[taken]


def at_least(photos: Photos, fewest: int) -> Photos:
  """Returns the photos of people who have so many or more."""
  people, counts = np.unique(photos.ids, return_counts=True)
  return photos.of(people[counts >= fewest].tolist())


def _task(name: str, data: sets.DataSet, fewest: int) -> Task:
  parts = {
    part: Photos(*map(np.asarray, data.of(getattr(data, part))))
    for part in ("train", "validation", "test")
  }
  train, seen = split_photos(at_least(parts["train"], fewest + SEEN), SEEN)
  return Task(
    name,
    train=train,
    seen=seen,
    validation=at_least(parts["validation"], 2),
    test=at_least(parts["test"], 2),
  )


def load(name: str, data_dir: str | None, images_per_person: int) -> list[Task]:
  """Opens a data set's tasks.

  Args:
    name: "olivetti", four folds of ten test people, or "celeba", the prepared
      set celeba_wild112 with 40 validation and 58 test people.
    data_dir: folder of tfds data sets, None for the usual one.
    images_per_person: of a batch; who has fewer is not trained on.
  """
  config = config_lib.default_config().dataset
  config.data_dir = data_dir or ""
  if name == "celeba":
    config.name, config.num_validation = _WILD, 40
    return [_task(name, sets.load(config, image_size=SIDE), images_per_person)]
  tasks = []
  for fold in range(4):
    config.fold = fold
    data = sets.load(config, image_size=SIDE)
    tasks.append(_task(f"{name}{fold}", data, images_per_person))
  return tasks
