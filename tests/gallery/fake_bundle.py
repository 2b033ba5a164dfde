"""A bundle of a few numbers: what tests need to fill a gallery."""

import jax.numpy as jnp
import numpy as np


def _cosine(x, y):
  return 20 * jnp.sum(x * y, axis=1) - 10


def _euclidean(x, y):
  return 2 - 4 * jnp.sqrt(jnp.sum(jnp.square(x - y), axis=1))


def _l1(x, y):
  return 1 - jnp.sum(jnp.abs(x - y), axis=1)


class FakeBundle:
  """Embeds a face as its pixels, and calls alike what is near.

  cosine: logit = 20 s - 10; euclidean: logit = 2 - 4 d; head: 1 less the L1
  distance.
  """

  input_size = (8, 8)
  channels = 1
  threshold = 0.0
  calibrated = True
  dim = 64
  thresholds = {}
  calibration = {}

  def __init__(self, metric="cosine", fingerprint="a" * 64):
    self.metric = metric
    self.fingerprint = fingerprint
    self.head = {"cosine": _cosine, "euclidean": _euclidean}.get(metric, _l1)

  def embed(self, images):
    """Returns centred pixels, float32 [N, 64], unit rows for "cosine"."""
    images = np.asarray(images)
    assert images.dtype == np.uint8
    rows = images.reshape(len(images), self.dim).astype(np.float32) / 255 - 0.5
    if self.metric == "cosine":
      # Row by row: NumPy 2.5 sums a batch in another order than one row.
      for row in rows:
        row /= np.linalg.norm(row)
    return rows

  def logits_from_scores(self, scores):
    """Returns the logits of gallery scores."""
    assert self.metric in ("cosine", "euclidean")
    if self.metric == "cosine":
      return 20 * scores - 10
    return 2 - 4 * np.sqrt(np.maximum(-scores, 0))


def faces(count, seed):
  """Returns random images, uint8 [count, 8, 8, 1]."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, 8, 8, 1), np.uint8)
