"""Measures a model bundle on people it has never seen; writes the report."""

import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import ml_collections
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.data import records, sets
from facesiam_jax.evaluation import (
  acquisition,
  baselines,
  embedding_cache,
  groups,
  protocols,
  run_curves,
  scores,
)
from facesiam_jax.faces import grading, photo, pixels
from facesiam_jax.metrics import scoring
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import provenance

# So many faces make 12 million pairs; a report keeps and draws each of them.
_MOST_TEST_IMAGES = 5_000
_EIGENFACE_IMAGES = 1_000
# Raw pixels and eigenfaces take larger faces at this side, and grey.
_BASELINE_SIDE = 64


@dataclasses.dataclass(frozen=True)
class Measured:
  """A bundle on the test people of its data set.

  Attributes:
    result: from `protocols.verification_report`, and "quality": the medians of
      what `faces.grading` measures in the pictures; of photos also
      "acquisition", from `acquisition.acquisition_report`.
    similarity: logits of all pairs, float32 [N, N].
    images: the test faces, uint8 [N, H, W, C].
    identity_ids: int32 [N].
    baselines: name -> similarity [N, N], on the same pairs.
    embeddings: float32 [N, D].
    image_ids: SHA-256 of each image's file or record, uint8 [N, 32]; None where
      they are not known, and the run then cannot be compared with another.
    names: of the people, by identity id.
  """

  result: dict[str, Any]
  similarity: np.ndarray
  images: np.ndarray
  identity_ids: np.ndarray
  baselines: dict[str, np.ndarray]
  embeddings: np.ndarray
  image_ids: np.ndarray | None = None
  names: tuple[str, ...] = ()


def load_data(
  bundle: bundle_lib.Bundle,
  name: str | None = None,
  *,
  any_alignment: bool = False,
  validation: bool = False,
) -> sets.DataSet:
  """Returns the data set a bundle was trained on, split as it was then.

  Args:
    bundle: a recogniser.
    name: of another data set, to take in its place; an imported bundle has none
      of its own.
    any_alignment: take faces that are framed otherwise than the bundle's.
    validation: with its published validation people, who otherwise are in no
      split of another data set.

  Raises:
    errors.UserError: if it was not trained here and no data set is named, or if
      the data set's faces are framed otherwise.
  """
  if not bundle.spec["config"] and not name:
    raise errors.UserError(
      "this --bundle was imported, so that no data set of its own is known; "
      "name one with --dataset, or give a folder of people's photos."
    )
  config = config_lib.default_config()
  config.image_size = bundle.input_size[0]
  config.dataset.channels = bundle.channels
  if bundle.spec["config"]:
    config = ml_collections.ConfigDict(bundle.spec["config"])
  if name:
    config.dataset.name = name
    config.dataset.num_validation = 0
    if validation:
      published = sets.num_published(config.dataset, "validation")
      config.dataset.num_validation = published
  data = sets.load(config.dataset, image_size=config.image_size, lazy=True)
  if name and not any_alignment and data.alignment != bundle.alignment:
    raise errors.UserError(
      f"the faces of --dataset={name} are framed as {data.alignment!r} and "
      f"this --bundle wants {bundle.alignment!r}; give a folder of the photos, "
      "in which faces are found and framed anew, or --cropped to take them as "
      "they are."
    )
  return data


def _check_number(num: int) -> None:
  if num > _MOST_TEST_IMAGES:
    raise errors.UserError(
      f"the data set has {num:,} test faces, and a report compares each with "
      f"each, which {_MOST_TEST_IMAGES:,} allow: give fewer test people, or "
      "--protocol=all_pairs, which writes the numbers alone."
    )


def measure(
  bundle: bundle_lib.Bundle, data: sets.DataSet, *, mirror: bool = False
) -> Measured:
  """Measures a bundle, raw pixels and eigenfaces on the same test pairs.

  Args:
    bundle: the recogniser.
    data: its data set; the test people must not have been trained on.
    mirror: average each embedding with that of the mirrored face.

  Returns:
    The measurements.

  Raises:
    errors.UserError: if there are fewer than two test people, or too many
      faces of them.
  """
  if len(data.test) < 2:
    raise errors.UserError(
      "the data set has fewer than two test people; give one that has more."
    )
  images, identity_ids = data.of(data.test)
  _check_number(len(images))
  image_ids = _image_ids(images)
  images = np.asarray(images)
  train_images, _ = data.of(data.train + data.validation)
  cuts = [photo.Cut(image, None) for image in images]
  found = _measured(bundle, cuts, identity_ids, mirror=mirror)
  return dataclasses.replace(
    found,
    baselines=_baselines(images, train_images),
    image_ids=image_ids,
    names=tuple(map(str, data.faces.names)),
  )


def _image_ids(images: Any) -> np.ndarray:
  """SHA-256 of the images' records, or of pixels in memory, uint8 [N, 32]."""
  if isinstance(images, records.RecordImages):
    return scores.digests(images.digests())
  return scores.digests(
    [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
  )


def measure_photos(
  bundle: bundle_lib.Bundle,
  cuts: Sequence[photo.Cut],
  identity_ids: np.ndarray,
  failed_ids: np.ndarray,
  reasons: Sequence[str],
  *,
  image_ids: np.ndarray | None = None,
  names: Sequence[str] = (),
  mirror: bool = False,
) -> Measured:
  """Measures a bundle on photos, with those that have no usable face.

  Args:
    bundle: the recogniser.
    cuts: the faces of the photos that have one, length N.
    identity_ids: their people, int [N]; none may have been trained on.
    failed_ids: the people of the other photos, int [F].
    reasons: what kept each of those from being used, length F.
    image_ids: SHA-256 of the files of the first, uint8 [N, 32].
    names: of the people, by identity id.
    mirror: average each embedding with that of the mirrored face.

  Returns:
    The measurements.

  Raises:
    errors.UserError: if there are fewer than two people, none with two usable
      photos, or too many faces.
  """
  people, counts = np.unique(identity_ids, return_counts=True)
  if len(people) < 2 or counts.max() < 2:
    raise errors.UserError(
      f"{len(people)} people with at most {counts.max(initial=0)} usable "
      "photos each allow no comparison; give two people or more, and two "
      "photos or more of each."
    )
  _check_number(len(cuts))
  found = _measured(bundle, cuts, identity_ids, mirror=mirror)
  report = acquisition.acquisition_report(
    found.similarity, identity_ids, failed_ids, reasons, _threshold(bundle)
  )
  return dataclasses.replace(
    found,
    result={**found.result, "acquisition": report},
    baselines=_baselines(found.images, ()),
    image_ids=image_ids,
    names=tuple(names),
  )


def with_groups(
  bundle: bundle_lib.Bundle,
  measured: Measured,
  path: str | os.PathLike[str],
  images: Mapping[str, str] | None = None,
) -> Measured:
  """Adds the error rates of groups of people to a measurement.

  Args:
    bundle: what was measured.
    measured: from `measure` or `measure_photos`.
    path: the table of groups, see `groups.read`.
    images: image -> person, for a table that names images.

  Raises:
    errors.UserError: as `groups.of_people`.
  """
  names = [measured.names[number] for number in measured.identity_ids]
  of = groups.of_people(path, sorted(set(names)), images)
  report = groups.group_report(
    measured.similarity,
    measured.identity_ids,
    [of[name] for name in names],
    _threshold(bundle),
  )
  return dataclasses.replace(
    measured, result={**measured.result, "groups": report}
  )


def _threshold(bundle: bundle_lib.Bundle) -> float | None:
  return None if bundle.threshold == math.inf else bundle.threshold


def _measured(
  bundle: bundle_lib.Bundle,
  cuts: Sequence[photo.Cut],
  identity_ids: np.ndarray,
  *,
  mirror: bool,
) -> Measured:
  """Returns the measurements, no baselines among them."""
  images = np.stack([cut.pixels for cut in cuts])
  embeddings = embedding_cache.embed(bundle, images, mirror=mirror)
  similarity = bundle.logits_matrix(embeddings, embeddings)
  result = protocols.verification_report(
    similarity, identity_ids, _threshold(bundle)
  )
  quality = grading.medians(cuts)
  known = {name: value for name, value in quality.items() if value is not None}
  if bundle.calibrated:
    result |= _cost(similarity, identity_ids)
  return Measured(
    result={**result, "quality": known},
    similarity=similarity,
    images=images,
    identity_ids=np.asarray(identity_ids),
    baselines={},
    embeddings=embeddings,
  )


def _cost(similarity: np.ndarray, identity_ids: np.ndarray) -> dict[str, float]:
  """The cost of the log likelihood ratios in bits, and what it could be."""
  pairs = protocols.all_pairs(identity_ids)
  llrs = similarity[pairs.i, pairs.j]
  return {
    "cllr": scoring.cllr(llrs, pairs.same),
    "min_cllr": scoring.min_cllr(llrs, pairs.same),
  }


def _small(images: Any) -> np.ndarray:
  """Returns faces as uint8 [N, H, W, 1], H at most `_BASELINE_SIDE`."""
  images = np.asarray(images)
  side = min(images.shape[1], _BASELINE_SIDE)
  if images.shape[1:] == (side, side, 1):
    return images
  resized = (
    cv2.resize(pixels.to_gray(np.squeeze(image)), (side, side),
               interpolation=cv2.INTER_AREA)
    for image in images
  )  # fmt: skip
  return np.stack(list(resized))[..., None]


def _baselines(images: np.ndarray, train_images: Any) -> dict[str, np.ndarray]:
  """Returns the similarities of methods that learn little or nothing."""
  images = _small(images)
  found = {"Raw pixels": baselines.raw_pixel_similarity(images)}
  if len(train_images) > 1:
    # All where they are few; evenly spread ones do as well for the axes.
    step = -(-len(train_images) // _EIGENFACE_IMAGES)
    few = _small(train_images[::step])
    found["Eigenfaces"] = baselines.pca_similarity(
      few,
      images,
      components=min(baselines.EIGENFACE_COMPONENTS, len(few) - 1),
    )
  return found


def write(
  out_dir: str | os.PathLike[str],
  bundle: bundle_lib.Bundle,
  measured: Measured,
  *,
  workdir: str | os.PathLike[str] | None = None,
  facts: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes the report of a measurement.

  Args:
    out_dir: where metrics.json, the pictures and report.html go.
    bundle: what was measured.
    measured: from `measure`.
    workdir: the run, for its curves; None leaves them out.
    facts: what else belongs to every figure, see `report.write_report`.

  Returns:
    The path of report.html.
  """
  # Loads matplotlib and Jinja2, which measuring alone does not need.
  from facesiam_jax.evaluation import report

  baselines = {}
  for name, similarity in measured.baselines.items():
    result = protocols.verification_report(
      similarity, measured.identity_ids, None
    )
    baselines[name] = report.System(similarity=similarity, result=result)
  return report.write_report(
    out_dir,
    measured.result,
    similarity=measured.similarity,
    identity_ids=measured.identity_ids,
    images=measured.images,
    curves=None if workdir is None else run_curves.training_curves(workdir),
    curves_unit="step",
    baselines=baselines,
    settings=bundle.spec["config"],
    fingerprint=bundle.fingerprint,
    made=provenance.facts(),
    image_ids=measured.image_ids,
    embeddings=measured.embeddings,
    calibrated=bundle.calibrated,
    facts=facts,
  )
