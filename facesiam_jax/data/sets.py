"""Data sets by name: their faces, and which people are for what."""

import dataclasses
import functools
import importlib
import re
from typing import Any, Protocol

import ml_collections
import numpy as np

from facesiam_jax import errors
from facesiam_jax.data import names, olivetti


class Faces(Protocol):
  """Faces and who they show.

  Attributes:
    images: uint8 [N, H, W, C]: an array, or `records.RecordImages`, which are
      on the disk until `np.asarray` reads them.
    identity_ids: person of each image, int32 [N].
    names: name of each person, by identity id.
  """

  images: Any
  identity_ids: np.ndarray
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set split by people.

  Attributes:
    faces: all faces.
    train: identity ids to train on.
    validation: identity ids to watch the training and to calibrate on.
    test: identity ids that nothing but a test may look at.
    alignment: name of the way the faces are framed.
  """

  faces: Any
  train: tuple[int, ...]
  validation: tuple[int, ...]
  test: tuple[int, ...]
  alignment: str = "olivetti"

  def of(self, people: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """Returns images and identity ids of the given people, in order.

    Images on the disk stay there.
    """
    rows = np.flatnonzero(np.isin(self.faces.identity_ids, people))
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
      # Neighbours: no second copy of what may be most of the memory.
      here = slice(rows[0], rows[-1] + 1)
      return self.faces.images[here], self.faces.identity_ids[here]
    return self.faces.images[rows], self.faces.identity_ids[rows]


def _load_olivetti(
  config: ml_collections.ConfigDict, image_size: int
) -> DataSet:
  if config.name != "olivetti" or config.get("channels", 1) != 1:
    raise errors.UserError(
      "the olivetti faces have no variants and no colours: leave"
      " config.dataset.name=olivetti and config.dataset.channels=1."
    )
  if not 0 <= config.fold < len(olivetti.FOLDS):
    raise errors.UserError(
      f"config.dataset.fold must be 0 to {len(olivetti.FOLDS) - 1}, got "
      f"{config.fold}."
    )
  most = olivetti.NUM_PEOPLE - len(olivetti.FOLDS[config.fold]) - 2
  if not 0 <= config.num_validation <= most:
    raise errors.UserError(
      f"config.dataset.num_validation must be 0 to {most}, so that two people "
      f"are left to train on; got {config.num_validation}."
    )
  train, validation, test = olivetti.person_split(
    config.fold, num_validation=config.num_validation
  )
  faces = olivetti.load(config.data_dir or None, size=image_size)
  return DataSet(faces, tuple(train), tuple(validation), tuple(test))


def _load_synthetic(
  config: ml_collections.ConfigDict, image_size: int
) -> DataSet:
  from facesiam_jax.data import synthetic  # It needs this module.

  return synthetic.load(config, image_size)


_LOADERS = {"olivetti": _load_olivetti, "synthetic": _load_synthetic}
PREPARED = (
  *("celeba_identity", "cfp", "folder", "insightface_bin", "lfw"),
  "vggface2",
)


def load(
  config: ml_collections.ConfigDict, *, image_size: int, lazy: bool = False
) -> DataSet:
  """Loads the data set a config names.

  Args:
    config: the `dataset` part of a training config; `name` is a name of this
      module's table, with its variant after a slash where it has some
      ("folder/pins112") and commas between several prepared sets, or
      "package.module:function" for a function of your own with the signature
      (config, image_size) -> DataSet.
    image_size: height and width of the faces, pixels.
    lazy: whether a prepared set's images stay on the disk until they are asked
      for, even where they fit into config.memory_gb.

  Returns:
    The faces and the people of each split. Of the training people, only those
    with config.min_images images or more.

  Raises:
    errors.UserError: for an unknown name, a field out of range, data that is
      not there, or fewer than two people left to train on.
  """
  if ":" in config.name:
    module, _, attribute = config.name.partition(":")
    try:
      loader = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
      raise errors.UserError(
        f"config.dataset.name={config.name!r} cannot be imported ({error}); "
        "give package.module:function."
      ) from error
  elif (first := re.split("[/,]", config.name)[0]) in PREPARED:
    # Loads tfds and OpenCV, which take seconds: not before they are needed.
    from facesiam_jax.data import opening

    loader = functools.partial(opening.load, lazy=lazy)
  elif first in _LOADERS:
    loader = _LOADERS[first]
  else:
    raise errors.UserError(
      f"config.dataset.name is {config.name!r}; choose from "
      f"{sorted((*_LOADERS, *PREPARED))} or give package.module:function."
    )
  return _with_enough(loader(config, image_size), config.get("min_images", 1))


def _with_enough(data: DataSet, least: int) -> DataSet:
  """Leaves people with fewer images than that out of training."""
  if least <= 1:
    return data
  people, counts = np.unique(data.faces.identity_ids, return_counts=True)
  enough = set(people[counts >= least].tolist())
  train = tuple(person for person in data.train if person in enough)
  if len(train) < 2:
    raise errors.UserError(
      f"config.dataset.min_images={least} leaves {len(train)} of"
      f" {len(data.train)} people to train on: lower it."
    )
  return dataclasses.replace(data, train=train)


def num_published(config: ml_collections.ConfigDict, split: str) -> int:
  """Returns how many people a prepared data set has in a published split.

  Args:
    config: the `dataset` part of a training config.
    split: "train", "validation" or "test".

  Returns:
    The number; 0 of several data sets together and of sets not prepared.

  Raises:
    errors.UserError: if the data set is not there.
  """
  if config.name.split("/")[0] not in PREPARED or "," in config.name:
    return 0
  from facesiam_jax.data import place, prepared

  root = place.data_root(config.data_dir, config.name)
  manifest = prepared.open_prepared(config.name, root).manifest
  return int(manifest["splits"][split]["people"])


def seen_in_training(data: DataSet) -> tuple[str, ...]:
  """Returns validation and test people who are training people too.

  Args:
    data: a data set.

  Returns:
    Their names, each once: people whose identity id is in both, and people
    whose name in the one is a name of the other, however it is spelled.
  """
  of = lambda people: [str(data.faces.names[p]) for p in people]
  evaluated = tuple(dict.fromkeys((*data.validation, *data.test)))
  shared = set(data.train) & set(evaluated)
  found = [*of(sorted(shared))]
  pairs = names.same_names(of(evaluated), of(data.train))
  found += [of(evaluated)[i] for i, _ in pairs]
  return tuple(dict.fromkeys(found))


def split_people(
  people: tuple[int, ...], num_groups: int
) -> tuple[tuple[int, ...], ...]:
  """Deals people into groups of nearly one size, the same every time.

  Args:
    people: identity ids.
    num_groups: number of groups, 2 to the number of people.

  Returns:
    The groups; every person is in exactly one.

  Raises:
    errors.UserError: if there are fewer people than groups.
  """
  if not 2 <= num_groups <= len(people):
    raise errors.UserError(
      f"config.calibration.inner_folds must be 2 to {len(people)}, the number "
      f"of training people; got {num_groups}."
    )
  return tuple(tuple(people[g::num_groups]) for g in range(num_groups))
