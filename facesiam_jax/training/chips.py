"""What the TPU chips can do, as their maker publishes it."""

import dataclasses

from facesiam_jax import errors


@dataclasses.dataclass(frozen=True)
class Chip:
  """One chip; JAX sees it as one device.

  Attributes:
    name: as topologies call it.
    hbm_bytes: memory; a little of it is kept by the runtime.
    flops: peak of the matrix unit in bfloat16, floating-point operations a
      second; a multiply-add is two.
    hbm_rate: bytes a second between the chip and its memory.
    link_rate: bytes a second that all its links to other chips send together,
      one way; as much again comes in.
    config: libtpu's name of the configuration with one device a chip.
  """

  name: str
  hbm_bytes: float
  flops: float
  hbm_rate: float
  link_rate: float
  config: str = "default"


# Google Cloud, "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e": key chip
# specifications (docs.cloud.google.com/tpu/docs/v4 and so on). Memory in GiB,
# rates in GB/s; of the links half of what is given as bidirectional.
CHIPS = {
  chip.name: chip
  for chip in (
    Chip("v4", 32 * 2**30, 275e12, 1228e9, 300e9, "megacore"),
    Chip("v5e", 16 * 2**30, 197e12, 819e9, 200e9),
    Chip("v5p", 95 * 2**30, 459e12, 2765e9, 600e9),
    Chip("v6e", 32 * 2**30, 918e12, 1638e9, 400e9),
  )
}


def of_topology(topology: str) -> Chip:
  """Returns the chip of a topology.

  Args:
    topology: such as "v5e:16x16".

  Returns:
    Its chip.

  Raises:
    errors.UserError: if there is no such chip or no colon.
  """
  name, colon, _ = topology.partition(":")
  if not colon or name not in CHIPS:
    raise errors.UserError(
      f"--topology={topology} is none: name a chip of {', '.join(CHIPS)} and "
      "how many lie along each axis, as in v5e:16x16 or v5p:4x4x4."
    )
  return CHIPS[name]
