"""The flags by which a command is one process of several."""

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of a run of several processes."""
  flags.DEFINE_bool(
    "distributed",
    False,
    "One process of several, told by SLURM, Open MPI, Cloud TPU or GKE which.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, where nothing else tells it.",
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "num_processes", None, "With --coordinator.", flag_values=flag_values
  )
  flags.DEFINE_integer(
    "process_id",
    None,
    "With --coordinator: 0 to --num_processes - 1.",
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "cpu_devices",
    None,
    "Use so many devices made of this process's CPU.",
    flag_values=flag_values,
  )


def start(flag_values: flags.FlagValues) -> None:
  """Joins the other processes, before JAX computes anything.

  Raises:
    UsageError: if the flags do not go together.
    UserError: if process 0 cannot be reached.
  """
  from facesiam_jax import parallel

  try:
    parallel.start(
      flag_values.coordinator,
      flag_values.num_processes,
      flag_values.process_id,
      detect=flag_values.distributed,
      cpu_devices=flag_values.cpu_devices,
    )
  except ValueError as error:
    text = str(error).rstrip(".")
    raise common.UsageError(
      f"the processes of the run cannot be told: {text}; give --coordinator, "
      "--num_processes and --process_id, or --distributed under SLURM, Open "
      "MPI, Cloud TPU or GKE."
    ) from error
  except RuntimeError as error:
    raise errors.UserError(
      f"process 0 of the run cannot be reached ({error}); check "
      f"--coordinator={flag_values.coordinator}."
    ) from error
