"""What a training step and a gallery search cost on chips that are not there.

The programs are compiled for a described topology, not run: memory is what the
compiler assigned, operations and bytes are counted, and times are what the
chip's peak rates make of the counts. Few runs come near those.
"""

import dataclasses
import functools
import importlib.util
import os
import re
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from packaging import requirements

from facesiam_jax import errors, parallel
from facesiam_jax.data import feeds, resident, streaming
from facesiam_jax.encoders import cost
from facesiam_jax.gallery import search
from facesiam_jax.training import chips, hlo
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

# Products in bfloat16 that the matrix unit makes for one in float32.
_PASSES = {lax.Precision.HIGH: 3, lax.Precision.HIGHEST: 6}
# For libtpu: there is no TPU to ask or to be held by one process alone, and
# what it would complain of is known.
_WITHOUT_TPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-1",
}
_OUT_OF_MEMORY = re.compile(
  r"\(([\d.]+[KMGT]?)\) exceeds available HBM \(([\d.]+[KMGT]?)\)"
)


@dataclasses.dataclass(frozen=True)
class Memory:
  """What a program takes of one chip's memory, bytes.

  Attributes:
    arguments: what it is given: state, images, gallery.
    outputs: what it returns and does not write over an argument.
    temporaries: the most that lives at one time in between.
    code: the program itself.
  """

  arguments: int
  outputs: int
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """All four."""
    return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Program:
  """What one run of a compiled program costs on one chip.

  Attributes:
    what: what was compiled, in words.
    memory: of the chip.
    flops: by the compiler's count, a multiply-add being two.
    unit_flops: the same as the matrix unit sees them, in bfloat16: a product
      of precision HIGHEST is six.
    hbm_bytes: read and written, by the compiler's count, in which a loop runs
      once and some of what stays on the chip counts too; at least every
      argument and result once.
    collectives: what goes between chips.
    seconds: roofline times of "arithmetic", "memory" and "links".
  """

  what: str
  memory: Memory
  flops: float
  unit_flops: float
  hbm_bytes: float
  collectives: tuple[hlo.Collective, ...]
  seconds: dict[str, float]

  @property
  def limit(self) -> str:
    """Which of the three takes longest."""
    return max(self.seconds, key=lambda name: self.seconds[name])

  @property
  def roofline(self) -> float:
    """Seconds of a run in which all three overlap wholly."""
    return self.seconds[self.limit]


def _check_libtpu() -> None:
  """Refuses to compile without the libtpu that goes with this JAX.

  With another release most programs compile and some end in an internal error
  of the compiler.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError(
      "compiling for TPUs needs libtpu, which the extra `plan` brings: "
      "pip install 'facesiam_jax[plan]'."
    )
  found = metadata.version("libtpu")
  for line in metadata.requires("jax") or ():
    wanted = requirements.Requirement(line)
    if wanted.name == "libtpu" and not wanted.specifier.contains(
      found, prereleases=True
    ):
      raise errors.UserError(
        f"libtpu {found} does not go with jax {jax.__version__}, and its "
        f"compiler may fail: pip install 'libtpu{wanted.specifier}'."
      )


def open_mesh(topology: str) -> Mesh:
  """Returns a mesh over the chips of a topology, which nothing can run on.

  Args:
    topology: chip and shape, such as "v5e:16x16".

  Returns:
    A mesh as from `parallel.make_mesh`.

  Raises:
    errors.UserError: if libtpu is missing or goes with another JAX, or the
      topology is none.
  """
  chip = chips.of_topology(topology)
  _check_libtpu()
  for name, value in _WITHOUT_TPU.items():
    os.environ.setdefault(name, value)
  from jax.experimental import topologies

  try:
    described = topologies.get_topology_desc(
      platform="tpu", topology_name=topology, chip_config_name=chip.config
    )
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0].rstrip(".")
    raise errors.UserError(
      f"--topology={topology} cannot be laid out: {reason}."
    ) from error
  return parallel.make_mesh(described.devices)


def passes(equation: Any) -> int:
  """Returns how many bfloat16 products a TPU makes for one of an equation.

  Args:
    equation: of a jaxpr, a convolution or matrix product.

  Returns:
    1 for bfloat16 and for the default precision, else 3 or 6.
  """
  if all(v.aval.dtype.itemsize <= 2 for v in equation.invars):
    return 1
  precision = equation.params.get("precision")
  both = precision if isinstance(precision, tuple) else (precision,)
  return max(_PASSES.get(one, 1) for one in both)


def _memory(compiled: jax.stages.Compiled) -> Memory:
  found: Any = compiled.memory_analysis()
  return Memory(
    arguments=found.argument_size_in_bytes,
    outputs=found.output_size_in_bytes - found.alias_size_in_bytes,
    temporaries=found.temp_size_in_bytes,
    code=found.generated_code_size_in_bytes,
  )


def _flops(traced: jax.stages.Traced, counted: float) -> tuple[float, float]:
  """Returns (flops, unit_flops) of a program of which XLA counted `counted`.

  XLA counts a loop once and every product once; what comes on top is counted
  in the jaxpr.
  """
  products = functools.partial(cost.of_jaxpr, traced.jaxpr.jaxpr)
  flops = counted + 2.0 * (products() - products(loops=False))
  return flops, flops + 2.0 * (products(passes) - products())


def measure(
  what: str, traced: jax.stages.Traced, chip: chips.Chip, num_devices: int
) -> Program:
  """Compiles a traced program and says what it costs.

  Args:
    what: the program in words.
    traced: for `num_devices` devices, mapped by `parallel.pmap`.
    chip: what each of them can do.
    num_devices: of the mesh.

  Returns:
    The cost on one device.

  Raises:
    errors.UserError: if it does not fit into the chip's memory.
  """
  try:
    compiled = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    used = _OUT_OF_MEMORY.search(str(error))
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    needed = f"{used[1]} of {used[2]} bytes" if used else "more than there is"
    raise _too_large(what, needed, chip) from error
  memory = _memory(compiled)
  if memory.total > chip.hbm_bytes:
    needed = f"{memory.total / 2**30:.2f} of {chip.hbm_bytes / 2**30:.0f} GiB"
    raise _too_large(what, needed, chip)
  counted = compiled.cost_analysis()
  flops, unit_flops = _flops(traced, counted["flops"])
  hbm_bytes = max(
    counted["bytes accessed"], float(memory.arguments + memory.outputs)
  )
  found = tuple(hlo.collectives(compiled.as_text(), num_devices))
  return Program(
    what=what,
    memory=memory,
    flops=flops,
    unit_flops=unit_flops,
    hbm_bytes=hbm_bytes,
    collectives=found,
    seconds={
      "arithmetic": unit_flops / chip.flops,
      "memory": hbm_bytes / chip.hbm_rate,
      "links": sum(one.sent_bytes for one in found) / chip.link_rate,
    },
  )


def _too_large(what: str, needed: str, chip: chips.Chip) -> errors.UserError:
  return errors.UserError(
    f"this does not fit: the {what} needs {needed} of memory on each "
    f"{chip.name} chip; take more chips, a smaller batch "
    "(config.objective.args), config.encoder.args.remat=True or a smaller "
    "--gallery_size."
  )


def _shapes(tree: Any, specs: Any, mesh: Mesh) -> Any:
  """The shapes of a tree's leaves, placed as the specs say."""
  place = lambda x, spec: jax.ShapeDtypeStruct(
    np.shape(x), x.dtype, sharding=NamedSharding(mesh, spec)
  )
  return jax.tree.map(place, tree, specs)


def _data(
  config: ml_collections.ConfigDict,
  batch_rows: int,
  num_people: int,
  num_images: int,
) -> resident.Resident | streaming.Batch:
  """What the step is given besides the state; takes no memory to speak of."""
  face = (config.image_size, config.image_size, config.dataset.channels)
  zeros = lambda count: np.broadcast_to(np.uint8(0), (count, *face))
  images = zeros(num_images)
  if num_images and feeds.is_resident(
    config.feed, images, config.dataset.memory_gb
  ):
    ids = np.arange(num_images, dtype=np.int32) % num_people
    return resident.make_resident(images, ids)
  return streaming.Batch(
    zeros(batch_rows),  # type: ignore[arg-type]
    np.zeros(batch_rows, np.int32),  # type: ignore[arg-type]
  )


def trace_train_step(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  *,
  num_people: int,
  num_images: int = 0,
) -> tuple[str, jax.stages.Traced]:
  """Traces one training step of a config.

  Args:
    config: a valid training config.
    mesh: of devices that need not be there.
    num_people: people to train on.
    num_images: their images; 0 where they are streamed in any case.

  Returns:
    (the step in words, the traced program).

  Raises:
    errors.UserError: if a part cannot be built, or the batch does not divide
      by the devices.
  """
  recipe = dataclasses.replace(
    recipe_lib.make_recipe(config), num_people=num_people
  )
  rows = recipe.objective.batch_rows
  if rows % (mesh.size * recipe.objective.row_group):
    raise errors.UserError(
      f"the config's batch of {rows} images does not divide evenly by "
      f"{mesh.size} chips; change config.objective.args."
    )
  face = (config.image_size, config.image_size, config.dataset.channels)
  state = jax.eval_shape(
    lambda: recipe_lib.init_state(recipe, face, num_people)
  )
  state_spec = recipe_lib.partition(recipe, state)
  data = _data(config, rows, num_people, num_images)
  streamed = isinstance(data, streaming.Batch)
  data_spec = jax.tree.map(
    lambda _: P(parallel.AXIS) if streamed else P(), data
  )
  steps: Any = step_lib.make_train_steps(
    recipe, mesh, 1, streamed=streamed, state_spec=state_spec
  )
  images = f"{rows} images of {'x'.join(map(str, face))}"
  what = (
    f"training step of {config.encoder.name} with {config.objective.name}, "
    f"{images} ({rows // mesh.size} a chip), {num_people} people, "
    f"{'streaming' if streamed else 'resident'} feed"
  )
  return what, steps.trace(
    _shapes(state, state_spec, mesh), _shapes(data, data_spec, mesh)
  )


def embedding_size(config: ml_collections.ConfigDict) -> int:
  """Returns the size of an embedding of a config's encoder."""
  face = (config.image_size, config.image_size, config.dataset.channels)
  return cost.measure(recipe_lib.make_recipe(config).encoder, face).dim


def trace_search(
  mesh: Mesh,
  *,
  size: int,
  dim: int,
  queries: int,
  k: int,
  dtype: str = "float32",
) -> tuple[str, jax.stages.Traced]:
  """Traces the exact search of a gallery that is split over the devices.

  Every device finds the best of its own templates for all queries, and all
  merge what all found. Of a gallery in few bytes it is the search for the
  candidates, whose float32 rows the hosts then compare.

  Args:
    mesh: of devices that need not be there.
    size: templates in the gallery; the last device's are filled up.
    dim: size of an embedding.
    queries: embeddings looked for at a time.
    k: templates returned for each.
    dtype: what the gallery is kept in: "float32", "int8" or "bfloat16".

  Returns:
    (the search in words, the traced program).
  """
  split, copied = P(parallel.AXIS), P()
  rows = -(-size // mesh.size) * mesh.size
  shape: Any = lambda spec, dtype, *lengths: jax.ShapeDtypeStruct(
    lengths, dtype, sharding=NamedSharding(mesh, spec)
  )
  numbers = shape(split, dtype, rows, dim)
  labels = (shape(split, jnp.bool_, rows), shape(split, jnp.int32, rows))
  what = (
    f"search for {queries} faces among {size} of {dim} numbers in {dtype}, "
    f"k = {k}"
  )
  find: Any
  shards: Any
  if dtype == "float32":
    find = search.searcher(mesh, k=k, metric="cosine")
    shards = search.Shards(numbers, *labels)
  else:
    look = search.first_look(k)
    what = f"{what} by {look} candidates"
    find = search.candidate_searcher(mesh, k=look, metric="cosine")
    each = shape(split, jnp.float32, rows)
    compact = search.Compact(numbers, each, each, each)
    shards = search.CompactShards(compact, *labels)
  return what, find.trace(shards, shape(copied, jnp.float32, queries, dim))
