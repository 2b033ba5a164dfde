"""`facesiam audit`: what two data sets share, and what looks mislabelled."""

import pathlib
import shlex
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  from facesiam_jax.evaluation.audit import findings

HELP = "Find what two data sets share, and images under a wrong name."
USAGE = (
  "facesiam audit --train=A [--test=B] [--bundle=DIR] [--out=REPORT_DIR]"
  " [--data_dir=DIR] [--alignment=NAME]"
)


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  flags.DEFINE_string(
    "train",
    None,
    "The data set to train on: a prepared data set as config.dataset.name has "
    "it, with :train, :validation or :test after it where only that split is "
    "meant, or a folder or archive of <person>/<image>. Required.",
    required=True,
    flag_values=flag_values,
  )
  for name, text in {
    "test": "The data set to test on, in the same words; without it only what "
    "is wrong within --train is looked for.",
    "bundle": "Folder of a model bundle, which embeds the faces: finds people "
    "under two names, images under a wrong one, and photos framed anew.",
    "out": "Folder for audit.html, audit.json, audit.csv and exclude.txt. The "
    "exit status is 0 when all was compared, whatever was found.",
    "data_dir": "Folder of tfds data sets; without it $TFDS_DATA_DIR, else "
    "~/tensorflow_datasets.",
    "alignment": "How the faces of a folder are framed, such as arcface_112; a "
    "--bundle of another framing needs to know.",
  }.items():
    flags.DEFINE_string(name, None, text, flag_values=flag_values)


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Compares the data sets, writes the report and prints the counts."""
  if args:
    raise common.UsageError(f"audit takes flags only, got {args[0]!r}.")
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.evaluation.audit import findings, reading, writing

  bundle = bundle_lib.load(flag_values.bundle) if flag_values.bundle else None
  sources = [
    reading.open_source(name, flag_values.data_dir, flag_values.alignment or "")
    for name in (flag_values.train, flag_values.test)
    if name
  ]
  if len(sources) == 2 and reading.overlap(*sources):
    raise errors.UserError(
      f"--train={flag_values.train} and --test={flag_values.test} hold the same"
      " images: give two data sets, or two splits as NAME:train and NAME:test,"
      " or leave --test away to look at one alone."
    )
  reading.check_framing(sources, bundle)
  framing = reading.hash_framing(sources)
  sets = [reading.read(source, framing, bundle) for source in sources]
  for images in sets:
    if not images.files:
      raise errors.UserError(
        f"{images.source.name} has no image that can be read: give another."
      )
  found = findings.find(
    sets[0],
    sets[1] if len(sets) > 1 else None,
    metric=None if bundle is None else bundle.metric,
  )
  _print(found)
  if flag_values.out:
    settings = _settings(flag_values, framing, found)
    if bundle:
      settings["fingerprint of the bundle"] = bundle.fingerprint
    writing.write(flag_values.out, found, settings)
    print(f"report  {pathlib.Path(flag_values.out) / writing.PAGE}")
  return 0


def _settings(
  flag_values: flags.FlagValues,
  framing: str | None,
  found: "findings.Findings",
) -> dict[str, str]:
  """Returns what the figures were measured with."""
  from facesiam_jax.evaluation.audit import copies, findings, hashing, people

  given = {
    name: flag_values[name].value
    for name in ("train", "test", "bundle", "alignment")
  }
  words = [f"--{name}={value}" for name, value in given.items() if value]
  settings = {
    "command": shlex.join(["facesiam", "audit", *words]),
    "nearly identical": f"at most {findings.MOST} of {hashing.FREQUENCIES**2}"
    " bits of a DCT hash differ, also of the mirrored image",
    "framing of the hashes": framing or "each image as it is",
  }
  if found.chance:
    settings |= {
      "framed in two ways": f"among the {copies.NEAREST} nearest embeddings,"
      f" and a correlation of {copies.LEAST} laid upon each other",
      "people alike": f"sure: at most {people.SURE:g} pairs by chance in one"
      f" comparison; to look at: at most {people.LOOK:g}",
      "somebody else": "no more like their own person than the ten strangers"
      " next nearest to the image after the nearest",
    }
  for where, chance in found.chance.items():
    settings[f"compared, {where}"] = (
      "too few people to say what chance does"
      if chance is None
      else f"{chance.pairs:,} pairs of people"
    )
  return settings


def _print(found: "findings.Findings") -> None:
  from facesiam_jax.evaluation.audit import findings

  for role, images in found.sets.items():
    left = "".join(
      f"; {count:,} images that {kind} left out"
      for kind, count in images.unreadable.items()
    )
    print(
      f"{role}: {images.source.name}, {len(images.files):,} images of"
      f" {len(images.people):,} people{left}"
    )
  for where, chance in found.chance.items():
    if chance is None:
      print(f"{where}: too few people to say who looks like one by chance")
  rows = [
    [findings.TITLES[kind], grade, *map(str, numbers)]
    for kind, grade, *numbers in findings.counts(found)
  ]
  header = ["found", "how sure", "in both", "in train", "in test"]
  if len(found.sets) == 1:
    rows = [[*row[:2], row[3]] for row in rows]
    header = ["found", "how sure", "in train"]
  print(common.table(header, rows))
  grades = [grade for grade, _ in findings.exclusions(found).values()]
  sure = grades.count(findings.SURE)
  print(f"{sure} exclusions from train, {len(grades) - sure} more to look at")
