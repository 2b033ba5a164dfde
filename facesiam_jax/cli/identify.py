"""`facesiam identify`: who of a gallery do photos show?"""

import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, photos, processes, shards

if TYPE_CHECKING:
  import numpy as np

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.faces.photo import Cut
  from facesiam_jax.gallery.gallery import Identification
  from facesiam_jax.gallery.open_set import OperatingPoint

_INTERVAL = "95 % interval"

HELP = "Say who of a gallery a photo shows."
USAGE = "facesiam identify --bundle=DIR --gallery=FILE|DIR [flags] PHOTO..."


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  photos.define_flags(flag_values, largest=False)
  common.define_json(flag_values)
  common.define_prior(flag_values)
  processes.define_flags(flag_values)
  flags.DEFINE_integer(
    "k",
    5,
    "How many of the most alike people to print for each face.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "fusion",
    "max",
    ["max", "mean", "top2_mean", "weighted_mean"],
    "What makes a person's logit of those of their photos: max, the most alike "
    "one's; mean; top2_mean, of the two most alike; or weighted_mean, by their "
    "quality, which enroll measures.",
    flag_values=flag_values,
  )
  flags.DEFINE_enum(
    "metric",
    None,
    ["cosine", "euclidean", "head"],
    "What the gallery is searched by: cosine, euclidean, or head, the bundle's "
    "head itself. Without it the quickest that ranks people as the head does.",
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "approximate",
    None,
    "Look through so many lists of the gallery only, which may miss people; "
    "`facesiam gallery tune` measures how many. The lists are made anew each "
    "time, so that it pays for many photos at once. Without it the search is "
    "exact.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    "fpir",
    None,
    "Share of strangers who may be taken for somebody, such as 0.01; moves the "
    "threshold by the size of the gallery. Without it the bundle's threshold.",
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    "extrapolate",
    False,
    "Also take an --fpir for which the people that the bundle was calibrated "
    "with are too few.",
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
    from facesiam_jax.gallery import telling

    return telling.box(self.cut)


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
  path: str,
  face: "np.ndarray",
  found: "Identification",
  bundle: "Bundle",
  threshold: float,
) -> None:
  from facesiam_jax.evaluation import face_figures, figures

  if not found.matches:
    raise errors.UserError(
      "--picture has nobody to show: the gallery is empty; enroll people."
    )
  if threshold == math.inf:
    raise errors.UserError(
      "--picture has no decision to show: no threshold is known for --bundle."
    )
  scores = [match.logit for match in found.matches]
  label = figures.SCORE_LABEL
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


def _json(
  bundle: "Bundle", answer: _Answer, point: "OperatingPoint", prior: float
) -> dict[str, object]:
  from facesiam_jax.gallery import telling

  return telling.face(
    bundle, answer.photo, answer.number, answer.cut, answer.found, point, prior
  )


def _rows(bundle: "Bundle", answer: _Answer, prior: float) -> list[list[str]]:
  from facesiam_jax.gallery import telling

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
      *(_cell(match, name) for name in names),
      "yes" if match["accepted"] else "no",
    ]
    for match in (
      telling.match(bundle, one, prior) for one in answer.found.matches
    )
  ] or [["-"] * (len(names) + 2)]
  return [
    [*(head if i == 0 else [""] * len(head)), *row]
    for i, row in enumerate(rows)
  ]


def _numbers(bundle: "Bundle") -> list[str]:
  if bundle.calibrated:
    return ["probability", _INTERVAL, "logit"]
  return ["distance"]


def _cell(match: dict[str, Any], name: str) -> str:
  if name != _INTERVAL:
    return f"{match[name]:.4f}"
  ends = match["probability_interval"]
  return "{:.4f} to {:.4f}".format(*ends) if ends else "-"


def _print(
  bundle: "Bundle",
  answers: list[_Answer],
  point: "OperatingPoint",
  prior: float,
) -> None:
  from facesiam_jax.gallery import telling

  header = ["photo", "face", "box", "decision", "person", *_numbers(bundle)]
  rows = [row for answer in answers for row in _rows(bundle, answer, prior)]
  print(common.table([*header, "accepted"], rows))
  faceless = sum(answer.found is None for answer in answers)
  if faceless:
    of = len({answer.photo for answer in answers})
    print(f"no face was found in {faceless} of {of} photos")
  if bundle.calibrated:
    print(f"accepted from logit {point.threshold:.4f} on")
    print(point.sentence())
    print(f"probabilities at a prior of {prior:g}")
    print(telling.basis_sentence(bundle))
    return
  if bundle.published_distance is not None:
    print(f"accepted up to distance {bundle.published_distance:.4f}")
  print(telling.uncalibrated_note(bundle))


def _print_cost(bundle: "Bundle", metric: str | None) -> None:
  """Tells what a search costs that is none by products."""
  from facesiam_jax.gallery import choice, search

  if choice.search_metric(bundle, metric) != "head":
    return
  operations = search.pair_cost(bundle.head, bundle.dim)
  print(
    f"searched by the head itself: {operations:.0f} operations a photo "
    f"enrolled, {operations / (2 * bundle.dim):.1f} times those of a product"
  )


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
) -> "tuple[np.ndarray, list[_Answer], OperatingPoint]":
  """Returns the last photo's pixels, who each face of all is, and from when."""
  import numpy as np

  from facesiam_jax import parallel
  from facesiam_jax.gallery import choice

  pixels, rows = np.zeros((0, 0), np.uint8), None
  answers: list[_Answer] = []
  with shards.open_gallery(flag_values, bundle) as gallery:
    choice.search_metric(bundle, flag_values.metric)
    point = gallery.operating_point(
      fpir=flag_values.fpir, extrapolate=flag_values.extrapolate
    )
    if parallel.is_main():
      pixels, answers = _read(flag_values, bundle, paths)
      faces = np.stack([a.cut.pixels for a in answers if a.cut is not None])
      rows = np.asarray(bundle.embed(faces), np.float32)
    k = flag_values.k
    # All are drawn, unless they are a shard set's, who may be millions.
    if flag_values.picture and not os.path.isdir(flag_values.gallery):
      k = max(1, len(gallery.people()))
    found = iter(
      gallery.identify(
        embeddings=parallel.rows_from_main(rows),
        k=k,
        fusion=flag_values.fusion,
        metric=flag_values.metric,
        threshold=point.threshold,
        approximate=flag_values.approximate,
      )
    )
  answers = [
    a if a.cut is None else a._replace(found=next(found)) for a in answers
  ]
  return pixels, answers, point


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
  prior = common.prior(flag_values)
  processes.start(flag_values)
  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax import parallel

  try:
    bundle = bundle_lib.load(flag_values.bundle)
    pixels, answers, point = _identify(flag_values, bundle, args)
  except BaseException:
    parallel.leave_at_exit()
    raise
  if not parallel.is_main():
    return 0
  if flag_values.picture and len(answers) > 1:
    _write_photo(flag_values.picture, pixels, answers)
  elif flag_values.picture:
    (one,) = answers
    assert one.cut is not None and one.found is not None
    _write_picture(
      flag_values.picture, one.cut.pixels, one.found, bundle, point.threshold
    )
  answers = [_shortened(answer, flag_values.k) for answer in answers]
  if flag_values.json:
    told = [_json(bundle, answer, point, prior) for answer in answers]
    print(json.dumps(told))
  else:
    _print(bundle, answers, point, prior)
    _print_cost(bundle, flag_values.metric)
  return 1 if any(answer.found is None for answer in answers) else 0
