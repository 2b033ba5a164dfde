"""Processes, the device mesh and pmap: nothing else knows how many there are.

A step is written for ONE device, with the named axis `data` and explicit
collectives; `pmap` maps it over a mesh of any size, which may span processes.
Every process runs the same program; process 0 writes what people read.
"""

import atexit
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def start(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  *,
  detect: bool = False,
  cpu_devices: int | None = None,
) -> None:
  """Joins this process to the others of a run; before JAX computes anything.

  The one place that starts `jax.distributed`. Alone, it does nothing.

  Args:
    coordinator: "host:port" of process 0, the same for all processes.
    num_processes: how many there are.
    process_id: number of this one, 0..num_processes - 1.
    detect: whether JAX finds out these three, as SLURM, Open MPI, Cloud TPU
      and GKE's TPU jobs tell them.
    cpu_devices: devices that this process makes of its CPU; None for JAX's
      own choice.

  Raises:
    ValueError: if some of the three are missing or out of range, or there is
      nothing to detect them from.
    RuntimeError: if the coordinator cannot be reached.
  """
  if cpu_devices is not None:
    if cpu_devices < 1:
      raise ValueError(f"cpu_devices must be at least 1, got {cpu_devices}.")
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", cpu_devices)
  given = (coordinator, num_processes, process_id)
  if detect:
    if given != (None, None, None):
      raise ValueError("what is to be detected must not be given too.")
    jax.distributed.initialize()
    return
  if given == (None, None, None) or (num_processes == 1 and not coordinator):
    return
  if coordinator is None or num_processes is None or process_id is None:
    raise ValueError(
      "coordinator, num_processes and process_id go together, got "
      f"{coordinator!r}, {num_processes!r} and {process_id!r}."
    )
  if not 0 <= process_id < num_processes:
    raise ValueError(
      f"process_id must be in 0..{num_processes - 1}, got {process_id}."
    )
  jax.distributed.initialize(
    coordinator,
    num_processes,
    process_id,
    cluster_detection_method="deactivate",
  )


def leave_at_exit() -> None:
  """Has this process, which failed, end without waiting for the others.

  They could not go on without it; JAX would wait for them for minutes.
  """
  if jax.process_count() > 1:

    def leave() -> None:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(1)

    # Of what is registered the last is called first.
    atexit.register(leave)


def num_processes() -> int:
  """Returns how many processes the run has."""
  return jax.process_count()


def is_main() -> bool:
  """Returns whether this is process 0, the one that writes for people."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process of the run has come to the same place."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def from_main(number: int) -> int:
  """Returns process 0's number on every process."""
  if jax.process_count() == 1:
    return number
  return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def rows_from_main(rows: np.ndarray | None) -> np.ndarray:
  """Returns process 0's rows on every process, with the same bits.

  Args:
    rows: float32 [N, D] on process 0; anything on the others.
  """
  shape = np.zeros(2, np.int32)
  if is_main():
    assert rows is not None
    shape = np.array(rows.shape, np.int32)
  if jax.process_count() == 1:
    return np.asarray(rows)
  share = multihost_utils.broadcast_one_to_all
  shape = np.asarray(share(shape))
  bits = np.zeros(shape, np.int32)
  if is_main():
    bits = np.ascontiguousarray(rows, np.float32).view(np.int32)
  return np.asarray(share(bits)).view(np.float32)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a one-dimensional mesh over the devices, axis `data`.

  Args:
    devices: the devices; None means all of `jax.devices()`.

  Returns:
    A mesh with Auto axes (the default of `jax.make_mesh` is Explicit, under
    which ordinary products of sharded arrays raise).
  """
  devices = list(jax.devices() if devices is None else devices)
  return jax.make_mesh(
    (len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices
  )


def pmap(
  step: Callable[..., Any],
  mesh: Mesh,
  *,
  in_specs: Any = None,
  out_specs: Any = None,
  donate_argnums: tuple[int, ...] = (),
  compiler_options: dict[str, str] | None = None,
) -> Callable[..., Any]:
  """Maps a one-device step over the mesh, as `jax.pmap` does, and jits it.

  Inside the step the axis name `data` is bound, so `lax.psum(x, "data")`,
  `lax.all_gather` and `lax.axis_index` work. What the step returns under
  `out_specs` = P() must be the same on every device: pass gradients through
  `lax.psum` or `lax.pmean` before using them.

  Args:
    step: a pure function of arrays.
    mesh: from `make_mesh`.
    in_specs: a PartitionSpec (or a pytree prefix of them) for each argument;
      None means all arguments split along their first axis.
    out_specs: the same for the result; None means split along the first axis.
    donate_argnums: arguments whose buffers the result may reuse.
    compiler_options: of XLA, as `jax.jit` takes them.

  Returns:
    The jitted, mapped function of the global arrays.
  """
  # check_vma=False keeps pmap's meaning: with True the transpose already sums
  # the gradients of replicated parameters, and an explicit psum of them would
  # leave them too large by the number of devices.
  mapped = jax.shard_map(
    step,
    mesh=mesh,
    in_specs=P(AXIS) if in_specs is None else in_specs,
    out_specs=P(AXIS) if out_specs is None else out_specs,
    check_vma=False,
  )
  return jax.jit(
    mapped, donate_argnums=donate_argnums, compiler_options=compiler_options
  )


def platform(mesh: Mesh) -> str:
  """Returns what the mesh's devices are: "cpu", "gpu" or "tpu"."""
  return str(mesh.devices.flat[0].platform)


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts a copy of every leaf on every device of the mesh."""
  return jax.device_put(tree, NamedSharding(mesh, P()))


def process_rows(global_batch: int, mesh: Mesh) -> np.ndarray:
  """Returns the rows of the global batch that this process's devices hold.

  Args:
    global_batch: B, a multiple of the number of devices.
    mesh: from `make_mesh`; may span processes.

  Returns:
    int32 [b], rising; the shares of all processes are disjoint and make up
    0..B-1.

  Raises:
    ValueError: if B is not a multiple of the number of devices.
  """
  if global_batch % mesh.size:
    raise ValueError(
      f"the global batch of {global_batch} rows does not divide by "
      f"{mesh.size} devices."
    )
  held = NamedSharding(mesh, P(AXIS)).addressable_devices_indices_map(
    (global_batch,)
  )
  everything = np.arange(global_batch, dtype=np.int32)
  shares = [everything[index] for index in held.values()]
  return np.sort(np.concatenate(shares))


def split(tree: Any, global_batch: int, mesh: Mesh) -> Any:
  """Makes global arrays of this process's rows, split over the devices.

  Args:
    tree: arrays [b, ...] of the rows `process_rows` names, in that order.
    global_batch: B.
    mesh: from `make_mesh`; may span processes.

  Returns:
    The tree with global arrays [B, ...], split along their first axis.
  """
  sharding = NamedSharding(mesh, P(AXIS))
  place = lambda x: jax.make_array_from_process_local_data(
    sharding, x, (global_batch, *x.shape[1:])
  )
  return jax.tree.map(place, tree)


def own_rows(global_batch: int) -> jax.Array:
  """Returns the indices of this device's rows in the global batch.

  Only inside a function mapped by `pmap`.

  Args:
    global_batch: B, a multiple of the number of devices.

  Returns:
    int32 [B / devices].

  Raises:
    ValueError: if B is not a multiple of the number of devices.
  """
  num_devices = jax.lax.axis_size(AXIS)
  if global_batch % num_devices:
    raise ValueError(
      f"the global batch of {global_batch} rows does not divide by "
      f"{num_devices} devices."
    )
  size = global_batch // num_devices
  first = jax.lax.axis_index(AXIS) * size
  return first + jax.numpy.arange(size, dtype=jax.numpy.int32)
