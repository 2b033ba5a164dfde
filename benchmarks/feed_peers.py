"""The PyTorch side of feed.py: what a DataLoader's workers run.

A module of its own, so that a worker process loads torch and not JAX.
"""

import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import PIL.Image
import torch
from torch.utils import data

# A worker does one thing at a time, as PyTorch sets it for itself.
cv2.setNumThreads(1)


class Numbers(data.Sampler):
  """Item numbers 0, 1, ...; how many is said before each epoch."""

  count = 0

  def __iter__(self) -> Iterator[int]:
    return iter(range(self.count))

  def __len__(self) -> int:
    return self.count


class PeopleTimesImages(Numbers):
  """Image numbers, `per_person` images of one person after another."""

  def __init__(self, ids: np.ndarray, per_person: int) -> None:
    self._rng = np.random.default_rng(0)
    self._per_person = per_person
    self._of = [np.flatnonzero(ids == person) for person in np.unique(ids)]

  def __iter__(self) -> Iterator[int]:
    for _ in range(self.count // self._per_person):
      rows = self._of[self._rng.integers(len(self._of))]
      yield from self._rng.choice(rows, self._per_person).tolist()


def _by_torchvision(flip: float, rotation: float, shear: float) -> Any:
  from torchvision.transforms import v2

  return v2.Compose(
    [
      v2.RandomHorizontalFlip(flip),
      v2.RandomAffine(
        rotation, shear=shear, interpolation=v2.InterpolationMode.BILINEAR
      ),
      v2.ToDtype(torch.float32, scale=True),
    ]
  )


class _ByOpenCv:
  """Mirror, rotation and shear as one warp of a uint8 array."""

  def __init__(self, flip: float, rotation: float, shear: float) -> None:
    self._flip, self._rotation, self._shear = flip, rotation, shear
    self._rng = np.random.default_rng()

  def __call__(self, image: np.ndarray) -> torch.Tensor:
    height, width = image.shape[:2]
    turn, slant = self._rng.uniform(-1, 1, 2)
    angle = math.radians(self._rotation * turn)
    tan = math.tan(math.radians(self._shear * slant))
    cos, sin = math.cos(angle), math.sin(angle)
    linear = np.array([[cos, cos * tan - sin], [sin, sin * tan + cos]])
    if self._rng.random() < self._flip:
      linear[:, 0] *= -1
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    matrix = np.column_stack([linear, centre - linear @ centre])
    warped = cv2.warpAffine(
      image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    pixels = torch.from_numpy(warped.reshape(height, width, -1))
    return pixels.permute(2, 0, 1).to(torch.float32) / 255


class Pairs(data.Dataset):
  """Random pairs of decoded faces, half of them of one person, augmented."""

  def __init__(
    self,
    images: np.ndarray,
    ids: np.ndarray,
    by: str,
    flip: float,
    rotation: float,
    shear: float,
  ) -> None:
    self._rng = np.random.default_rng()
    self._ids, self._by_opencv = ids, by == "opencv"
    self._of = [np.flatnonzero(ids == person) for person in range(max(ids) + 1)]
    if self._by_opencv:
      self._images: Any = images
      self._change: Any = _ByOpenCv(flip, rotation, shear)
    else:
      self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
      self._images = self._images.contiguous()
      self._change = _by_torchvision(flip, rotation, shear)

  def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    left = int(self._rng.integers(len(self._ids)))
    same = number % 2
    if same:
      right = int(self._rng.choice(self._of[self._ids[left]]))
    else:
      right = int(self._rng.integers(len(self._ids)))
    images = self._images
    return self._change(images[left]), self._change(images[right]), same


class Files(data.Dataset):
  """JPEG files, decoded to uint8 [H, W, 3]."""

  def __init__(self, paths: list[str], ids: np.ndarray, by: str) -> None:
    self._paths, self._ids, self._by = paths, ids, by

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
    if self._by == "opencv":
      pixels = cv2.imread(self._paths[row], cv2.IMREAD_COLOR_RGB)
    else:
      with open(self._paths[row], "rb") as file:
        pixels = np.array(PIL.Image.open(file).convert("RGB"))
    return torch.from_numpy(pixels), int(self._ids[row])
