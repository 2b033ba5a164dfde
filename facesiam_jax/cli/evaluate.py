"""`facesiam evaluate`: measure a recogniser on people it has never seen."""

import pathlib

from absl import flags

from facesiam_jax.cli import common

HELP = "Measure a recogniser on people it has never seen."
USAGE = "facesiam evaluate --workdir=DIR | --bundle=DIR --out=DIR"

# Rows of the printed table: key of the result, what it is called.
_ROWS = (
  ("eer", "equal error rate (ROC convex hull)"),
  ("eer_raw", "equal error rate (raw)"),
  ("auc", "area under the ROC curve"),
  ("tar_at_far_0.01", "true accept rate at 1 % false accepts"),
  ("tar_at_far_0.1", "true accept rate at 10 % false accepts"),
  ("one_shot_accuracy", "one-shot 10-way accuracy"),
  ("accuracy", "accuracy at the bundle's threshold"),
  ("balanced_accuracy", "balanced accuracy there"),
  ("fmr", "false match rate there"),
  ("fnmr", "false non-match rate there"),
)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  for name, text in (
    ("workdir", "Folder of a run of `facesiam train`."),
    ("bundle", "Folder of a model bundle, instead of --workdir."),
    ("out", "Where the report goes; without it report/ in the --workdir."),
    ("dataset", "Data set to take the test people of; the bundle's own if "
     "not given."),
  ):  # fmt: skip
    flags.DEFINE_string(name, None, text, flag_values=flag_values)


def _places(
  flag_values: flags.FlagValues,
) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path | None]:
  """Returns where the bundle is, where the report goes, and the run."""
  workdir, bundle = flag_values.workdir, flag_values.bundle
  if bool(workdir) == bool(bundle):
    raise common.UsageError("give either --workdir or --bundle.")
  if workdir:
    run = pathlib.Path(workdir)
    return run / "bundle", pathlib.Path(flag_values.out or run / "report"), run
  if not flag_values.out:
    raise common.UsageError("--bundle needs --out, the report's folder.")
  return pathlib.Path(bundle), pathlib.Path(flag_values.out), None


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Measures, prints a table and writes the report."""
  if args:
    raise common.UsageError(f"evaluate takes flags only, got {args[0]!r}.")
  bundle_dir, out_dir, workdir = _places(flag_values)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax import errors
  from facesiam_jax.evaluation import measure
  from facesiam_jax.training import workdir as workdir_lib

  if workdir is not None:
    workdir_lib.read_config(workdir)
    if not (bundle_dir / "bundle.json").exists():
      raise errors.UserError(
        f"--workdir={workdir} has no bundle yet; run its `facesiam train` to "
        "the end first."
      )
  bundle = bundle_lib.load(bundle_dir)
  data = measure.load_data(bundle, flag_values.dataset)
  measured = measure.measure(bundle, data)
  page = measure.write(out_dir, bundle, measured, workdir=workdir)
  result = measured.result
  width = max(len(text) for _, text in _ROWS)
  for key, text in _ROWS:
    print(f"{text:<{width}}  {result[key]:8.2%}")
  print(
    f"on {result['num_people']} people, {result['num_genuine']} genuine and "
    f"{result['num_impostor']} impostor pairs"
  )
  quality = [f"{name} {value:.2f}" for name, value in result["quality"].items()]
  print(f"median quality of the faces: {', '.join(quality)}")
  print(f"report  {page}")
  return 0
