"""What benchmarks/training.py times: networks, batches and fixed data.

No framework is imported here, so that the process of each side loads its own
alone.
"""

import dataclasses
import os

import numpy as np

# Standardisation, margin of the triplets, dropout and learning rate of all
# sides.
MEAN, STD = 0.5, 0.25
MARGIN = 1.0
DROPOUT = 0.3
RATE = 1e-3
# Plain gradient descent of the check that all sides compute the same.
CHECK_STEPS = 3
# The head's logit of a pair's distance d is HEAD_WEIGHT d + HEAD_BIAS at first.
HEAD_WEIGHT, HEAD_BIAS = -1.0, 1.0
ARTICLE_WIDTHS = (32, 64, 128)
RESNET_STAGES = {
  "resnet18": ((2, 2, 2, 2), False),
  "resnet50": ((3, 4, 6, 3), True),
}
_PEOPLE = 40
_PATCHES = 5


@dataclasses.dataclass(frozen=True)
class Case:
  """One training step.

  Attributes:
    network: "article_cnn", "resnet18", "resnet50" or "mobilefacenet".
    groups: pairs (article_cnn) or triplets (the others) of a batch.
    dim: size of the embedding.
    size: height and width of a face, pixels.
    channels: 1 or 3.
    dropout: probability of a zero, of the article's network only.
  """

  network: str
  groups: int
  dim: int = 128
  size: int = 112
  channels: int = 3
  dropout: float = DROPOUT

  @property
  def group(self) -> int:
    """Images of a pair or a triplet."""
    return 2 if self.network == "article_cnn" else 3

  @property
  def check_rate(self) -> float:
    """Learning rate of the check: the losses must move, and not to 0."""
    return {"article_cnn": 1e-2, "resnet50": 3e-7}.get(self.network, 1e-5)

  @property
  def rows(self) -> int:
    """Images of a batch."""
    return self.groups * self.group


def article(groups: int = 64, dim: int = 128) -> Case:
  """Returns the article's network on 64x64 grey faces."""
  return Case("article_cnn", groups, dim, 64, 1)


def faces(case: Case, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws faces: each person patches of their own, each image noise on them.

  Args:
    case: says their size.
    count: images.

  Returns:
    (images, ids): uint8 [count, H, W, C] and int32 [count]; neighbours in the
    list are of different people.
  """
  rng = np.random.default_rng(0)
  people = rng.integers(0, 200, (_PEOPLE, _PATCHES, _PATCHES, case.channels))
  rows = np.arange(case.size) * _PATCHES // case.size
  ids = np.arange(count, dtype=np.int32) % _PEOPLE
  coarse = people[ids][:, rows][:, :, rows]
  return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8), ids


def batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
  """Returns one fixed batch: groups of neighbours, as a step draws them.

  Of pairs every second is genuine; a triplet is anchor, positive, negative.

  Returns:
    (images, ids): uint8 [rows, H, W, C] and int32 [rows].
  """
  # Two images of every person are enough to choose from.
  images, ids = faces(case, 2 * _PEOPLE)
  chosen = []
  for number in range(case.groups):
    person, other = number % _PEOPLE, (number + 1) % _PEOPLE
    same = _PEOPLE + person
    if case.group == 3:
      chosen += [person, same, other]
    else:
      chosen += [person, other if number % 2 else same]
  return images[chosen], ids[chosen]


def same(ids: np.ndarray) -> np.ndarray:
  """Returns 1 where a pair of neighbouring rows is genuine, float32 [pairs]."""
  return (ids[0::2] == ids[1::2]).astype(np.float32)


def standardized(images: np.ndarray) -> np.ndarray:
  """Returns float32 of the same shape, as every network takes them."""
  return ((images.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def cores() -> int:
  """Returns the threads that each side may use."""
  return os.cpu_count() or 1
