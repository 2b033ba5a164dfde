"""`facesiam identify`: who of a gallery do photos show?"""

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, photos

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.faces.photo import Cut
  from facesiam_jax.gallery.gallery import Identification, Match

HELP = "Say who of a gallery a photo shows."
USAGE = "facesiam identify --bundle=DIR --gallery=FILE [flags] PHOTO..."


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  photos.define_flags(flag_values, largest=False)
  common.define_json(flag_values)
  flags.DEFINE_integer(
    "k",
    5,
    "How many of the most alike people to print for each face.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "picture",
    None,
    "Also write a PNG, for one photo: of several faces, each with a box and "
    "who it is; of one, its scores against the people enrolled and the "
    "decision.",
    flag_values=flag_values,
  )


class _Answer(NamedTuple):
  """Who a face of a photo is; `number` counts from 1, the largest face.

  A photo without a face has one answer, with number 0 and nothing else.
  """

  photo: str
  number: int = 0
  cut: "Cut | None" = None
  found: "Identification | None" = None

  @property
  def box(self) -> "list[float] | None":
    """Left, top, width and height in pixels, where a face was looked for."""
    if self.cut is None or self.cut.face is None:
      return None
    return [round(float(side), 1) for side in self.cut.face.box]


def _write_photo(
  path: str, pixels: "np.ndarray", answers: list[_Answer]
) -> None:
  """Draws all faces of one photo and who they are."""
  from facesiam_jax.evaluation import figures, photo_figures

  names = [answer.found and answer.found.name for answer in answers]
  figure = photo_figures.photo_figure(
    pixels,
    [answer.box or [0, 0, 0, 0] for answer in answers],
    [
      f"{a.number} {n or 'unknown'}"
      for a, n in zip(answers, names, strict=True)
    ],
    [name is not None for name in names],
  )
  png = figures.png_bytes(figure, all_colors=True)
  common.write_file(path, lambda file: file.write(png))


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


def _json(bundle: "Bundle", answer: _Answer) -> dict[str, object]:
  note = {"note": common.uncalibrated_note(bundle)}
  found = answer.found
  return {
    "photo": answer.photo,
    "face": answer.number or None,
    "box": answer.box,
    "name": found and found.name,
    "matches": [_match(bundle, match) for match in found.matches]
    if found
    else [],
    "calibrated": bundle.calibrated,
    **({} if bundle.calibrated else note),
  }


def _rows(bundle: "Bundle", answer: _Answer) -> list[list[str]]:
  names = _numbers(bundle)
  if answer.found is None:
    return [
      [answer.photo, "-", "-", "(no face)", "-", *["-"] * len(names), "-"]
    ]
  number = str(answer.number)
  box = "-"
  if answer.box is not None:
    left, top, width, height = (round(side) for side in answer.box)
    box = f"{width}x{height}{left:+d}{top:+d}"
  head = [answer.photo, number, box, answer.found.name or "(unknown)"]
  rows = [
    [
      match["name"],
      *(f"{match[name]:.4f}" for name in names),
      "yes" if match["accepted"] else "no",
    ]
    for match in (_match(bundle, match) for match in answer.found.matches)
  ] or [["-"] * (len(names) + 2)]
  return [
    [*(head if i == 0 else [""] * len(head)), *row]
    for i, row in enumerate(rows)
  ]


def _numbers(bundle: "Bundle") -> list[str]:
  return ["probability", "logit"] if bundle.calibrated else ["distance"]


def _print(bundle: "Bundle", answers: list[_Answer]) -> None:
  header = ["photo", "face", "box", "decision", "person", *_numbers(bundle)]
  rows = [row for answer in answers for row in _rows(bundle, answer)]
  print(common.table([*header, "accepted"], rows))
  faceless = sum(answer.found is None for answer in answers)
  if faceless:
    of = len({answer.photo for answer in answers})
    print(f"no face was found in {faceless} of {of} photos")
  if bundle.calibrated:
    print(f"accepted from logit {bundle.threshold:.4f} on")
    return
  if bundle.published_distance is not None:
    print(f"accepted up to distance {bundle.published_distance:.4f}")
  print(common.uncalibrated_note(bundle))


def _read(
  flag_values: flags.FlagValues, bundle: "Bundle", paths: list[str]
) -> "tuple[np.ndarray, list[_Answer]]":
  """Returns the last photo's pixels, and the faces, nobody named yet."""
  import numpy as np
  import tqdm

  reader = photos.reader(flag_values, bundle)
  pixels, answers = np.zeros((0, 0), np.uint8), []
  # disable=None: no bar unless stderr is a terminal.
  for path in tqdm.tqdm(paths, unit="photo", leave=False, disable=None):
    pixels, cuts = reader.read(path)
    answers += [_Answer(path, i + 1, cut) for i, cut in enumerate(cuts)]
    if not cuts:
      answers.append(_Answer(path))
  if all(answer.cut is None for answer in answers):
    raise errors.UserError(
      f"No face was found in {', '.join(paths)}: give another photo, upright "
      "and from the front, or an already cropped face with --cropped."
    )
  return pixels, answers


def _identify(
  flag_values: flags.FlagValues, bundle: "Bundle", paths: list[str]
) -> "tuple[np.ndarray, list[_Answer]]":
  """Returns the last photo's pixels, and who each face of all photos is."""
  import numpy as np

  from facesiam_jax.gallery import gallery as gallery_lib

  with gallery_lib.Gallery.open(flag_values.gallery, bundle) as gallery:
    pixels, answers = _read(flag_values, bundle, paths)
    everybody = max(1, len(gallery.people()))
    k = everybody if flag_values.picture else flag_values.k
    faces = np.stack([a.cut.pixels for a in answers if a.cut is not None])
    found = iter(gallery.identify(faces, k=k))
  return pixels, [
    a if a.cut is None else a._replace(found=next(found)) for a in answers
  ]


def _shortened(answer: _Answer, k: int) -> _Answer:
  if answer.found is None:
    return answer
  found = answer.found._replace(matches=answer.found.matches[:k])
  return answer._replace(found=found)


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Identifies each face of each photo and prints the best matches."""
  if not args:
    raise common.UsageError("give at least one photo.")
  if flag_values.picture and len(args) != 1:
    raise common.UsageError("--picture is for one photo; give one.")
  from facesiam_jax import bundle as bundle_lib

  bundle = bundle_lib.load(flag_values.bundle)
  pixels, answers = _identify(flag_values, bundle, args)
  if flag_values.picture and len(answers) > 1:
    _write_photo(flag_values.picture, pixels, answers)
  elif flag_values.picture:
    (one,) = answers
    assert one.cut is not None and one.found is not None
    _write_picture(flag_values.picture, one.cut.pixels, one.found, bundle)
  answers = [_shortened(answer, flag_values.k) for answer in answers]
  if flag_values.json:
    print(json.dumps([_json(bundle, answer) for answer in answers]))
  else:
    _print(bundle, answers)
  return 1 if any(answer.found is None for answer in answers) else 0
