"""What is told of faces, of comparisons and of people, by the names JSON has.

`facesiam identify --json`, `verify --json`, `gallery list --json` and the HTTP
service all tell it so.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import metrics
from facesiam_jax.bundle import Bundle

if TYPE_CHECKING:
  from facesiam_jax.faces.photo import Cut
  from facesiam_jax.gallery.gallery import Identification, Match
  from facesiam_jax.gallery.open_set import OperatingPoint
  from facesiam_jax.gallery.records import Member

_DAY = 86_400
_NO_RECORD = "--bundle records none; run facesiam calibrate"


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


def half_width(bundle: Bundle, logit: float) -> float | None:
  """Returns how far a logit may be off, at 95 %; None where it is not known.

  Other people to calibrate with would have given another slope and offset:
  `metrics.platt_jackknife` says how far they vary.
  """
  known = bundle.calibration.get("probability", {})
  if known.get("quantile") is None:
    return None
  variance = (
    logit**2 * known["variance_w"]
    + 2 * logit * known["covariance"]
    + known["variance_b"]
  )
  return float(known["quantile"]) * math.sqrt(max(variance, 0.0))


def chance(
  bundle: Bundle, logit: float, prior: float
) -> dict[str, float | list[float] | None]:
  """Tells how probable "same person" is at a prior, with its 95 % interval.

  Args:
    bundle: what is calibrated.
    logit: of "same person".
    prior: the probability before looking, inside 0..1.

  Returns:
    probability, and probability_interval, None where there is none.
  """
  half, interval = half_width(bundle, logit), None
  if half is not None:
    ends = bundle_lib.probability([logit - half, logit + half], prior)
    interval = ends.tolist()
  return {
    "probability": float(bundle_lib.probability(logit, prior)),
    "probability_interval": interval,
  }


def basis(bundle: Bundle) -> dict[str, Any]:
  """Tells what the probabilities of a calibrated bundle rest on.

  Args:
    bundle: what is calibrated.

  Returns:
    people, genuine and impostor (numbers of pairs), set and split, how many of
    the people were trained_on (None where not known), and why there is no
    interval, reason; None each where it is not recorded.
  """
  known = bundle.calibration
  name, split = known.get("set"), known.get("split")
  if name is None and bundle.spec["config"]:
    # Calibrated by its own training.
    name = bundle.spec["config"]["dataset"]["name"]
    cross_fit = known.get("kind") == "cross_fit"
    split = "training, cross-fitted" if cross_fit else "validation"
  leak = known.get("leak", {"checked": False})
  return {
    "people": known.get("num_people"),
    "genuine": known.get("num_genuine"),
    "impostor": known.get("num_impostor"),
    "set": name,
    "split": split,
    "trained_on": len(leak["people"]) if leak["checked"] else None,
    "reason": known.get("probability", {"reason": _NO_RECORD})["reason"],
  }


def basis_sentence(bundle: Bundle) -> str:
  """Returns `basis` as text."""
  told = basis(bundle)
  if told["people"] is None:
    return "what the probability rests on is not recorded in --bundle"
  of = f" of {told['set']}" if told["set"] else ""
  split = f" ({told['split']})" if told["split"] else ""
  lines = [
    f"calibrated on {told['people']} people{of}{split}: {told['genuine']} "
    f"genuine and {told['impostor']} impostor pairs"
  ]
  if told["trained_on"]:
    lines.append(f"{told['trained_on']} of these people were trained on")
  if told["reason"]:
    lines.append(f"no interval of the probability: {told['reason']}")
  elif told["people"] < metrics.ENOUGH_PEOPLE:
    lines.append(
      f"the interval of a probability is rough with {told['people']} people: "
      "see docs/intervals.md"
    )
  return "\n".join(lines)


def box(cut: "Cut | None") -> list[float] | None:
  """Returns left, top, width and height in pixels; None where not found."""
  if cut is None or cut.face is None:
    return None
  return [round(float(side), 1) for side in cut.face.box]


def match(bundle: Bundle, one: "Match", prior: float = 0.5) -> dict[str, Any]:
  """Tells of one person that a face may be.

  Args:
    bundle: what decided.
    one: from `Gallery.identify`.
    prior: at which probabilities are told, inside 0..1.

  Returns:
    name, accepted, and logit, probability and probability_interval;
    uncalibrated, the distance.
  """
  numbers: dict[str, Any]
  if bundle.calibrated:
    numbers = {"logit": one.logit, **chance(bundle, one.logit, prior)}
  else:
    numbers = {"distance": float(bundle.distances(one.logit))}
  return {"name": one.name, **numbers, "accepted": one.accepted}


def face(
  bundle: Bundle,
  photo: str,
  number: int,
  cut: "Cut | None",
  found: "Identification | None",
  point: "OperatingPoint",
  prior: float = 0.5,
) -> dict[str, Any]:
  """Tells who a face of a photo is.

  Args:
    bundle: what decided.
    photo: what the photo is called.
    number: of the face, from 1, the largest; 0 where the photo has none.
    cut: the face; None where the photo has none.
    found: who it is; None where the photo has none.
    point: from `Gallery.operating_point`, when it was looked for.
    prior: at which probabilities are told, inside 0..1.

  Returns:
    photo, face, box, name, matches, calibrated, a note if it is not, else the
    prior and calibrated_on, from `basis`, and open_set: how often strangers
    are accepted, None if it is not calibrated.
  """
  return {
    "photo": photo,
    "face": number or None,
    "box": box(cut),
    "name": found and found.name,
    "matches": [match(bundle, one, prior) for one in found.matches]
    if found
    else [],
    **_calibration(bundle, prior),
    "open_set": point._asdict() if bundle.calibrated else None,
  }


def _calibration(bundle: Bundle, prior: float) -> dict[str, Any]:
  if bundle.calibrated:
    told = {"prior": prior, "calibrated_on": basis(bundle)}
    return {"calibrated": True, **told}
  return {"calibrated": False, "note": uncalibrated_note(bundle)}


def comparison(
  bundle: Bundle, photos: Sequence[str], logit: float, prior: float = 0.5
) -> dict[str, Any]:
  """Tells whether two photos show the same person.

  Args:
    bundle: what decided.
    photos: what the two are called.
    logit: of "same person".
    prior: at which the probability is told, inside 0..1.

  Returns:
    photos, same (None where no threshold is known), calibrated, threshold, and
    probability, probability_interval, prior, calibrated_on (from `basis`) and
    logit; uncalibrated, the distance and a note.
  """
  known = bundle.threshold != math.inf
  told = {
    "photos": list(photos),
    "same": logit >= bundle.threshold if known else None,
    **_calibration(bundle, prior),
  }
  if bundle.calibrated:
    return told | {
      **chance(bundle, logit, prior),
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
