"""What is known of a source of weights, besides the weights."""

import dataclasses
from typing import Any

METRICS = ("cosine", "euclidean")


@dataclasses.dataclass(frozen=True)
class Source:
  """Where weights come from and how their network is used.

  Each module of a source has one as `SOURCE`, and a function `read` from a file
  to Flax variables {"params": ..., "batch_stats": ...}.

  Attributes:
    encoder: name that `encoders.create` knows.
    args: the encoder's arguments.
    size: side of the square faces it takes, pixels, > 0.
    channels: 3 (RGB) or 1 (grey).
    standardize: arguments of `preprocess.standardize`, for pixels in 0..1.
    alignment: name of the template that faces are aligned to.
    metric: "cosine" or "euclidean": how its embeddings are compared.
    threshold: the published distance up to which two faces are judged the same
      person: Euclidean, or 1 - cosine; None where none is published.
    reference: where the network and the threshold are described.
    licence: what is known of the licence of the weights.

  Raises:
    ValueError: for an unknown metric, or another number of channels.
  """

  encoder: str
  args: dict[str, Any]
  size: int
  channels: int
  standardize: dict[str, Any]
  alignment: str
  metric: str
  threshold: float | None
  reference: str
  licence: str

  def __post_init__(self) -> None:
    if self.metric not in METRICS:
      raise ValueError(f"metric must be one of {METRICS}, got {self.metric!r}.")
    if self.channels not in (1, 3):
      raise ValueError(f"channels must be 1 or 3, got {self.channels}.")
