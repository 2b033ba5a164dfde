"""Inputs out of the ordinary, where libraries part: each with its number."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning import miners
from sklearn import metrics as peer

from facesiam_jax import losses, metrics, mining, ops
from peers.compare import Edge
from peers.metric_cases import _pml

_X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
_ALONE, _ONE = np.arange(6, dtype=np.int32), np.zeros(6, np.int32)
_TINY = np.full((1, 4), 1e-20, np.float32)


def _mean(function, ids: np.ndarray) -> float:
  rows = jnp.arange(len(ids))
  values = function(_X, ids, _X, ids, anchor_rows=rows)
  return float(ops.masked_mean(*values))


def _supcon_by_hand() -> float:
  """Khosla et al.'s eq. 2 for six images of one person, in NumPy."""
  x = _X.astype(np.float64)
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  z = x @ x.T / 0.1
  others = ~np.eye(6, dtype=bool)
  total = np.log(np.sum(np.exp(z), axis=1, where=others))
  return float(np.mean(total - np.mean(z, axis=1, where=others)))


def _torch_slope(function) -> float:
  x = torch.from_numpy(_X).requires_grad_()
  function(x, torch.from_numpy(_X)).sum().backward()
  return float(torch.linalg.norm(x.grad[0]))


def _slope(function) -> float:
  total = lambda x: jnp.sum(function(x, _X))
  return float(jnp.linalg.norm(jax.grad(total)(_X)[0]))


def _many(width: int) -> tuple[np.ndarray, np.ndarray]:
  """Sixty-four vectors of length 1, of which two of two people are near."""
  x = np.random.default_rng(1).normal(size=(64, width))
  x[4] = x[0] + 0.5 * x[4]
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  return x.astype(np.float32), np.arange(64, dtype=np.int32) // 4


def _drawn(width: int) -> float:
  x, ids = _many(width)
  found = mining.distance_weighted(
    ops.pairwise_euclidean_distance(x, x),
    ids,
    ids,
    anchor_rows=jnp.arange(64),
    key=jax.random.key(0),
    dimension=width,
    positive="hardest",
  )
  return float(jnp.mean(found.weights))


def _pml_drawn(width: int) -> float:
  x, ids = (torch.from_numpy(a) for a in _many(width))
  found = miners.DistanceWeightedMiner()(x, ids.long())
  return len(set(found[0].tolist())) / 64


def _log_loss_at(logit: float) -> float:
  p = 1 / (1 + np.exp(-logit))
  return float(peer.log_loss([0, 1], [p, 0.5]))


def _collapsed() -> Any:
  ids = np.repeat(np.arange(12), 2)
  return {"x": np.ones((24, 8), np.float32), "ids": ids}


EDGES = [
  Edge(
    "losses.supcon",
    "PML SupConLoss",
    "one person only",
    lambda: _mean(losses.supcon, _ONE),
    lambda: pml.SupConLoss()(
      torch.from_numpy(_X), torch.from_numpy(_ONE).long()
    ),
    _supcon_by_hand(),
    "eq. 2 sums over all other images, negatives or not; PML returns 0 "
    "for a batch without negatives.",
  ),
  Edge(
    "losses.nt_xent",
    "optax ntxent",
    "no two images of a person",
    lambda: _mean(losses.nt_xent, _ALONE),
    lambda: optax.losses.ntxent(jnp.asarray(_X), jnp.asarray(_ALONE)),
    0.0,
    "a mean over no pairs: optax divides 0 by 0, and one such batch "
    "ruins the weights.",
  ),
  Edge(
    "ops.euclidean_distance, norm of the gradient",
    "torch pairwise_distance",
    "x = y",
    lambda: _slope(ops.euclidean_distance),
    lambda: _torch_slope(F.pairwise_distance),
    0.0,
    "there is no direction to go: 0 is a subgradient. torch's 1e-6 makes "
    "all coordinates move the same way.",
  ),
  Edge(
    "ops.euclidean_distance",
    "torch pairwise_distance",
    "x = y",
    lambda: jnp.max(ops.euclidean_distance(_X, _X)),
    lambda: F.pairwise_distance(*[torch.from_numpy(_X)] * 2).max(),
    0.0,
    "a distance of a point to itself is 0; torch's is 1e-6 sqrt(D).",
  ),
  Edge(
    "ops.l2_normalize, length of the result",
    "torch normalize",
    "length 2e-20",
    lambda: jnp.linalg.norm(ops.l2_normalize(_TINY)),
    lambda: F.normalize(torch.from_numpy(_TINY)).norm(),
    1.0,
    "torch divides by at least 1e-12, so that short vectors stay short.",
  ),
  Edge(
    "ops.cosine_similarity",
    "torch cosine_similarity",
    "x = y of length 2e-20",
    lambda: ops.cosine_similarity(_TINY, _TINY)[0],
    lambda: F.cosine_similarity(*[torch.from_numpy(_TINY)] * 2)[0],
    1.0,
    "the cosine does not depend on lengths; torch's does below 1e-8.",
  ),
  Edge(
    "mining.distance_weighted, share of anchors with a triplet",
    "PML DistanceWeightedMiner",
    "64 random rows of width 512, two of two people 0.5 apart",
    lambda: _drawn(512),
    lambda: _pml_drawn(512),
    1.0,
    "PML scales all weights by the largest of the matrix, forbidden pairs "
    "too, and leaves an anchor out whose own weights are then 0 or whose "
    "negatives are all beyond 1.4; ours scales each anchor's by its own "
    "largest, and draws evenly where all are beyond. The paper leaves no "
    "anchor out.",
  ),
  Edge(
    "metrics.nll",
    "scikit-learn log_loss of sigmoids",
    "logits 60 for another person and 0 for the same",
    lambda: metrics.nll([60.0, 0.0], [0, 1]),
    lambda: _log_loss_at(60.0),
    (60 + np.log(2)) / 2,
    "60 nats; a probability rounds to 1 on the way, "
    "and scikit-learn then clips it.",
  ),
  Edge(
    "metrics.precision_at_1",
    "PML AccuracyCalculator",
    "all embeddings equal",
    lambda: metrics.precision_at_1(np.ones((24, 24)), _collapsed()["ids"]),
    lambda: _pml("precision_at_1")(_collapsed()),
    0.0,
    "nothing was told apart; PML ranks ties in the order that topk "
    "happens to give. The paper is silent on ties.",
  ),
]
