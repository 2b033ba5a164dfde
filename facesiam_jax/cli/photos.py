"""Photos in, for the verbs that take them: their flags, and reading faces."""

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.faces import grading, photo

Path = str | os.PathLike[str]

# The defaults of faces.grading.Limits; told here because that imports JAX.
_LIMITS = {
  "min_width": (40.0, "if it is less wide, in pixels"),
  "min_sharpness": (0.075, "if it is less sharp"),
  "min_light": (0.12, "if its mean brightness, 0 to 1, is less"),
  "max_light": (0.9, "if its mean brightness, 0 to 1, is more"),
  "min_contrast": (0.06, "if its brightness varies less, 0 to 0.5"),
  "max_yaw": (0.4, "if it is turned more to a side, 0 from the front"),
  "max_roll": (45.0, "if it is tilted more, in degrees"),
}


def define_flags(
  flag_values: flags.FlagValues, *, largest: bool = True
) -> None:
  """Defines --cropped, --detector, --detector_model and maybe --largest."""
  flags.DEFINE_bool(
    "cropped",
    False,
    "The photos are square pictures of a face already, aligned as the bundle "
    "wants them; do not look for it.",
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "detector",
    None,
    ["haar", "dlib", "dlib68", "yunet"],
    "What finds the faces: haar, dlib, dlib68 or yunet. Without it the one "
    "that the bundle names.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "detector_model",
    None,
    "The detector's model file; for yunet, which needs one.",
    flag_values=flag_values,
  )
  if largest:
    flags.DEFINE_bool(
      "largest",
      False,
      "Where a photo shows several faces, take the largest.",
      flag_values=flag_values,
    )


def refuse_flags(flag_values: flags.FlagValues) -> None:
  """Refuses flags of `define_flags` where no photo is given.

  Raises:
    UsageError: for the first one given.
  """
  for name in ("detector", "detector_model", "largest"):
    if flag_values[name].value:
      raise common.UsageError(
        f"--{name} is for photos: give a folder that holds a folder of "
        "photos for each person."
      )


def define_limits(flag_values: flags.FlagValues) -> None:
  """Defines --min_width and the like: from which on a face is poor."""
  for name, (usual, what) in _LIMITS.items():
    flags.DEFINE_float(
      name, usual, f"A face is poor {what}.", flag_values=flag_values
    )


def limits(flag_values: flags.FlagValues) -> "grading.Limits":
  """Returns what the flags of `define_limits` say."""
  from facesiam_jax.faces import grading

  return grading.Limits(**{name: flag_values[name].value for name in _LIMITS})


class Faces(NamedTuple):
  """The faces of photos that are to show one each.

  Attributes:
    images: uint8 [N, H, W, C], as the bundle wants them.
    cuts: the same with their places, length N.
    rows: the place of each in the photos that were named, length N.
    failures: photo to what kept its face from being used.
    qualities: of the faces, length N; None where they were not measured.
  """

  images: "np.ndarray"
  cuts: "list[photo.Cut]"
  rows: list[int]
  failures: "dict[Path, photo.NoUsableFace]"
  qualities: "list[grading.Quality] | None" = None


def reader(flag_values: flags.FlagValues, bundle: "Bundle") -> "photo.Reader":
  """Returns what reads photos as a bundle and the flags want it.

  Args:
    flag_values: with the flags of `define_flags`.
    bundle: what is to embed the faces.

  Raises:
    UserError: if no face can be cut out as the bundle wants it, or the
      detector cannot be had.
  """
  from facesiam_jax.faces import photo

  named = flag_values.detector or flag_values.detector_model
  if flag_values.cropped and named:
    raise errors.UserError(
      "--cropped looks for no face: leave --cropped or --detector away."
    )
  framing = bundle.framing
  return photo.reader(
    **framing | {"detector": flag_values.detector or framing["detector"]},
    model=flag_values.detector_model,
    cropped=flag_values.cropped,
  )


def load(
  paths: Sequence[Path],
  bundle: "Bundle",
  flag_values: flags.FlagValues,
  *,
  strict: bool,
) -> Faces:
  """Reads the one face of each photo.

  Args:
    paths: image files.
    bundle: what is to embed the faces.
    flag_values: with the flags of `define_flags`.
    strict: stop at the first photo without a usable face; else go on and tell.

  Returns:
    The faces; at least one, unless `paths` is empty.

  Raises:
    UserError: for the first file that is no sound image, the first without a
      usable face if `strict`, or if no photo has one.
  """
  import numpy as np
  import tqdm

  from facesiam_jax.faces import photo

  read = reader(flag_values, bundle)
  cuts: list[photo.Cut] = []
  rows: list[int] = []
  failures: dict[Path, photo.NoUsableFace] = {}
  # disable=None: no bar unless stderr is a terminal.
  bar = tqdm.tqdm(paths, unit="photo", leave=False, disable=None)
  for row, path in enumerate(bar):
    try:
      cuts.append(read.read_one(path, largest=flag_values.largest))
      rows.append(row)
    except photo.NoUsableFace as failure:
      if strict:
        raise
      failures[path] = failure
  if paths and not cuts:
    raise errors.UserError(
      f"none of the {len(paths)} photos has a usable face "
      f"({tally(failures)}); the first: {failures[paths[0]]}"
    )
  shape = (0, read.size, read.size, read.channels)
  images = [np.zeros(shape, np.uint8), *(cut.pixels[None] for cut in cuts)]
  return Faces(np.concatenate(images), cuts, rows, failures)


def grade(
  faces: Faces,
  paths: Sequence[Path],
  *,
  refuse: bool,
  strict: bool,
  limits: "grading.Limits | None" = None,
) -> Faces:
  """Tells which faces are poor, and leaves them out if asked to.

  Args:
    faces: from `load`.
    paths: the photos that were named there.
    refuse: leave the poor ones out; else they are only told of.
    strict: a poor one that is to be left out stops everything.
    limits: from which on a face is poor; None takes the usual ones.

  Returns:
    The faces that are left, and the others among the failures.

  Raises:
    UserError: if a face is poor, `refuse` and `strict`, or if all are.
  """
  from facesiam_jax.faces import grading, photo

  kept, failures = [], dict(faces.failures)
  qualities = grading.measure(faces.cuts)
  for place, quality in enumerate(qualities):
    poor = ", ".join(grading.shortcomings(quality, limits or grading.Limits()))
    path = paths[faces.rows[place]]
    if poor and refuse:
      failure = photo.NoUsableFace(
        "poor face",
        f"The face in {path} is poor ({poor}): give another photo, or leave "
        "--refuse_poor away.",
        detail=f"poor face ({poor})",
      )
      if strict or len(failures) + 1 == len(paths):
        raise failure
      failures[path] = failure
      continue
    if poor:
      print(f"{path}: poor face, {poor}")
    kept.append(place)
  return Faces(
    faces.images[kept],
    [faces.cuts[place] for place in kept],
    [faces.rows[place] for place in kept],
    failures,
    [qualities[place] for place in kept],
  )


def tally(failures: "dict[Path, photo.NoUsableFace]") -> str:
  """Returns how many photos failed for each reason, as text."""
  counts = Counter(failure.reason for failure in failures.values())
  return ", ".join(f"{reason}: {n}" for reason, n in sorted(counts.items()))


def print_failures(
  failures: "dict[Path, photo.NoUsableFace]", total: int, what: str
) -> None:
  """Prints each photo without a usable face, and how many there are.

  Args:
    failures: of a `Faces`.
    total: how many photos were named.
    what: what did not come of them, such as "enrolled".
  """
  for path, failure in failures.items():
    print(f"{path}: {failure.detail}, not {what}")
  if failures:
    print(f"{len(failures)} of {total} photos not {what} ({tally(failures)}).")
