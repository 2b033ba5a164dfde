"""`facesiam plan`: what a recipe costs on a pod that is not there."""

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, train

if TYPE_CHECKING:
  import ml_collections

  from facesiam_jax.training import chips, plan

HELP = "Say what a recipe would cost on a TPU pod, by compiling for it."
USAGE = (
  "facesiam plan --config=RECIPE --topology=v5e:16x16 [--num_people=N] "
  "[--config.KEY=VALUE ...]"
)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  train.define_config(flag_values)
  flags.DEFINE_string(
    "topology",
    None,
    "Chip and shape of the pod: v4, v5e, v5p or v6e and how many chips lie "
    "along each axis, such as v5e:16x16 or v5p:4x4x4. Required.",
    required=True,
    flag_values=flag_values,
  )
  for name, default, text in (
    ("num_people", 0, "People to train on; 0 takes the data set's."),
    (
      "num_images",
      0,
      "Images to train on; 0 takes the data set's, or a streaming feed where "
      "--num_people is given.",
    ),
    ("gallery_size", 1_000_000, "Templates of the gallery; 0 leaves it out."),
    ("queries", 1024, "Faces looked for in it at a time."),
    ("k", 10, "Templates found for each."),
  ):
    flags.DEFINE_integer(
      name, default, text, lower_bound=0, flag_values=flag_values
    )
  flags.DEFINE_enum(
    "gallery_dtype",
    "float32",
    ["float32", "int8", "bfloat16"],
    "What the gallery is kept in on the chips; of the latter two the search "
    "for candidates is planned.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "quick",
    False,
    "Compile with less polish: in a fraction of the time, and for more memory "
    "and traffic than a run would take.",
    flag_values=flag_values,
  )
  common.define_json(flag_values)


def _counts(
  config: "ml_collections.ConfigDict", flag_values: flags.FlagValues
) -> tuple[int, int]:
  """Returns how many people and images are trained on."""
  if flag_values.num_people:
    return flag_values.num_people, flag_values.num_images
  from facesiam_jax.data import sets

  try:
    data = sets.load(config.dataset, image_size=config.image_size, lazy=True)
  except errors.UserError as error:
    raise errors.UserError(
      f"how many people there are is not known: {str(error).rstrip('.')}; or "
      "give --num_people (and --num_images)."
    ) from error
  images = len(data.of(data.train)[1])
  return len(data.train), flag_values.num_images or images


def _programs(
  flag_values: flags.FlagValues, chip: "chips.Chip"
) -> tuple[int, "list[plan.Program]"]:
  from facesiam_jax.training import config as config_lib
  from facesiam_jax.training import plan

  config = flag_values.config
  config_lib.validate(config)
  mesh = plan.open_mesh(flag_values.topology)
  found = []
  if config.num_steps:
    people, images = _counts(config, flag_values)
    what, traced = plan.trace_train_step(
      config, mesh, num_people=people, num_images=images
    )
    found.append(plan.measure(what, traced, chip, mesh.size))
  if flag_values.gallery_size:
    what, traced = plan.trace_search(
      mesh,
      size=flag_values.gallery_size,
      dim=plan.embedding_size(config),
      queries=flag_values.queries,
      k=flag_values.k,
      dtype=flag_values.gallery_dtype,
    )
    found.append(plan.measure(what, traced, chip, mesh.size))
  return mesh.size, found


def _gigabytes(number: float) -> str:
  return f"{number / 1e9:.3f} GB"


def _milliseconds(seconds: float) -> str:
  return f"{1e3 * seconds:.3f} ms"


def _lines(program: "plan.Program", chip: "chips.Chip") -> list[str]:
  """Returns what is printed of a program."""
  memory = program.memory
  parts = ", ".join(
    f"{name} {_gigabytes(size)}"
    for name, size in dataclasses.asdict(memory).items()
  )
  share = memory.total / chip.hbm_bytes
  times = ", ".join(
    f"{name} {_milliseconds(seconds)}"
    for name, seconds in program.seconds.items()
  )
  header = ["collective", "MB", "chips", "times", "MB sent by a chip"]
  rows = [
    [
      one.kind,
      f"{one.num_bytes / 1e6:.3f}",
      str(one.group),
      str(one.times),
      f"{one.sent_bytes / 1e6:.3f}",
    ]
    for one in program.collectives
  ]
  return [
    program.what,
    f"  memory      {_gigabytes(memory.total)} a chip, {share:.1%}: {parts}",
    f"  arithmetic  {program.flops / 1e9:.3f} GFLOP a chip, "
    f"{program.unit_flops / 1e9:.3f} as bfloat16 products",
    f"  traffic     {_gigabytes(program.hbm_bytes)} a chip",
    f"  roofline    {_milliseconds(program.roofline)}, limited by "
    f"{program.limit}: {times}",
    *(f"  {line}" for line in common.table(header, rows).splitlines()),
  ]


def _as_json(program: "plan.Program") -> dict[str, Any]:
  named = dataclasses.asdict(program)
  named["memory"]["total"] = program.memory.total
  named["collectives"] = [
    {**one._asdict(), "sent_bytes": one.sent_bytes}
    for one in program.collectives
  ]
  return {**named, "limit": program.limit, "roofline": program.roofline}


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Prints the plan."""
  if args:
    raise common.UsageError(f"plan takes flags only, got {args[0]!r}.")
  import jax

  from facesiam_jax.training import chips

  jax.config.update("jax_platforms", "cpu")
  if flag_values.quick:
    jax.config.update("jax_optimization_level", "O1")
  chip = chips.of_topology(flag_values.topology)
  num_chips, programs = _programs(flag_values, chip)
  if flag_values.json:
    told = {
      "topology": flag_values.topology,
      "num_chips": num_chips,
      "chip": dataclasses.asdict(chip),
      "programs": [_as_json(program) for program in programs],
    }
    print(json.dumps(told, indent=2))
    return 0
  print(
    f"{flag_values.topology}: {num_chips} chips, each with "
    f"{_gigabytes(chip.hbm_bytes)}, {chip.flops / 1e12:.0f} TFLOP/s in "
    f"bfloat16, {chip.hbm_rate / 1e9:.0f} GB/s to its memory, "
    f"{chip.link_rate / 1e9:.0f} GB/s to other chips"
  )
  for program in programs:
    print("\n" + "\n".join(_lines(program, chip)))
  return 0
