"""Systems of the CelebA benchmark: pixels, fisherfaces, bundles."""

import dataclasses
import pathlib
from collections.abc import Callable, Set
from typing import Any

import celeba_faces
import celeba_people
import ml_collections
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors, metrics
from facesiam_jax.data import listing, sets

SIDE = 32
COMPONENTS = (50, 100, 200, 400)


@dataclasses.dataclass(frozen=True)
class System:
  """What faces are compared by.

  Attributes:
    embed: RGB uint8 [N, S, S, 3], in ArcFace's frame -> float [N, D].
    compare: rows [A, D] and [B, D] -> similarity [A, B].
    about: for the result file.
  """

  embed: Callable[[np.ndarray], np.ndarray]
  compare: Callable[[np.ndarray, np.ndarray], np.ndarray]
  about: dict[str, Any]


def _rows(images: np.ndarray) -> np.ndarray:
  faces = celeba_faces.gray(images, SIDE)
  return faces.reshape(len(faces), -1) / 255


def _negative_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)
  return -np.sqrt(np.maximum(squares - 2 * a @ b.T, 0))


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  return unit(a) @ unit(b).T


def pixels() -> System:
  """Returns the distance of pixels, grey and small."""
  return System(_rows, _negative_distance, {"side": SIDE})


def fisherfaces(data_dir: str) -> System:
  """Fits fisherfaces to the training people that recipes have.

  Principal components, as many as tell the validation people apart best, then
  Fisher's discriminants, compared by their cosine.

  References: Belhumeur, Hespanha and Kriegman 1997, Eigenfaces vs. fisherfaces.
  """
  from sklearn import decomposition, discriminant_analysis, pipeline

  (images, people), (other, other_people) = celeba_faces.training(
    data_dir, SIDE
  )
  flat = lambda faces: faces.reshape(len(faces), -1) / 255
  i, j = np.triu_indices(len(other), 1)
  fits, errors_of = {}, {}
  for components in COMPONENTS:
    fit = pipeline.make_pipeline(
      decomposition.PCA(components, svd_solver="covariance_eigh"),
      discriminant_analysis.LinearDiscriminantAnalysis(),
    ).fit(flat(images), people)
    rows = fit.transform(flat(other))
    scores = _cosine(rows, rows)[i, j]
    found = metrics.eer(scores, other_people[i] == other_people[j]).rocch
    fits[components], errors_of[components] = fit, found
  best = min(errors_of, key=lambda components: errors_of[components])
  about = {
    "side": SIDE,
    "components": best,
    "validation_eer": errors_of,
    "training_people": len(set(people.tolist())),
    "training_images": len(images),
  }
  return System(
    lambda images: fits[best].transform(_rows(images)), _cosine, about
  )


def recogniser(
  path: pathlib.Path,
  data_dir: str,
  cache: pathlib.Path,
  kept_out: Set[str],
) -> System:
  """Opens a bundle, or that of a workdir.

  Args:
    path: of either.
    data_dir: folder of tfds data sets, for who it was trained on.
    cache: where embeddings are kept.
    kept_out: CelebA's numbers of those it must not have been trained on.

  Raises:
    UserError: if it is none, its faces are framed in a way that cannot be cut
      out of ArcFace's, or it was trained on a test person or a distractor.
  """
  inside = path / "bundle"
  bundle = bundle_lib.load(inside if inside.is_dir() else path)
  if bundle.alignment not in celeba_faces.FRAMES:
    raise errors.UserError(
      f"{path} takes faces framed as {bundle.alignment!r}, and those measured"
      f" on can be cut to {', '.join(celeba_faces.FRAMES)}: give another."
    )
  about = {
    "fingerprint": bundle.fingerprint,
    "alignment": bundle.alignment,
    "input": [*bundle.input_size, bundle.channels],
    "encoder": bundle.spec["encoder"],
    "training_people": _check_training(bundle, path, data_dir, kept_out),
  }
  embed = celeba_faces.Embedder(bundle, cache)
  return System(embed, bundle.logits_matrix, about)


def _check_training(
  bundle: bundle_lib.Bundle,
  path: pathlib.Path,
  data_dir: str,
  kept_out: Set[str],
) -> int | None:
  """Returns how many people it was trained on, none of those it must not be."""
  if not bundle.spec["config"]:
    return None
  config = ml_collections.ConfigDict(bundle.spec["config"]).dataset
  config.data_dir = data_dir
  data = sets.load(config, image_size=8, lazy=True)
  trained = {listing.canonical(data.faces.names[p]) for p in data.train}
  wrong = sorted(trained & kept_out)
  if wrong:
    raise errors.UserError(
      f"{path} was trained on {len(wrong)} of the people who are measured on,"
      f" beginning with {', '.join(wrong[:3])}: train it with"
      f" --config.dataset.name={celeba_people.CELEBA},{celeba_people.WILD}"
      " --config.dataset.min_images=2 and the list of exclusions."
    )
  return len(data.train)
