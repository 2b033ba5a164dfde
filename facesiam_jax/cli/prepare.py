"""`facesiam prepare`: write a data set in the form that training reads."""

from absl import flags

from facesiam_jax import errors

HELP = "Write a data set to disk in the form that training reads."
USAGE = "facesiam prepare --dataset=olivetti [--data_dir=DIR]"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  flags.DEFINE_string(
    "dataset",
    None,
    "Name of the data set: olivetti. Required.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of tfds data sets; without it $TFDS_DATA_DIR, else "
    "~/tensorflow_datasets.",
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Prepares the data set; does nothing if it is there."""
  del args
  from facesiam_jax.data import olivetti

  if flag_values.dataset != "olivetti":
    raise errors.UserError(
      f"--dataset={flag_values.dataset} is not known; it can be olivetti."
    )
  olivetti.prepare(flag_values.data_dir)
  print("olivetti is ready: 400 images of 40 people.")
  return 0
