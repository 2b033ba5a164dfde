"""Images of some people: what is trained on, what is measured on."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
  """Images of some people.

  Attributes:
    images: uint8 [N, H, W, C]; or `data.records.RecordImages`, read when
      asked for.
    identity_ids: int32 [N].
  """

  images: Any
  identity_ids: np.ndarray
