"""`facesiam prepare`: write a data set in the form that training reads."""

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.data import listing, prepared

HELP = "Write a data set to disk in the form that training reads."
USAGE = (
  "facesiam prepare --dataset=NAME [--manual_dir=DIR] [--data_dir=DIR]"
  " [--size=PIXELS] [--strict]"
)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  flags.DEFINE_string(
    "dataset",
    None,
    "Name of the data set: olivetti, celeba_identity, cfp, folder (any tree of "
    "<person>/<image>), insightface_bin, lfw or vggface2. Required.",
    required=True,
    flag_values=flag_values,
  )
  for name, text in {
    "manual_dir": "Where the files of the data set lie, under their official "
    "names; for folder and insightface_bin the folder, .tar, .zip or .bin "
    "itself. Needed for all but olivetti.",
    "data_dir": "Folder of tfds data sets; without it $TFDS_DATA_DIR, else "
    "~/tensorflow_datasets.",
    "variant": "Which of several versions (lfw: original, funneled or "
    "deepfunneled), or a name of your own for what is prepared.",
    "alignment": "folder: name of the way the faces are framed, such as "
    "arcface_112; it goes into the bundles that are trained on them. "
    "celeba_identity: arcface_112 cuts them to that framing.",
    "partition": "folder, celeba_identity: a file that says who is in which "
    "split: CelebA's list_eval_partition.txt, or lines NAME TAB "
    "train|validation|test, as people.txt of a prepared data set has them.",
  }.items():
    flags.DEFINE_string(name, None, text, flag_values=flag_values)
  for name, text in {
    "size": "Side in pixels to which the middle square of each image is "
    "scaled; without it images are kept as they are.",
    "num_validation": "folder, celeba_identity: so many training people, by a "
    "stable hash, become validation people. Without it and --partition a tenth "
    "of a folder's.",
    "num_test": "folder, celeba_identity: likewise test people.",
  }.items():
    flags.DEFINE_integer(name, None, text, flag_values=flag_values)
  flags.DEFINE_bool(
    "strict",
    False,
    "Stop at the first image or row that would be counted and left out.",
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Prepares the data set; does nothing if it is there."""
  if args:
    raise common.UsageError(f"prepare takes flags only, got {args[0]!r}.")
  if flag_values.dataset == "olivetti":
    from facesiam_jax.data import olivetti

    olivetti.prepare(flag_values.data_dir)
    print("olivetti is ready: 400 images of 40 people.")
    return 0
  from facesiam_jax.data import catalogue

  if flag_values.manual_dir is None and flag_values.dataset in (
    catalogue.SOURCES
  ):
    raise errors.UserError(
      f"--manual_dir is required for {flag_values.dataset}: the folder with its"
      " files."
    )
  partition = flag_values.partition
  options = catalogue.Options(
    manual_dir=pathlib.Path(flag_values.manual_dir or "."),
    variant=flag_values.variant or "",
    alignment=flag_values.alignment or "",
    partition=pathlib.Path(partition) if partition else None,
    num_validation=flag_values.num_validation,
    num_test=flag_values.num_test,
  )
  made, problems = catalogue.prepare(
    flag_values.dataset,
    options,
    data_dir=flag_values.data_dir,
    size=flag_values.size,
    strict=flag_values.strict,
  )
  _report(made, problems)
  return 0


def _report(made: "prepared.Prepared", problems: "listing.Problems") -> None:
  """Prints what came out."""
  counts = made.manifest["splits"]
  total = sum(count["images"] for count in counts.values())
  people = sum(count["people"] for count in counts.values())
  who = f" of {people:,} people" if made.has_identities else ""
  print(f"{made.name} is ready in {made.folder}: {total:,} images{who}.")
  rows = [
    [split, *(str(counts[split][k]) for k in ("images", "people", "single"))]
    for split in counts
  ]
  if made.has_identities:
    header = ["split", "images", "people", "with one image"]
    print(common.table(header, rows))
  for split in made.manifest["partitions"]:
    if not counts[split]["images"]:
      print(f"The {split} partition has no image here.")
  for protocol in made.protocols:
    pairs = made.pairs(protocol)
    folds = len(set(pairs.fold.tolist()))
    print(
      f"Protocol {protocol}: {len(pairs.same):,} pairs,"
      f" {int(pairs.same.sum()):,} of one person, {folds} folds."
    )
  missing = made.manifest["facts"].get("missing")
  if missing:
    print(f"Not there: {', '.join(missing)}.")
  changed = sum(part["changed"] for part in made.manifest["parts"])
  if changed:
    print(f"{changed:,} images were written anew as PNG.")
  for line in problems.lines():
    print(f"Left out: {line}.")
  if made.has_identities and counts["train"]["images"]:
    print(f"Train on it with --config.dataset.name={made.name}")
