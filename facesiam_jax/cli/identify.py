"""`facesiam identify`: who of a gallery do photos show?"""

import json
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.gallery.gallery import Identification

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
  path: str, face: "np.ndarray", found: "Identification", threshold: float
) -> None:
  from facesiam_jax.evaluation import face_figures, figures

  if not found.matches:
    raise errors.UserError(
      "--picture has nobody to show: the gallery is empty; enroll people."
    )
  figure = face_figures.decision_figure(
    face,
    [match.name for match in found.matches],
    [match.logit for match in found.matches],
    threshold=threshold,
  )
  png = figures.png_bytes(figure)
  common.write_file(path, lambda file: file.write(png))


def _json(photo: str, found: "Identification") -> dict[str, object]:
  matches = [match._asdict() for match in found.matches]
  return {"photo": photo, "name": found.name, "matches": matches}


def _rows(photo: str, found: "Identification") -> list[list[str]]:
  decision = found.name or "(unknown)"
  rows = [
    [
      match.name,
      f"{match.probability:.4f}",
      f"{match.logit:.4f}",
      "yes" if match.accepted else "no",
    ]
    for match in found.matches
  ] or [["-"] * 4]
  return [
    [photo if i == 0 else "", decision if i == 0 else "", *row]
    for i, row in enumerate(rows)
  ]


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
    _write_picture(flag_values.picture, faces[0], found[0], bundle.threshold)
  found = [one._replace(matches=one.matches[: flag_values.k]) for one in found]
  pairs = list(zip(args, found, strict=True))
  if flag_values.json:
    print(json.dumps([_json(photo, one) for photo, one in pairs]))
    return 0
  header = ["photo", "decision", "person", "probability", "logit", "accepted"]
  print(common.table(header, [r for pair in pairs for r in _rows(*pair)]))
  print(f"accepted from logit {bundle.threshold:.4f} on")
  return 0
