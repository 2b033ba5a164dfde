"""People who are measured on and were trained on: a figure on them is none."""

from collections.abc import Sequence
from typing import Any

import ml_collections

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.data import names, sets

_SHOWN = 5


def trained_on(
  bundle: bundle_lib.Bundle, *, validation: bool = True
) -> tuple[list[str] | None, str]:
  """Returns who a bundle was trained or calibrated on.

  Args:
    bundle: the recogniser.
    validation: those as well who it was calibrated on and not trained.

  Returns:
    (names, ""); or (None, why they are not known): an imported bundle does not
    say, and of another the data set must be on this machine.
  """
  if not bundle.spec["config"]:
    return (
      None,
      "the bundle was imported and does not say who it was trained on",
    )
  config = ml_collections.ConfigDict(bundle.spec["config"])
  try:
    data = sets.load(config.dataset, image_size=config.image_size, lazy=True)
  except errors.UserError as error:
    return None, f"the bundle's training data is not here: {error}"
  people = data.train + (data.validation if validation else ())
  return [str(data.faces.names[p]) for p in people], ""


def check(
  bundle: bundle_lib.Bundle | None,
  people: Sequence[str] | None,
  *,
  allow: bool,
  validation: bool = True,
) -> dict[str, Any]:
  """Refuses to measure people who were trained on.

  Args:
    bundle: the recogniser; None where only embeddings are at hand.
    people: names of those to be measured; None where they are not known.
    allow: measure all the same, and say so.
    validation: whether those it was calibrated on count as well; not where
      they are to calibrate it again.

  Returns:
    What belongs beside every figure: "checked", "reason" (why not, or null)
    and "people", the names that are in both.

  Raises:
    UserError: if somebody is in both, unless `allow`.
  """
  known, reason = None, "embeddings do not say who their network was trained on"
  if bundle is not None:
    known, reason = trained_on(bundle, validation=validation)
  if people is None and known is not None:
    known, reason = None, "the protocol does not say who is who"
  if known is None or people is None:
    return {"checked": False, "reason": reason, "people": []}
  tested = sorted(set(people))
  both = sorted({tested[i] for i, _ in names.same_names(tested, known)})
  if both and not allow:
    shown = ", ".join(both[:_SHOWN]) + (", ..." if len(both) > _SHOWN else "")
    raise errors.UserError(
      f"{len(both)} of the {len(tested)} people to be measured were trained "
      f"{'or calibrated ' if validation else ''}on ({shown}): take them out, "
      "or have every figure marked with --allow_leak."
    )
  return {"checked": True, "reason": None, "people": both}
