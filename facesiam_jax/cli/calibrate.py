"""`facesiam calibrate`: thresholds and probabilities from one's own people."""

from absl import flags

from facesiam_jax.cli import common, photos

HELP = "Measure a bundle's error rates on people of your own."
USAGE = "facesiam calibrate --bundle=DIR [flags] PEOPLE/"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  photos.define_flags(flag_values)
  flags.DEFINE_string(
    "out",
    None,
    "Folder for the calibrated bundle; without it the --bundle is replaced. "
    "Galleries stay valid.",
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    "target_fmr",
    0.01,
    "Share of pairs of two people that may be taken for one; 0 for the "
    "threshold at which both kinds of error are equally frequent.",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Calibrates, writes the bundle and prints what was measured."""
  if len(args) != 1:
    raise common.UsageError(
      "give one folder that holds a folder of photos for each person."
    )
  from facesiam_jax.faces import photo

  listed = photo.list_people(args[0])
  import numpy as np

  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.faces import grading
  from facesiam_jax.training import recalibrate

  bundle = bundle_lib.load(flag_values.bundle)
  flat = [path for paths in listed.values() for path in paths]
  people = np.repeat(np.arange(len(listed)), [*map(len, listed.values())])
  recalibrate.check_people(people)
  faces = photos.load(flat, bundle, flag_values, strict=False)
  people = people[faces.rows]
  recalibrate.check_people(people)
  scores = recalibrate.score(bundle, bundle.embed(faces.images), people)
  spec, variables = recalibrate.recalibrate(
    bundle, scores, flag_values.target_fmr
  )
  spec["calibration"]["num_photos"] = len(flat)
  spec["calibration"]["failures_to_acquire"] = len(faces.failures)
  spec["calibration"]["median_quality"] = grading.medians(faces.cuts)
  if flag_values.detector:
    spec["detector"] = flag_values.detector
  out = flag_values.out or flag_values.bundle
  bundle_lib.save(out, spec, variables)
  photos.print_failures(faces.failures, len(flat), "used")
  _print(spec, len(faces.rows))
  print(f"bundle  {out}")
  return 0


def _print(spec: dict, num_photos: int) -> None:
  measured = spec["calibration"]
  rows = []
  for name, threshold in spec["thresholds"].items():
    interval = threshold["interval"]
    ends = "-" if interval is None else "{:.2f} to {:.2f}".format(*interval)
    default = "default" if name == spec["default_threshold"] else ""
    rates = [f"{threshold[rate]:.2%}" for rate in ("fmr", "fnmr")]
    rows.append([name, f"{threshold['logit']:.2f}", ends, *rates, default])
  header = ["threshold", "logit", "95 % interval", "FMR", "FNMR", ""]
  print(common.table(header, rows))
  print(
    f"on {num_photos} photos of {measured['num_people']} people: "
    f"{measured['num_genuine']} genuine and {measured['num_impostor']} "
    "impostor pairs, the same that the thresholds were chosen on"
  )
  quality = measured["median_quality"].items()
  known = [
    f"{name} {value:.2f}" for name, value in quality if value is not None
  ]
  print(f"median quality of the faces: {', '.join(known)}")
  print(
    f"C_llr  {measured['cllr']:.3f} bits (at best {measured['min_cllr']:.3f})"
  )
