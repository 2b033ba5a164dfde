"""How faces reach the device: the two feeds behind one interface.

A feed's `at(step)` is what the step function takes besides the state. Resident:
the whole split, the same at every step, drawn from on the device. Streaming:
the step's own batch. Both draw the same rows.
"""

import math
from typing import Any, Protocol

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from facesiam_jax import errors, parallel
from facesiam_jax.data import resident, streaming


class Feed(Protocol):
  """What the training loop asks of a feed.

  Attributes:
    streamed: whether `at` gives a `streaming.Batch` (True) or a
      `resident.Resident` (False).
    num_people: M.
  """

  streamed: bool
  num_people: int

  @property
  def summary(self) -> str:
    """The kind of feed, and what it takes."""

  def at(self, step: int) -> Any:
    """Returns what the step function takes at a step."""

  def close(self) -> None:
    """Releases what the feed holds."""


class Resident:
  """The split on every device, as uint8."""

  streamed = False

  def __init__(self, images: Any, identity_ids: np.ndarray, mesh: Mesh) -> None:
    data = resident.make_resident(images, identity_ids)
    self.num_people = data.index.counts.shape[0]
    self._megabytes = num_bytes(images) / 1e6
    self._data = parallel.replicate(data, mesh)

  @property
  def summary(self) -> str:
    """The kind of feed, and what it takes."""
    return f"resident, {self._megabytes:.1f} MB a device"

  def at(self, step: int) -> resident.Resident:
    """Returns the split, whatever the step."""
    del step
    return self._data

  def close(self) -> None:
    """Nothing is open."""


def num_bytes(images: Any) -> int:
  """Returns what images take on a device: one byte a number.

  Args:
    images: with a shape (N, H, W, C).

  Returns:
    The number of bytes.
  """
  return int(np.prod(images.shape, dtype=np.int64))


def is_resident(
  config: ml_collections.ConfigDict, images: Any, host_gb: float
) -> bool:
  """Follows the config, or the budgets where that leaves it open."""
  if config.kind == "streaming":
    return False
  needed = num_bytes(images) / 1e9
  # On their way to the device, images on the disk are in memory first.
  on_disk = not isinstance(images, np.ndarray)
  for where, name, budget in (
    ("on each device", "feed", config.memory_gb),
    ("in memory", "dataset", host_gb if on_disk else needed),
  ):
    if needed <= budget:
      continue
    if config.kind == "resident":
      raise errors.UserError(
        f"{len(images)} faces of {images.shape[1:]} take {needed:.3g} GB"
        f" {where}, more than config.{name}.memory_gb={budget}; raise it, or"
        ' set config.feed.kind to "auto" or "streaming".'
      )
    return False
  return True


def make_feed(
  config: ml_collections.ConfigDict,
  images: Any,
  identity_ids: np.ndarray,
  *,
  objective: streaming.Draws,
  draw_key: jax.Array,
  mesh: Mesh,
  num_steps: int,
  host_gb: float = math.inf,
) -> Feed:
  """Returns the feed of a split that a config asks for.

  Args:
    config: the `feed` part of a training config. `kind` "auto" chooses
      resident where the images fit into `memory_gb` of each device.
    images: uint8 [N, H, W, C], in memory or `records.RecordImages`.
    identity_ids: integers [N].
    objective: draws the rows of each step.
    draw_key: JAX random key, the same at every step.
    mesh: from `parallel.make_mesh`.
    num_steps: length of the run.
    host_gb: how much of images on the disk may be read into memory to become
      resident: `memory_gb` of the `dataset` part.

  Returns:
    The feed; to be closed.

  Raises:
    UserError: if the config insists on a resident feed that is too large.
  """
  if is_resident(config, images, host_gb):
    return Resident(images, identity_ids, mesh)
  return streaming.Streaming(
    images,
    identity_ids,
    objective=objective,
    draw_key=draw_key,
    mesh=mesh,
    num_steps=num_steps,
    options=streaming.Options(config.threads, config.workers, config.prefetch),
  )
