"""What TensorBoard shows of the validation people: histograms and triplets."""

from typing import Any

import numpy as np

# Of so many images all pairs are compared.
_MOST = 512
_TRIPLETS = 4


def _units(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns embeddings of unit length, and their lengths before; float64."""
  x = np.asarray(embeddings, np.float64)
  lengths = np.linalg.norm(x, axis=1)
  return x / np.maximum(lengths, 1e-12)[:, None], lengths


def _few(count: int) -> np.ndarray:
  """Returns which images are compared: all, or some spread evenly."""
  return np.unique(np.linspace(0, count - 1, min(count, _MOST)).astype(int))


def histograms(
  embeddings: np.ndarray, identity_ids: np.ndarray
) -> dict[str, np.ndarray]:
  """Returns numbers whose histograms tell how a training goes.

  Args:
    embeddings: float [N, D], N >= 1.
    identity_ids: integers [N].

  Returns:
    "length" of the embeddings; their cosines "same_person" and
    "different_people", of at most 512 images spread evenly. What has no
    example is left out.
  """
  few = _few(len(embeddings))
  units, lengths = _units(np.asarray(embeddings)[few])
  ids = np.asarray(identity_ids)[few]
  i, j = np.triu_indices(len(few), 1)
  cosines = np.sum(units[i] * units[j], axis=1)
  same = ids[i] == ids[j]
  found = {
    "length": lengths,
    "same_person": cosines[same],
    "different_people": cosines[~same],
  }
  return {name: values for name, values in found.items() if len(values)}


def triplets(
  images: Any, embeddings: np.ndarray, identity_ids: np.ndarray
) -> np.ndarray | None:
  """Returns the triplets that the network gets wrong the most.

  Of at most 512 images, anchors with their least alike image of the same
  person and their most alike of another; those anchors for which the other is
  nearer by the most.

  Args:
    images: uint8 [N, H, W, C].
    embeddings: float [N, D].
    identity_ids: integers [N].

  Returns:
    uint8 [4 H, 3 W, C]: a triplet a row (fewer rows where there are fewer
    anchors); None where there is no triplet.
  """
  few = _few(len(embeddings))
  units, _ = _units(np.asarray(embeddings)[few])
  ids = np.asarray(identity_ids)[few]
  cosines = units @ units.T
  same = ids[:, None] == ids[None, :]
  positive = np.where(same & ~np.eye(len(few), dtype=bool), cosines, np.inf)
  negative = np.where(same, -np.inf, cosines)
  violation = negative.max(axis=1) - positive.min(axis=1)
  valid = np.flatnonzero(np.isfinite(violation))
  if not len(valid):
    return None
  anchors = valid[np.argsort(-violation[valid], kind="stable")][:_TRIPLETS]
  rows = np.stack(
    [anchors, positive[anchors].argmin(1), negative[anchors].argmax(1)], axis=1
  )
  faces = np.asarray(images[few[rows.reshape(-1)]])
  height, width, channels = faces.shape[1:]
  grid = faces.reshape(len(anchors), 3, height, width, channels)
  return grid.transpose(0, 2, 1, 3, 4).reshape(-1, 3 * width, channels)
