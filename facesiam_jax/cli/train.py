"""`facesiam train`: train a recogniser, resuming by itself."""

import importlib.util
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, processes

if TYPE_CHECKING:
  import ml_collections

  from facesiam_jax.bundle import Bundle

HELP = "Train a recogniser and write its model bundle."
USAGE = "facesiam train --config=RECIPE --workdir=DIR [--config.KEY=VALUE ...]"


def find_recipe(name: str) -> str:
  """Returns the path of a recipe given by path or by name.

  Args:
    name: a path, or a name such as "olivetti"; what follows a colon is the
      argument of its get_config and stays.

  Returns:
    The path, with the argument.

  Raises:
    UsageError: if there is no such file and no such recipe, naming those
      there are.
  """
  path, colon, argument = name.partition(":")
  if pathlib.Path(path).is_file():
    return name
  spec = importlib.util.find_spec("facesiam_jax.configs")
  places = list(spec.submodule_search_locations or []) if spec else []
  # In a checkout that is not installed the recipes lie beside the package.
  places.append(str(pathlib.Path(__file__).parents[2] / "configs"))
  for place in places:
    found = pathlib.Path(place) / f"{path}.py"
    if found.is_file() and path != "__init__":
      return f"{found}{colon}{argument}"
  known = sorted(
    {p.stem for place in places for p in pathlib.Path(place).glob("[!_]*.py")}
  )
  raise common.UsageError(
    f"--config={name} is neither a file nor a recipe; the recipes are "
    f"{', '.join(known)}."
  )


def _recipe_parser() -> Any:
  """Returns the parser of --config; ml_collections is loaded for it."""
  from ml_collections.config_flags import config_flags

  class RecipeParser(config_flags.ConfigFileFlagParser):
    """Also takes a recipe's name, and says which file cannot be read."""

    def parse(self, path: str) -> Any:
      # ml_collections loads every recipe as one module; what an earlier one
      # in this process defined must not be found in the next.
      sys.modules.pop("config_config", None)
      try:
        return super().parse(find_recipe(path))
      except (SyntaxError, AttributeError, ImportError, NameError) as error:
        raise errors.UserError(
          f"--config={path} is not a recipe ({type(error).__name__}: {error}); "
          "a recipe is a Python file with a function get_config()."
        ) from error

  return RecipeParser(name="config")


def define_config(flag_values: flags.FlagValues) -> None:
  """Defines the required flag --config and those that change its fields."""
  from ml_collections.config_flags import config_flags

  config_flags.DEFINE_config_file(
    "config",
    None,
    "A recipe: its name, or the path of a Python file with get_config(). "
    "Required. --config.KEY=VALUE changes a field of it.",
    flag_values=flag_values,
  )
  flags.mark_flag_as_required("config", flag_values)
  flag_values["config"].parser = _recipe_parser()


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  define_config(flag_values)
  flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run: checkpoints, metrics, bundle. Required. A run that is "
    "there is gone on with.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "profile",
    False,
    "Trace a few steps into profile/ of the workdir.",
    flag_values=flag_values,
  )
  processes.define_flags(flag_values)


def _train(flag_values: flags.FlagValues) -> "Bundle":
  """Trains; a process that fails does not wait for the others."""
  from facesiam_jax import parallel
  from facesiam_jax.training import preemption
  from facesiam_jax.training import run as run_lib

  config: ml_collections.ConfigDict = flag_values.config
  try:
    return run_lib.train(
      config, flag_values.workdir, profile=flag_values.profile
    )
  except preemption.Preempted:
    raise  # as all processes do at the same step
  except BaseException:
    parallel.leave_at_exit()
    raise


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Trains, calibrates and writes the bundle."""
  if args:
    raise common.UsageError(f"train takes flags only, got {args[0]!r}.")
  processes.start(flag_values)
  from facesiam_jax import parallel
  from facesiam_jax.training import preemption
  from facesiam_jax.training import run as run_lib

  try:
    bundle = _train(flag_values)
  except preemption.Preempted as stopped:
    print(f"facesiam train: {stopped}", file=sys.stderr, flush=True)
    return preemption.EXIT_STATUS
  if not parallel.is_main():
    return 0
  threshold = bundle.thresholds[bundle.spec["default_threshold"]]
  rows = [
    ["bundle", str(pathlib.Path(flag_values.workdir) / run_lib.BUNDLE)],
    ["fingerprint", bundle.fingerprint[:16]],
    ["threshold", f"{bundle.threshold:.4f} (on the logit)"],
    ["false match rate there", f"{threshold['fmr']:.2%}"],
    ["false non-match rate there", f"{threshold['fnmr']:.2%}"],
    ["calibrated on", f"{bundle.spec['calibration']['num_people']} people"],
  ]
  width = max(len(name) for name, _ in rows)
  print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
  return 0
