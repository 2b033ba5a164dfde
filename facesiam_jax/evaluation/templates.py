"""Templates: one embedding for several photos of a person.

References: Whitelam et al. 2017, IARPA Janus Benchmark-B (templates and media);
Crosswhite et al. 2017, Template adaptation for face verification.
"""

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax.metrics import checks


def pool(
  embeddings: ArrayLike,
  template_ids: ArrayLike,
  *,
  media_ids: ArrayLike | None = None,
  unit: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
  """Averages the embeddings of each template.

    t = n(mean over its media of the mean over the medium's photos of n(x)),
  n(x) = x / |x|. A medium (a video, of which there are many alike frames)
  counts once, however many photos it has.
  Batch meaning: templates are independent.

  Args:
    embeddings: of photos, float [N, D], finite.
    template_ids: template of each photo, integer or string [N].
    media_ids: medium of each photo, integer or string [N]; the same id in two
      templates is two media. None takes each photo for a medium.
    unit: whether rows are normalised before and after; without, plain means,
      for embeddings that are compared by Euclidean distance.

  Returns:
    (templates float32 [T, D], their ids [T], ascending).

  Raises:
    ValueError: naming the argument, for a wrong shape, NaN or infinity.

  Degenerate input: a zero row stays zero, and so does the template of
  embeddings that cancel.
  Example:
    >>> pool([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], ["a", "b", "b"])[0].tolist()
    [[1.0, 0.0], [0.0, 1.0]]

  References: see the module.
  """
  rows = checks.check_floats("embeddings", embeddings, 2).astype(np.float64)
  ids = checks.check_ids("template_ids", template_ids)
  media = np.arange(ids.size)
  if media_ids is not None:
    media = np.unique(checks.check_ids("media_ids", media_ids),
                      return_inverse=True)[1]  # fmt: skip
  if not len(rows) == ids.size == media.size:
    raise ValueError(
      "embeddings, template_ids and media_ids must have one length, got "
      f"{len(rows)}, {ids.size} and {media.size}"
    )
  known, place = np.unique(ids, return_inverse=True)
  rows = unit_rows(rows) if unit else rows
  both, medium = np.unique(
    np.stack([place, media]), axis=1, return_inverse=True
  )
  of_media = _means(rows, medium.ravel(), both.shape[1])
  templates = _means(of_media, both[0], known.size)
  templates = unit_rows(templates) if unit else templates
  return templates.astype(np.float32), known


def unit_rows(rows: ArrayLike) -> np.ndarray:
  """Returns rows [N, D] at length 1, float64; those of zeros stay."""
  rows = np.asarray(rows, np.float64)
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.where(norms > 0, norms, 1.0)


def _means(rows: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
  """Returns the mean row of each group, float64 [count, D]."""
  sums = np.zeros((count, rows.shape[1]))
  np.add.at(sums, group, rows)
  return sums / np.bincount(group, minlength=count)[:, None]
