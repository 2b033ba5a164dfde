"""`facesiam calibrate`: thresholds and probabilities from people not seen."""

import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from facesiam_jax.cli import common, photos

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle

HELP = "Measure a bundle's error rates on people it has not seen."
USAGE = """facesiam calibrate --bundle=DIR [flags] PEOPLE/
       facesiam calibrate --bundle=DIR --dataset=NAME [--split=SPLIT] [flags]"""

_DIAGRAM = "reliability.png"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  photos.define_flags(flag_values)
  for name, text in (
    ("out", "Folder for the calibrated bundle; without it the --bundle "
     "is replaced. Galleries stay valid."),
    ("dataset", "Data set to take the people of, in place of PEOPLE/."),
  ):  # fmt: skip
    flags.DEFINE_string(name, None, text, flag_values=flag_values)
  flags.DEFINE_enum(
    "split",
    "validation",
    ["train", "validation", "test"],
    "Which people of the --dataset: train, validation or test. The bundle's "
    "own data set is split as it was when it was trained.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "allow_leak",
    False,
    "Also take people whom the bundle was trained on, and say so wherever its "
    "probabilities are printed.",
    flag_values=flag_values,
  )
  flags.DEFINE_multi_float(
    "target_fmr",
    [0.01],
    "Share of pairs of two people that may be taken for one; 0 for the "
    "threshold at which both kinds of error are equally frequent. May be given "
    "several times; the first is the default threshold.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=flag_values,
  )


class _People(NamedTuple):
  """Embeddings of people, and what is recorded of where they come from."""

  embeddings: "np.ndarray"
  identity_ids: "np.ndarray"
  facts: dict[str, Any]
  detector: str | None = None


def _of_photos(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  folder: str,
  listed: "dict[str, list[pathlib.Path]]",
) -> _People:
  import numpy as np

  from facesiam_jax.evaluation import leaks
  from facesiam_jax.faces import grading
  from facesiam_jax.training import recalibrate

  leak = leaks.check(
    bundle, list(listed), allow=flag_values.allow_leak, validation=False
  )
  flat = [path for paths in listed.values() for path in paths]
  people = np.repeat(np.arange(len(listed)), [*map(len, listed.values())])
  recalibrate.check_people(people)
  faces = photos.load(flat, bundle, flag_values, strict=False)
  people = people[faces.rows]
  recalibrate.check_people(people)
  photos.print_failures(faces.failures, len(flat), "used")
  facts = {
    "set": pathlib.Path(folder).resolve().name,
    "split": None,
    "num_photos": len(flat),
    "failures_to_acquire": len(faces.failures),
    "median_quality": grading.medians(faces.cuts),
    "leak": leak,
  }
  return _People(
    bundle.embed(faces.images), people, facts, flag_values.detector
  )


def _of_dataset(flag_values: flags.FlagValues, bundle: "Bundle") -> _People:
  from facesiam_jax.evaluation import calibrating
  from facesiam_jax.training import recalibrate

  found = calibrating.load_people(
    bundle,
    flag_values.dataset,
    flag_values.split,
    any_alignment=flag_values.cropped,
    allow_leak=flag_values.allow_leak,
  )
  recalibrate.check_people(found.identity_ids)
  facts = {
    "set": flag_values.dataset,
    "split": flag_values.split,
    "num_photos": len(found.images),
    "num_photos_available": found.available,
    "leak": found.leak,
  }
  return _People(bundle.embed(found.images), found.identity_ids, facts)


def _check_args(flag_values: flags.FlagValues, args: list[str]) -> None:
  if len(args) + bool(flag_values.dataset) != 1:
    raise common.UsageError(
      "give one folder that holds a folder of photos for each person, or "
      "--dataset."
    )
  if flag_values.dataset:
    photos.refuse_flags(flag_values)
  elif flag_values["split"].present:
    raise common.UsageError("--split is for --dataset.")


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Calibrates, writes the bundle and prints what was measured."""
  _check_args(flag_values, args)
  from facesiam_jax.faces import photo

  listed = photo.list_people(args[0]) if args else {}
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax import files
  from facesiam_jax.evaluation import calibrating
  from facesiam_jax.training import recalibrate

  bundle = bundle_lib.load(flag_values.bundle)
  if args:
    people = _of_photos(flag_values, bundle, args[0], listed)
  else:
    people = _of_dataset(flag_values, bundle)
  scores = recalibrate.score(bundle, people.embeddings, people.identity_ids)
  found = recalibrate.recalibrate(bundle, scores, flag_values.target_fmr)
  diagram = calibrating.reliability(
    found.logits, scores.people_a, scores.people_b
  )
  found.spec["calibration"] |= people.facts | diagram.record
  if people.detector:
    found.spec["detector"] = people.detector
  out = pathlib.Path(flag_values.out or flag_values.bundle)
  calibrated = bundle_lib.save(out, found.spec, found.variables)
  files.write(out / _DIAGRAM, diagram.png)
  _print(calibrated, len(people.embeddings))
  print(f"reliability diagram  {out / _DIAGRAM}")
  print(f"bundle  {out}")
  return 0


def _print(bundle: "Bundle", num_photos: int) -> None:
  measured = bundle.calibration
  rows, reasons = [], set()
  for name, threshold in bundle.thresholds.items():
    interval = threshold["interval"]
    ends = "-" if interval is None else "{:.2f} to {:.2f}".format(*interval)
    default = "default" if name == bundle.spec["default_threshold"] else ""
    rates = [f"{threshold[rate]:.2%}" for rate in ("fmr", "fnmr")]
    rows.append([name, f"{threshold['logit']:.2f}", ends, *rates, default])
    reasons |= {threshold["interval_reason"], threshold["interval_caution"]}
  header = ["threshold", "logit", "95 % interval", "FMR", "FNMR", ""]
  print(common.table(header, rows))
  print(
    f"on {num_photos} photos of {measured['num_people']} people: "
    f"{measured['num_genuine']} genuine and {measured['num_impostor']} "
    "impostor pairs, the same that the thresholds were chosen on"
  )
  available = measured.get("num_photos_available", num_photos)
  if available > num_photos:
    print(f"{num_photos} of {available} photos, of as many people as possible")
  reasons |= {measured["probability"]["reason"], measured["leak"]["reason"]}
  for reason in sorted(reasons - {None}):
    print(f"note: {reason}")
  if leaked := measured["leak"]["people"]:
    print(f"note: {len(leaked)} of these people were trained on")
  quality = measured.get("median_quality", {}).items()
  known = [
    f"{name} {value:.2f}" for name, value in quality if value is not None
  ]
  if known:
    print(f"median quality of the faces: {', '.join(known)}")
  print(
    f"C_llr  {measured['cllr']:.3f} bits (at best {measured['min_cllr']:.3f})"
  )
  print(
    f"ECE    {measured['ece']:.2%} at even odds, in {measured['ece_bins']} bins"
  )
