"""Measures a model bundle on people it has never seen; writes the report."""

import dataclasses
import os
import pathlib
from typing import Any

import ml_collections
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.data import sets
from facesiam_jax.evaluation import baselines, protocols
from facesiam_jax.faces import grading, photo
from facesiam_jax.training import metric_writer

# A similarity matrix of so many faces takes 1.6 GB.
_MOST_TEST_IMAGES = 20_000
_EIGENFACE_IMAGES = 5_000


@dataclasses.dataclass(frozen=True)
class Measured:
  """A bundle on the test people of its data set.

  Attributes:
    result: from `protocols.verification_report`, and "quality": the medians of
      what `faces.grading` measures in the pictures.
    similarity: logits of all pairs, float32 [N, N].
    images: the test faces, uint8 [N, H, W, C].
    identity_ids: int32 [N].
    baselines: name -> similarity [N, N], on the same pairs.
  """

  result: dict[str, Any]
  similarity: np.ndarray
  images: np.ndarray
  identity_ids: np.ndarray
  baselines: dict[str, np.ndarray]


def load_data(
  bundle: bundle_lib.Bundle, name: str | None = None
) -> sets.DataSet:
  """Returns the data set a bundle was trained on, split as it was then.

  Args:
    bundle: a recogniser that was trained here.
    name: of another data set, to take in its place.

  Raises:
    errors.UserError: if it was not trained here.
  """
  if not bundle.spec["config"]:
    raise errors.UserError(
      "this --bundle was imported, so that no data set of its own is known; "
      "measure it on people of yours with facesiam calibrate."
    )
  config = ml_collections.ConfigDict(bundle.spec["config"])
  if name:
    config.dataset.name = name
  return sets.load(config.dataset, image_size=config.image_size)


def _in_memory(images: Any) -> np.ndarray:
  """Returns the test faces as an array; each is compared with each."""
  if len(images) > _MOST_TEST_IMAGES:
    raise errors.UserError(
      f"the data set has {len(images):,} test faces, and a report compares each"
      f" with each, which {_MOST_TEST_IMAGES:,} allow: prepare it with fewer"
      " test people."
    )
  return np.asarray(images)


def measure(bundle: bundle_lib.Bundle, data: sets.DataSet) -> Measured:
  """Measures a bundle, raw pixels and eigenfaces on the same test pairs.

  Args:
    bundle: the recogniser.
    data: its data set; the test people must not have been trained on.

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
  images = _in_memory(images)
  train_images, _ = data.of(data.train + data.validation)
  embeddings = bundle.embed(images)
  similarity = bundle.logits_matrix(embeddings, embeddings)
  result = protocols.verification_report(
    similarity, identity_ids, bundle.threshold
  )
  quality = grading.medians([photo.Cut(image, None) for image in images])
  known = {name: value for name, value in quality.items() if value is not None}
  return Measured(
    result={**result, "quality": known},
    similarity=similarity,
    images=images,
    identity_ids=identity_ids,
    baselines=_baselines(images, train_images),
  )


def _baselines(images: np.ndarray, train_images: Any) -> dict[str, np.ndarray]:
  """Returns the similarities of methods that learn little or nothing."""
  found = {"Raw pixels": baselines.raw_pixel_similarity(images)}
  if len(train_images) > 1:
    # All where they are few; evenly spread ones do as well for the axes.
    step = -(-len(train_images) // _EIGENFACE_IMAGES)
    few = np.asarray(train_images[::step])
    found["Eigenfaces"] = baselines.pca_similarity(
      few,
      images,
      components=min(baselines.EIGENFACE_COMPONENTS, len(few) - 1),
    )
  return found


def training_curves(
  workdir: str | os.PathLike[str],
) -> dict[str, tuple[list[float], list[float]]] | None:
  """Returns a run's curves of loss and accuracy by step, None if it has none.

  Args:
    workdir: the run's directory.

  Returns:
    "training_loss", "validation_accuracy", ... -> (steps, values).
  """
  curves: dict[str, tuple[list[float], list[float]]] = {}
  labels = {"train": "training", "validation": "validation"}
  for row in metric_writer.read_metrics(workdir):
    for name in ("loss", "accuracy"):
      series = curves.setdefault(f"{labels[row['split']]}_{name}", ([], []))
      series[0].append(row["step"])
      series[1].append(row[name])
  return curves or None


def lowest(steps: list[float], losses: list[float]) -> tuple[float, float]:
  """Returns where a noisy curve is lowest, and how low, by a running mean.

  Args:
    steps: where the loss was measured, rising, at least one.
    losses: its values.

  Returns:
    (step, value) of the lowest mean over a tenth of the curve; the step is in
    the middle of that tenth.
  """
  width = max(1, len(losses) // 10)
  kernel = np.full(width, 1.0 / width)
  smooth = np.convolve(np.asarray(losses, np.float64), kernel, mode="valid")
  first = int(np.argmin(smooth))
  return float(steps[first + width // 2]), float(smooth[first])


def write(
  out_dir: str | os.PathLike[str],
  bundle: bundle_lib.Bundle,
  measured: Measured,
  *,
  workdir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Writes the report of a measurement.

  Args:
    out_dir: where metrics.json, the pictures and report.html go.
    bundle: what was measured.
    measured: from `measure`.
    workdir: the run, for its curves; None leaves them out.

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
    curves=None if workdir is None else training_curves(workdir),
    curves_unit="step",
    baselines=baselines,
    settings=bundle.spec["config"],
    fingerprint=bundle.fingerprint,
  )
