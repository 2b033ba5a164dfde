"""The streaming feed: what does not fit on the device, a batch at a time.

The batch of step n is a function of (seed, n) alone: the objective's own draw,
the same as in the resident step, names the rows of the global batch, and each
process of a pod reads the rows of its own devices. So a run resumes at any
step without replay, and neither the number of devices nor of processes, reader
threads or worker processes changes what is trained on.

Faces travel as uint8 with their people; pairs, triplets, augmentation and
everything else are made of them on the device.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import struct
from jax.sharding import Mesh

from facesiam_jax import parallel, sampling

_MOST_THREADS = 16


class Draws(Protocol):
  """What a feed has to know of an objective."""

  @property
  def batch_rows(self) -> int:
    """Number of images in the global batch."""

  def draw(
    self, index: sampling.IdentityIndex, seed_key: jax.Array, step: jax.Array
  ) -> jax.Array:
    """Returns the image rows of the global batch, int32 [batch_rows]."""


@struct.dataclass
class Batch:
  """The drawn faces of one step, split over the devices.

  Attributes:
    images: uint8 [B, H, W, C]; inside a mapped step the device's own rows.
    identity_ids: person of each, 0..M-1, int32 [B].
  """

  images: jax.Array
  identity_ids: jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
  """How batches are read; no choice here changes what is in them.

  Attributes:
    threads: reader threads, each at work on a batch; 0 = two for each core,
      since they also wait, for the disk and for each other; at most 16.
    workers: worker processes; 0 = none, all reading is done by the threads.
      For machines where decoding is held up by other Python code.
    prefetch: batches that wait ready, on the host and again on the device.
  """

  threads: int = 0
  workers: int = 0
  prefetch: int = 2


def _host_device() -> jax.Device:
  """The CPU, so that draws do not queue behind the steps on the device."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS leaves the CPU out.
    return jax.local_devices()[0]


@dataclasses.dataclass(frozen=True)
class Batches:
  """The batches of all steps, by step number: what grain reads from.

  It can be sent to another process.

  Attributes:
    images: an array uint8 [N, H, W, C], or `records.RecordImages`.
    identity_ids: person of each image, 0..M-1, int32 [N].
    objective: what draws the rows.
    key_data: data of the draws' random key.
    own: rows of the global batch to read, rising.
    num_steps: length of the run.
  """

  images: Any
  identity_ids: np.ndarray
  objective: Draws
  key_data: np.ndarray
  own: np.ndarray
  num_steps: int

  def __len__(self) -> int:
    return self.num_steps

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k != "_draw"}

  @functools.cached_property
  def _draw(self) -> Callable[[int], jax.Array]:
    index = sampling.index_identities(self.identity_ids)
    key = jax.random.wrap_key_data(jnp.asarray(self.key_data))
    return jax.jit(lambda step: self.objective.draw(index, key, step))

  def rows(self, step: int) -> np.ndarray:
    """Returns the image rows of the global batch of a step, int32 [B]."""
    with jax.default_device(_host_device()):
      return np.asarray(self._draw(step))

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    rows = self.rows(step)[self.own]
    return {
      "images": np.asarray(self.images[rows]),
      "identity_ids": self.identity_ids[rows],
    }


def _leave_the_device(worker: int, num_workers: int) -> None:
  """Keeps a worker process to the CPU; the accelerator is the trainer's."""
  del worker, num_workers
  jax.config.update("jax_platforms", "cpu")


class Streaming:
  """The feed of a run: `at(step)` gives the batch on the devices.

  Reading starts with the first call and runs ahead; asking for the steps in
  order costs nothing, any other step is read from there.
  """

  streamed = True

  def __init__(
    self,
    images: Any,
    identity_ids: np.ndarray,
    *,
    objective: Draws,
    draw_key: jax.Array,
    mesh: Mesh,
    num_steps: int,
    options: Options,
  ) -> None:
    """Prepares the feed; reads nothing yet.

    Args:
      images: uint8 [N, H, W, C], in memory or `records.RecordImages`.
      identity_ids: integers [N].
      objective: draws the rows of each step.
      draw_key: JAX random key, the same at every step.
      mesh: from `parallel.make_mesh`; may span processes.
      num_steps: length of the run.
      options: how to read.

    Raises:
      ValueError: if the global batch does not divide by the devices.
    """
    self.mesh, self.options = mesh, options
    numbers = np.unique(identity_ids, return_inverse=True)[1]
    self.num_people = int(numbers.max()) + 1
    self.batches = Batches(
      images=images,
      identity_ids=numbers.astype(np.int32),
      objective=objective,
      key_data=np.asarray(jax.random.key_data(draw_key)),
      own=parallel.process_rows(objective.batch_rows, mesh),
      num_steps=num_steps,
    )
    self._next = -1
    self._iterator: Any = None

  @property
  def host_bytes(self) -> int:
    """Bytes of the batches that are held on the host at once, at most."""
    ahead, workers = self.options.prefetch, self.options.workers
    read = max(self._threads(), ahead)
    # Worker processes hold theirs, and what they have ready to hand over.
    read = workers * (read + ahead) if workers else read
    face = int(np.prod(self.batches.images.shape[1:]))
    return (read + ahead + 1) * len(self.batches.own) * face

  @property
  def summary(self) -> str:
    """The kind of feed, and what it takes."""
    return f"streaming, {self.host_bytes / 1e6:.1f} MB of the host"

  def _threads(self) -> int:
    if self.options.threads:
      return self.options.threads
    if self.options.workers:
      return 1
    return min(_MOST_THREADS, 2 * (os.cpu_count() or 1))

  def _place(self, batch: dict[str, np.ndarray]) -> Batch:
    total = self.batches.objective.batch_rows
    return Batch(**parallel.split(batch, total, self.mesh))

  def _start(self, step: int) -> None:
    """Begins to read at a step."""
    import grain

    self.close()
    ahead, threads = self.options.prefetch, self._threads()
    read = grain.ReadOptions(
      num_threads=threads, prefetch_buffer_size=max(threads, ahead)
    )
    batches = grain.MapDataset.source(self.batches)[step:]
    stream = batches.to_iter_dataset(read)
    if self.options.workers:
      if not flags.FLAGS.is_parsed():
        # grain's worker processes read absl flags of its own; a program that
        # does not use absl's would have to parse an empty command line.
        flags.FLAGS.mark_as_parsed()
      stream = stream.mp_prefetch(
        grain.MultiprocessingOptions(self.options.workers, ahead),
        worker_init_fn=_leave_the_device,
      )
    placed = stream.map(self._place)
    self._iterator = iter(
      grain.experimental.ThreadPrefetchIterDataset(
        placed, prefetch_buffer_size=ahead
      )
    )
    self._next = step

  def at(self, step: int) -> Batch:
    """Returns the batch of a step, split over the devices.

    Args:
      step: 0..num_steps - 1.

    Returns:
      The batch, its arrays global.

    Raises:
      UserError: if an image cannot be read.
    """
    if step != self._next:
      self._start(step)
    batch = next(self._iterator)
    self._next += 1
    return batch

  def __iter__(self) -> Iterator[Batch]:
    """Yields the batches of all steps, in order."""
    return (self.at(step) for step in range(len(self.batches)))

  def close(self) -> None:
    """Ends the threads and processes."""
    iterator, self._iterator, self._next = self._iterator, None, -1
    if iterator is not None:
      iterator.close()
