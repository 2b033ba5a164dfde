"""The pictures of a report, with what each of them says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.evaluation import (
  curve_figures,
  curves,
  face_figures,
  figures,
  page,
  protocols,
)
from facesiam_jax.metrics import identification

# Random galleries that ranks are averaged over.
_DRAWS = 50


def score_pictures(
  similarities: Mapping[str, ArrayLike],
  identity_ids: np.ndarray,
  threshold: float | None,
  bands: curves.Bands | None,
) -> list[page.Picture]:
  """Returns the pictures of all pairs: histogram, ROC and DET.

  Args:
    similarities: name -> float [N, N]; the first is the one reported on.
    identity_ids: person of each image, int [N].
    threshold: decision threshold of the first.
    bands: of the first, or None.
  """
  pairs = protocols.all_pairs(identity_ids)
  systems: dict[str, figures.Scored] = {
    name: (np.asarray(similarity)[pairs.i, pairs.j], pairs.same)
    for name, similarity in similarities.items()
  }
  band = None if bands is None else (bands.fmr, bands.tar)
  shading = (
    " The shade is where the curve lies with 95% of resamples of people."
    if band is not None
    else ""
  )
  values, same = next(iter(systems.values()))
  return [
    _picture(
      "scores",
      "Scores",
      "How same-person and different-person pairs score. The less the two "
      "overlap, the better; the dashed line is the decision threshold.",
      figures.scores_figure(values, same, threshold=threshold),
    ),
    _picture(
      "roc",
      "ROC curve",
      "Every trade-off the scores allow between accepting the right person "
      "(up) and accepting strangers (right). On the grey line both error rates "
      f"are equal.{shading}",
      figures.roc_figure(systems, threshold=threshold, band=band),
    ),
    _picture(
      "det",
      "DET curve",
      "The two error rates against each other on normal-deviate axes, which "
      f"spread out the small rates. Lower left is better.{shading}",
      figures.det_figure(systems, threshold=threshold, band=band),
    ),
  ]


def search_pictures(
  similarities: Mapping[str, ArrayLike], identity_ids: np.ndarray
) -> list[page.Picture]:
  """Returns the pictures of identification, from one photo a person.

  Args:
    similarities: name -> float [N, N]; the first is the one reported on.
    identity_ids: person of each image, int [N].
  """
  people = np.unique(identity_ids).size
  ranks = {
    name: identification.cmc(similarity, identity_ids, draws=_DRAWS)
    for name, similarity in similarities.items()
  }
  found = [
    _picture(
      "cmc",
      "Ranks (CMC)",
      f"A photo is looked for among {people:,} people of whom one random photo "
      "each is known: how often its person is among the first so many; mean of "
      f"{_DRAWS} draws of those photos.",
      curve_figures.cmc_figure(ranks),
    )
  ]
  strangers = {
    name: curves.open_set_band(similarity, identity_ids)
    for name, similarity in similarities.items()
  }
  known = {n: band for n, band in strangers.items() if band is not None}
  if known:
    found.append(
      _picture(
        "open_set",
        "Strangers (FNIR by FPIR)",
        "Half of the people are enrolled with one random photo each, and "
        "photos of all are looked for: how many of those enrolled are missed, "
        "by how many strangers are taken for somebody. Lower left is better; "
        "the shade is the range over random galleries.",
        curve_figures.open_set_figure(known),
      )
    )
  return found


def calibration_picture(
  logits: np.ndarray,
  same: np.ndarray,
  bands: curves.Bands | None,
  metrics: Mapping[str, Any],
) -> page.Picture:
  """Returns the reliability diagram of a calibrated bundle.

  Args:
    logits: of all pairs, float [P].
    same: 1 = same person, [P].
    bands: intervals, or None.
    metrics: perhaps with cllr and min_cllr.
  """
  found = curves.reliability(logits, same)
  cost = ""
  if "cllr" in metrics:
    cost = (
      f" C_llr {metrics['cllr']:.3f} bits, {metrics['min_cllr']:.3f} with the "
      "best calibration of these scores."
    )
  return _picture(
    "reliability",
    "Reliability of the probabilities",
    "What the probabilities given came to, at even odds: on the dashed line "
    "they are right. Bars are 95% intervals over people where there are "
    f"enough. Expected calibration error {found.ece:.1%}.{cost}",
    curve_figures.reliability_figure(
      found, None if bands is None else bands.shares
    ),
  )


def embedding_pictures(
  embeddings: ArrayLike, identity_ids: np.ndarray
) -> list[page.Picture]:
  """Returns the densities of distances and the map of embeddings.

  Args:
    embeddings: float [N, D].
    identity_ids: person of each, int [N].
  """
  same = protocols.all_pairs(identity_ids).same
  density = curve_figures.distances_figure(curves.distances(embeddings), same)
  found = []
  if density is not None:
    found.append(
      _picture(
        "distances",
        "Distances",
        "Densities of the distances of both kinds of pair, their means and "
        "standard deviations, and dotted the normal distributions that have "
        "these. Where they cross is the maximum-likelihood threshold.",
        density,
      )
    )
  if np.shape(embeddings)[1] > 1:
    found.append(
      _picture(
        "map",
        "Map of the embeddings",
        "Embeddings on their two first principal components: of up to "
        f"{curve_figures.MOST_MAPPED} people, those with the most photos, each "
        "in a colour and mark, tied to their mean; others in grey. Most of "
        "what tells people apart lies outside this plane.",
        curve_figures.map_figure(embeddings, identity_ids),
      )
    )
  return found


def curves_picture(
  series: Mapping[str, figures.Series], unit: str
) -> page.Picture:
  """Returns the curves of a training by `unit`, "epoch" or "step"."""
  return _picture(
    "curves",
    "Training",
    "Loss and accuracy during training. Validation people do not occur in "
    "training; a growing gap between the lines is over-fitting.",
    figures.curves_figure(series, unit=unit),
  )


def pairs_picture(
  images: ArrayLike, samples: Sequence[protocols.SamplePair], threshold: float
) -> page.Picture:
  """Returns right decisions and the worst errors, as faces."""
  return _picture(
    "pairs",
    "Sample pairs",
    "Right decisions drawn at random, and the worst errors of each kind, each "
    "two people at most once. Under each pair: its score and the threshold.",
    face_figures.pairs_figure(images, samples, threshold=threshold),
  )


def _picture(name: str, title: str, caption: str, figure: Any) -> page.Picture:
  return page.Picture(name, title, caption, figures.png_bytes(figure))
