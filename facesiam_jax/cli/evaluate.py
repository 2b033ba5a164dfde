"""`facesiam evaluate`: measure a recogniser on people it has never seen."""

import pathlib
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax.cli import common, photos, protocol

if TYPE_CHECKING:
  from facesiam_jax.bundle import Bundle
  from facesiam_jax.evaluation.measure import Measured

HELP = "Measure a recogniser on people it has never seen."
USAGE = """facesiam evaluate --workdir=DIR | --bundle=DIR --out=DIR [flags]
       facesiam evaluate --bundle=DIR --out=DIR [flags] PEOPLE/
       facesiam evaluate --bundle=DIR --protocol=NAME --out=DIR PHOTOS/"""

# Rows of the printed table: key of the result, what it is called.
_ROWS = (
  ("eer", "equal error rate (ROC convex hull)"),
  ("eer_raw", "equal error rate (raw)"),
  ("auc", "area under the ROC curve"),
  ("tar_at_far_0.01", "true accept rate at 1 % false accepts"),
  ("tar_at_far_0.1", "true accept rate at 10 % false accepts"),
  ("one_shot_accuracy", "one-shot 10-way accuracy"),
  ("triplet_accuracy", "triplet accuracy"),
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
     "not given. Or give a folder PEOPLE/<name>/<photo>."),
  ):  # fmt: skip
    flags.DEFINE_string(name, None, text, flag_values=flag_values)
  flags.DEFINE_string(
    "groups",
    None,
    "CSV file with the columns person and group, or image and group "
    "(<name>/<photo>): error rates by group too.",
    flag_values=flag_values,
  )
  photos.define_flags(flag_values)
  protocol.define_flags(flag_values)


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


def _measure_photos(
  flag_values: flags.FlagValues, bundle: "Bundle", folder: str
) -> "tuple[Measured, dict[str, Any]]":
  """Measures on the photos of a folder of people, none of them trained on."""
  import numpy as np

  from facesiam_jax import files
  from facesiam_jax.evaluation import leaks, measure, scores
  from facesiam_jax.faces import photo

  listed = photo.list_people(folder)
  leak = leaks.check(bundle, list(listed), allow=flag_values.allow_leak)
  paths = [path for several in listed.values() for path in several]
  people = np.repeat(np.arange(len(listed)), [*map(len, listed.values())])
  faces = photos.load(paths, bundle, flag_values, strict=False)
  photos.print_failures(faces.failures, len(paths), "measured")
  failed = np.delete(np.arange(len(paths)), faces.rows)
  measured = measure.measure_photos(
    bundle,
    faces.cuts,
    people[faces.rows],
    people[failed],
    [faces.failures[paths[row]].reason for row in failed],
    image_ids=scores.digests([files.sha256(paths[r]) for r in faces.rows]),
    names=list(listed),
    mirror=flag_values.mirror,
  )
  return measured, leak


def _measure(
  flag_values: flags.FlagValues, bundle: "Bundle", args: list[str]
) -> "tuple[Measured, dict[str, Any]]":
  """Measures; returns also what belongs beside every figure."""
  from facesiam_jax.evaluation import leaks, measure

  options = {
    name: flag_values[name].value
    for name in ("mirror", "cropped", "largest", "detector", "allow_leak")
  }
  options["bundle_views"] = bundle.spec["views"]
  if args:
    measured, leak = _measure_photos(flag_values, bundle, args[0])
    subject = f"photos in {pathlib.Path(args[0]).name}"
    return measured, {"subject": subject, "options": options, "leak": leak}
  data = measure.load_data(
    bundle, flag_values.dataset, any_alignment=flag_values.cropped
  )
  # The test people of a bundle's own data set are not in its training part.
  leak = {"checked": True, "reason": None, "people": []}
  if flag_values.dataset:
    who = [str(data.faces.names[person]) for person in data.test]
    leak = leaks.check(bundle, who, allow=flag_values.allow_leak)
  name = flag_values.dataset or bundle.spec["config"]["dataset"]["name"]
  subject = f"test people of {name}"
  if data.alignment != bundle.alignment:
    subject += (
      f", framed as {data.alignment} and not as {bundle.alignment}, which the "
      "network wants"
    )
  measured = measure.measure(bundle, data, mirror=flag_values.mirror)
  return measured, {"subject": subject, "options": options, "leak": leak}


def _check_args(flag_values: flags.FlagValues, args: list[str]) -> None:
  if len(args) > 1 or (args and flag_values.dataset):
    raise common.UsageError(
      f"give one folder of people or --dataset, not also {args[-1]!r}."
    )
  if not args:
    photos.refuse_flags(flag_values)
  protocol.refuse_flags(flag_values)


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Measures, prints a table and writes the report."""
  if flag_values.protocol:
    return protocol.run(flag_values, args)
  _check_args(flag_values, args)
  bundle_dir, out_dir, workdir = _places(flag_values)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax import errors
  from facesiam_jax.evaluation import comparing, measure
  from facesiam_jax.training import workdir as workdir_lib

  if workdir is not None:
    workdir_lib.read_config(workdir)
    if not (bundle_dir / "bundle.json").exists():
      raise errors.UserError(
        f"--workdir={workdir} has no bundle yet; run its `facesiam train` to "
        "the end first."
      )
  bundle = bundle_lib.load(bundle_dir)
  measured, facts = _measure(flag_values, bundle, args)
  facts["collapsed"] = comparing.collapsed(measured.embeddings)
  if flag_values.groups:
    images = _image_names(args[0]) if args else None
    measured = measure.with_groups(bundle, measured, flag_values.groups, images)
  page = measure.write(out_dir, bundle, measured, workdir=workdir, facts=facts)
  _print(measured.result, facts)
  if not bundle.calibrated:
    known = bundle.published_distance is not None
    print(f"{'published' if known else 'no'} threshold, uncalibrated")
  print(f"report  {page}")
  return 0


def _image_names(folder: str) -> dict[str, str]:
  """Returns <name>/<photo> -> name of the photos of a folder of people."""
  from facesiam_jax.faces import photo

  return {
    f"{name}/{path.name}": name
    for name, paths in photo.list_people(folder).items()
    for path in paths
  }


def _print_groups(found: dict[str, Any]) -> None:
  share = lambda value: "-" if value is None else f"{value:.2%}"
  keys = ("fnmr", "fmr_within", "fmr_across")
  rows = [
    [row["group"], str(row["people"]), *(share(row[key]) for key in keys)]
    for row in found["groups"]
  ]
  print(f"by group, at the threshold of the {found['threshold_of']}:")
  head = ["group", "people", "FNMR", "FMR within", "FMR to others"]
  print(common.table(head, rows))


def _print_rates(result: dict[str, Any], mark: str) -> None:
  """Prints the table: intervals beside, and the rates of all photos."""
  acquired = result.get("acquisition")
  every = acquired and acquired["with_failures"]
  intervals = result["interval"] or {}
  ends = lambda pair: f"{pair[0]:.2%} .. {pair[1]:.2%}" if pair else ""
  columns = {
    "faces found" if every else "value": lambda key: f"{result[key]:.2%}",
    "95 % interval": lambda key: ends(intervals.get(key)),
    "all photos": lambda key: f"{every[key]:.2%}" if every else "",
    "note": lambda key: mark,
  }
  rows = [
    [text, *(column(key) for column in columns.values())]
    for key, text in _ROWS
    if result[key] is not None
  ]
  # A column that says nothing is left out.
  kept = [n for n in range(len(columns) + 1) if any(row[n] for row in rows)]
  head = ["", *columns]
  table = [[row[n] for n in kept] for row in [head, *rows]]
  print(common.table(table[0], table[1:]))


def _print(result: dict[str, Any], facts: dict[str, Any]) -> None:
  """Prints the figures, with those of all photos beside them if some failed."""
  acquired = result.get("acquisition")
  every = acquired and acquired["with_failures"]
  leaked = facts["leak"]["people"]
  _print_rates(result, f"{len(leaked)} people trained on" if leaked else "")
  print(
    f"{facts['subject']}: {result['num_people']} people, "
    f"{result['num_genuine']} genuine and {result['num_impostor']} impostor "
    "pairs"
  )
  if acquired:
    photos_failed = acquired["failures_to_acquire"]
    people_failed = acquired["failures_to_enrol"]
    print(
      "failures to acquire {count} of {of} photos; ".format(**photos_failed)
      + "failures to enrol {count} of {of} people".format(**people_failed)
    )
  if "groups" in result:
    _print_groups(result["groups"])
  if every:
    print("all photos: a pair with a failed photo is one that is not accepted")
  for note in (
    *(result["interval_reason"], result["interval_caution"]),
    facts["leak"]["reason"],
    common.COLLAPSED if facts["collapsed"] else "",
  ):
    if note:
      print(f"note: {note}")
  quality = [f"{name} {value:.2f}" for name, value in result["quality"].items()]
  print(f"median quality of the faces: {', '.join(quality)}")
