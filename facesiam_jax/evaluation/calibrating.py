"""People of a data set to calibrate with; how good probabilities are."""

from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.evaluation import curves, leaks, measure
from facesiam_jax.training import recalibrate

SPLITS = ("train", "validation", "test")
_BINS = 10


class People(NamedTuple):
  """Faces of a data set, and who they are.

  Attributes:
    images: uint8 [N, H, W, C].
    identity_ids: int [N].
    available: faces of these people in the data set, of which N were taken.
    leak: from `leaks.check`.
  """

  images: np.ndarray
  identity_ids: np.ndarray
  available: int
  leak: dict[str, Any]


class Reliability(NamedTuple):
  """What probabilities at even odds came to.

  Attributes:
    record: for `bundle.json`: "ece", its "ece_bins".
    png: the reliability diagram.
  """

  record: dict[str, Any]
  png: bytes


def load_people(
  bundle: bundle_lib.Bundle,
  name: str,
  split: str,
  *,
  any_alignment: bool,
  allow_leak: bool,
) -> People:
  """Loads the people of a split of a data set.

  Args:
    bundle: what is to be calibrated. Its own data set is split as it was when
      it was trained.
    name: of the data set.
    split: one of `SPLITS`.
    any_alignment: take faces that are framed otherwise than the bundle's.
    allow_leak: take people who were trained on, and say so.

  Returns:
    The People; of many faces at most `recalibrate.MAX_PHOTOS`.

  Raises:
    errors.UserError: if the data set is not there, is framed otherwise, has
      nobody in the split, or somebody in it was trained on.
  """
  own = bundle.spec["config"].get("dataset", {}).get("name") == name
  data = measure.load_data(
    bundle,
    None if own else name,
    any_alignment=any_alignment,
    validation=split == "validation",
  )
  people = getattr(data, split)
  if not people:
    there = [s for s in SPLITS if getattr(data, s)]
    raise errors.UserError(
      f"--dataset={name} has no {split} people; give "
      f"{' or '.join(f'--split={s}' for s in there)}."
    )
  leak = leaks.check(
    bundle,
    [str(data.faces.names[person]) for person in people],
    allow=allow_leak,
    validation=False,
  )
  images, ids = data.of(people)
  rows = recalibrate.some_photos(ids, recalibrate.MAX_PHOTOS)
  return People(np.asarray(images[rows]), ids[rows], len(ids), leak)


def reliability(
  logits: np.ndarray, people_a: np.ndarray, people_b: np.ndarray
) -> Reliability:
  """Compares probabilities at even odds with what came true.

  Args:
    logits: log likelihood ratios of pairs, float [P].
    people_a: person at one end of each pair, int [P].
    people_b: person at the other end.
  """
  # Loads matplotlib.
  from facesiam_jax.evaluation import curve_figures, figures

  found = curves.reliability(logits, people_a == people_b, bins=_BINS)
  bands = curves.bands(logits, people_a, people_b, bins=_BINS)
  figure = curve_figures.reliability_figure(found, bands and bands.shares)
  return Reliability(
    {"ece": found.ece, "ece_bins": _BINS}, figures.png_bytes(figure)
  )
