"""What is told of faces, of comparisons and of people, by the names JSON has.

`facesiam identify --json`, `verify --json`, `gallery list --json` and the HTTP
service all tell it so.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.bundle import Bundle

if TYPE_CHECKING:
  from facesiam_jax.faces.photo import Cut
  from facesiam_jax.gallery.gallery import Identification, Match
  from facesiam_jax.gallery.open_set import OperatingPoint
  from facesiam_jax.gallery.records import Member

_DAY = 86_400


def uncalibrated_note(bundle: Bundle) -> str:
  """Returns the line to give with a decision of an uncalibrated bundle."""
  if bundle.published_distance is None:
    return (
      "uncalibrated: no threshold is known, so nothing is decided; run "
      "facesiam calibrate"
    )
  return (
    "uncalibrated: published threshold, no error rate is known; run facesiam "
    "calibrate"
  )


def box(cut: "Cut | None") -> list[float] | None:
  """Returns left, top, width and height in pixels; None where not found."""
  if cut is None or cut.face is None:
    return None
  return [round(float(side), 1) for side in cut.face.box]


def match(bundle: Bundle, one: "Match") -> dict[str, Any]:
  """Tells of one person that a face may be.

  Args:
    bundle: what decided.
    one: from `Gallery.identify`.

  Returns:
    name, accepted, and logit and probability; uncalibrated, the distance.
  """
  numbers = {"logit": one.logit, "probability": one.probability}
  if not bundle.calibrated:
    numbers = {"distance": float(bundle.distances(one.logit))}
  return {"name": one.name, **numbers, "accepted": one.accepted}


def face(
  bundle: Bundle,
  photo: str,
  number: int,
  cut: "Cut | None",
  found: "Identification | None",
  point: "OperatingPoint",
) -> dict[str, Any]:
  """Tells who a face of a photo is.

  Args:
    bundle: what decided.
    photo: what the photo is called.
    number: of the face, from 1, the largest; 0 where the photo has none.
    cut: the face; None where the photo has none.
    found: who it is; None where the photo has none.
    point: from `Gallery.operating_point`, when it was looked for.

  Returns:
    photo, face, box, name, matches, calibrated, a note if it is not, and
    open_set: how often strangers are accepted, None if it is not.
  """
  return {
    "photo": photo,
    "face": number or None,
    "box": box(cut),
    "name": found and found.name,
    "matches": [match(bundle, one) for one in found.matches] if found else [],
    **_calibration(bundle),
    "open_set": point._asdict() if bundle.calibrated else None,
  }


def _calibration(bundle: Bundle) -> dict[str, Any]:
  if bundle.calibrated:
    return {"calibrated": True}
  return {"calibrated": False, "note": uncalibrated_note(bundle)}


def comparison(
  bundle: Bundle, photos: Sequence[str], logit: float
) -> dict[str, Any]:
  """Tells whether two photos show the same person.

  Args:
    bundle: what decided.
    photos: what the two are called.
    logit: of "same person".

  Returns:
    photos, same (None where no threshold is known), calibrated, threshold, and
    probability and logit; uncalibrated, the distance and a note.
  """
  known = bundle.threshold != math.inf
  told = {
    "photos": list(photos),
    "same": logit >= bundle.threshold if known else None,
    **_calibration(bundle),
  }
  if bundle.calibrated:
    return told | {
      "probability": float(bundle_lib.probability(logit)),
      "logit": logit,
      "threshold": bundle.threshold,
    }
  return told | {
    "distance": float(bundle.distances(logit)),
    "threshold": bundle.published_distance,
  }


def person(member: "Member") -> dict[str, Any]:
  """Tells of one person who is enrolled.

  Args:
    member: from `Store.members`.

  Returns:
    name, photos, age_days of the oldest and newest_days of the newest
    template (None where not known), and the terms.
  """
  return {
    "name": member.name,
    "photos": member.templates,
    "age_days": _days(member.oldest),
    "newest_days": _days(member.newest),
    **member.terms._asdict(),
  }


def _days(seconds: int | None) -> int | None:
  return None if seconds is None else int((time.time() - seconds) // _DAY)
