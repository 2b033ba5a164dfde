"""`facesiam identify`: who of a gallery do photos show?"""

import json
import math
from typing import TYPE_CHECKING, Any

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.gallery.gallery import Identification, Match

HELP = "Say who of a gallery a photo shows."
USAGE = "facesiam identify --bundle=DIR --gallery=FILE [flags] PHOTO..."


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  common.define_cropped(flag_values)
  common.define_json(flag_values)
  flags.DEFINE_integer(
    "k",
    5,
    "How many of the most alike people to print for each photo.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "picture",
    None,
    "Also write a PNG that shows the face, its scores against the people "
    "enrolled and the decision; for one photo.",
    flag_values=flag_values,
  )


def _write_picture(
  path: str, face: "np.ndarray", found: "Identification", bundle: "Bundle"
) -> None:
  from facesiam_jax.evaluation import face_figures, figures

  if not found.matches:
    raise errors.UserError(
      "--picture has nobody to show: the gallery is empty; enroll people."
    )
  if bundle.threshold == math.inf:
    raise errors.UserError(
      "--picture has no decision to show: no threshold is known for --bundle."
    )
  scores = [match.logit for match in found.matches]
  threshold, label = bundle.threshold, figures.SCORE_LABEL
  if not bundle.calibrated:
    # A logit is the threshold less the distance; the axis shows distances.
    scores = [float(-bundle.distances(score)) for score in scores]
    threshold = float(-bundle.distances(threshold))
    label = "minus the distance; published threshold, uncalibrated"
  figure = face_figures.decision_figure(
    face,
    [match.name for match in found.matches],
    scores,
    threshold=threshold,
    label=label,
  )
  png = figures.png_bytes(figure)
  common.write_file(path, lambda file: file.write(png))


def _match(bundle: "Bundle", match: "Match") -> dict[str, Any]:
  """Returns a match by the names that JSON and the table give its numbers."""
  numbers = {"logit": match.logit, "probability": match.probability}
  if not bundle.calibrated:
    numbers = {"distance": float(bundle.distances(match.logit))}
  return {"name": match.name, **numbers, "accepted": match.accepted}


def _json(
  bundle: "Bundle", photo: str, found: "Identification"
) -> dict[str, object]:
  note = {"note": common.uncalibrated_note(bundle)}
  return {
    "photo": photo,
    "name": found.name,
    "matches": [_match(bundle, match) for match in found.matches],
    "calibrated": bundle.calibrated,
    **({} if bundle.calibrated else note),
  }


def _rows(
  bundle: "Bundle", photo: str, found: "Identification"
) -> list[list[str]]:
  decision = found.name or "(unknown)"
  names = _numbers(bundle)
  rows = [
    [
      match["name"],
      *(f"{match[name]:.4f}" for name in names),
      "yes" if match["accepted"] else "no",
    ]
    for match in (_match(bundle, match) for match in found.matches)
  ] or [["-"] * (len(names) + 2)]
  return [
    [photo if i == 0 else "", decision if i == 0 else "", *row]
    for i, row in enumerate(rows)
  ]


def _numbers(bundle: "Bundle") -> list[str]:
  return ["probability", "logit"] if bundle.calibrated else ["distance"]


def _print(bundle: "Bundle", pairs: "list[tuple[str, Identification]]") -> None:
  header = ["photo", "decision", "person", *_numbers(bundle), "accepted"]
  rows = [row for pair in pairs for row in _rows(bundle, *pair)]
  print(common.table(header, rows))
  if bundle.calibrated:
    print(f"accepted from logit {bundle.threshold:.4f} on")
    return
  if bundle.published_distance is not None:
    print(f"accepted up to distance {bundle.published_distance:.4f}")
  print(common.uncalibrated_note(bundle))


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Identifies each photo and prints the best matches."""
  if not args:
    raise common.UsageError("give at least one photo.")
  if flag_values.picture and len(args) != 1:
    raise common.UsageError("--picture is for one photo; give one.")
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.gallery import gallery as gallery_lib

  bundle = bundle_lib.load(flag_values.bundle)
  with gallery_lib.Gallery.open(flag_values.gallery, bundle) as gallery:
    faces = common.load_faces(args, bundle, cropped=flag_values.cropped)
    everybody = max(1, len(gallery.people()))
    k = everybody if flag_values.picture else flag_values.k
    found = gallery.identify(faces, k=k)
  if flag_values.picture:
    _write_picture(flag_values.picture, faces[0], found[0], bundle)
  found = [one._replace(matches=one.matches[: flag_values.k]) for one in found]
  pairs = list(zip(args, found, strict=True))
  if flag_values.json:
    print(json.dumps([_json(bundle, photo, one) for photo, one in pairs]))
  else:
    _print(bundle, pairs)
  return 0
