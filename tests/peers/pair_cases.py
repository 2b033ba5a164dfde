"""Losses of pairs and triplets against PML, torch and optax."""

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, reducers
from pytorch_metric_learning import losses as pml

from facesiam_jax import losses, mining, ops
from peers.compare import ROWS, Batch, Case

_EACH = reducers.DoNothingReducer()
_ROWS = jnp.arange(ROWS)


def _rows(part: dict[str, torch.Tensor]) -> torch.Tensor:
  return part["losses"].reshape(-1)


# Pairs


def _bce(b: Batch, **options) -> jax.Array:
  return losses.binary_cross_entropy(b["logit"], b["same"], **options)[0]


def _unit_distances(b: Batch) -> jax.Array:
  unit = ops.l2_normalize(b["x"])
  return ops.pairwise_euclidean_distance(unit, unit)


def _all_pairs(b: Batch, kind: int) -> jax.Array:
  """Contrastive loss of every pair of two images, by kind, 0 elsewhere."""
  masks = mining.all_triplets(b["ids"], b["ids"], anchor_rows=_ROWS)
  values, weights = losses.contrastive(
    _unit_distances(b).ravel(),
    masks.positives.ravel(),
    masks[kind].ravel().astype(jnp.float32),
  )
  return values * weights


def _contrastive_mean(b: Batch) -> jax.Array:
  masks = mining.all_triplets(b["ids"], b["ids"], anchor_rows=_ROWS)
  total = [jnp.sum(_all_pairs(b, k)) / jnp.sum(masks[k]) for k in (0, 1)]
  return total[0] + total[1]


def _pml_pairs(b: Batch) -> torch.Tensor:
  parts = pml.ContrastiveLoss(reducer=_EACH)(b["x"], b["ids"])
  found = torch.zeros(2, ROWS, ROWS, dtype=torch.float64)
  for kind, part in enumerate((parts["pos_loss"], parts["neg_loss"])):
    found[(kind, *part["indices"])] = _rows(part)
  return found


def _hinge_embedding(b: Batch) -> torch.Tensor:
  d = F.pairwise_distance(b["x"], b["y"], eps=0.0)
  sign = 2 * b["same"] - 1
  return F.hinge_embedding_loss(d, sign, margin=4.0, reduction="none")


def _row_contrastive(b: Batch) -> jax.Array:
  d = ops.euclidean_distance(b["x"], b["y"])
  return losses.contrastive(d, b["same"], margin=4.0)[0]


def _margin_loss(b: Batch) -> jax.Array:
  """Each pair as often as it is in a triplet, over those that cost."""
  pos, neg = mining.all_triplets(b["ids"], b["ids"], anchor_rows=_ROWS)
  weights = pos * jnp.sum(neg, axis=1, keepdims=True)
  weights += neg * jnp.sum(pos, axis=1, keepdims=True)
  values, weights = losses.margin_loss(
    _unit_distances(b).ravel(), pos.ravel(), weights.ravel()
  )
  return ops.masked_mean(values, weights * (values > 0))


_SQUARED = (
  "Hadsell et al. 2006, eq. 4, squares both terms, as ours does. PML's and "
  "torch's are the square root of ours, pair by pair: their gradient does not "
  "fall as a pair nears its goal."
)

PAIRS = [
  Case(
    "losses.binary_cross_entropy",
    "torch bce_with_logits(pos_weight)",
    "torch",
    lambda b: _bce(b, pos_weight=2.5),
    lambda b: F.binary_cross_entropy_with_logits(
      b["logit"],
      b["same"].double(),
      reduction="none",
      pos_weight=torch.tensor(2.5, dtype=torch.float64),
    ),
    by=("logit",),
  ),
  Case(
    "losses.binary_cross_entropy",
    "optax sigmoid_binary_cross_entropy",
    "jax",
    _bce,
    lambda b: optax.losses.sigmoid_binary_cross_entropy(b["logit"], b["same"]),
    by=("logit",),
  ),
  Case(
    "losses.contrastive",
    "PML ContrastiveLoss",
    "torch",
    lambda b: jnp.stack([_all_pairs(b, 0), _all_pairs(b, 1)]),
    lambda b: _pml_pairs(b).square(),
    by=("x",),
    plain=(
      _contrastive_mean,
      lambda b: pml.ContrastiveLoss()(b["x"], b["ids"]),
    ),
    verdict="not squared, other mean",
    why=_SQUARED + " PML's mean leaves out the pairs that cost nothing.",
  ),
  Case(
    "losses.contrastive",
    "torch hinge_embedding_loss",
    "torch",
    _row_contrastive,
    lambda b: _hinge_embedding(b).square(),
    by=("x", "y"),
    plain=(_row_contrastive, _hinge_embedding),
    verdict="not squared",
    why=_SQUARED,
  ),
  Case(
    "losses.margin_loss",
    "PML MarginLoss",
    "torch",
    _margin_loss,
    lambda b: pml.MarginLoss()(b["x"], b["ids"]),
    by=("x",),
    why="the mean is the paper's, over pairs that cost something; PML "
    "counts a pair once for each triplet it is in.",
  ),
]


# Triplets


def _all_triplets(b: Batch, function) -> tuple[jax.Array, jax.Array]:
  """Sum of a loss over all triplets, and of the triplets that cost."""
  compute = lambda p, n: function(p.ravel(), n.ravel())[0].reshape(p.shape)
  total = lambda f: jnp.sum(
    mining.sum_over_triplets(
      f,
      _unit_distances(b),
      b["ids"],
      b["ids"],
      anchor_rows=_ROWS,
      max_positives=ROWS - 1,
    )[0]
  )
  costly = lambda p, n: (compute(p, n) > 0).astype(jnp.float32)
  return total(compute), total(costly)


def _active_mean(b: Batch, function) -> jax.Array:
  total, count = _all_triplets(b, function)
  return total / jnp.maximum(count, 1.0)


def _hinge(margin: float):
  return lambda p, n: losses.triplet_margin(p, n, margin=margin)


def _facenet(b: Batch) -> jax.Array:
  x, y, z = (ops.l2_normalize(b[name]) for name in "xyz")
  return losses.triplet_margin(
    ops.squared_distance(x, y), ops.squared_distance(x, z)
  )[0]


def _torch_facenet(b: Batch) -> torch.Tensor:
  unit = [F.normalize(b[name]) for name in "xyz"]
  return F.triplet_margin_with_distance_loss(
    *unit,
    margin=0.2,
    reduction="none",
    distance_function=lambda p, q: (p - q).square().sum(1),
  )


def _as_run(b: Batch) -> jax.Array:
  return losses.csc413_as_run(b["x"], b["y"], b["z"])[0]


def _soft(b: Batch) -> jax.Array:
  return losses.soft_margin_triplet(
    ops.euclidean_distance(b["x"], b["y"]),
    ops.euclidean_distance(b["x"], b["z"]),
  )[0]


def _torch_soft(b: Batch) -> torch.Tensor:
  far = F.pairwise_distance(b["x"], b["z"], eps=0.0)
  near = F.pairwise_distance(b["x"], b["y"], eps=0.0)
  return F.soft_margin_loss(far - near, torch.ones(ROWS), reduction="none")


_XYZ = ("x", "y", "z")

TRIPLETS = [
  Case(
    "losses.triplet_margin",
    "torch triplet_margin_with_distance_loss",
    "torch",
    _facenet,
    _torch_facenet,
    by=_XYZ,
    why="with FaceNet's squared distances of unit vectors, margin 0.2.",
  ),
  Case(
    "losses.triplet_margin",
    "PML TripletMarginLoss",
    "torch",
    lambda b: _active_mean(b, _hinge(0.05)),
    lambda b: pml.TripletMarginLoss()(b["x"], b["ids"]),
    by=("x",),
    why="over all triplets, mean over those that cost something.",
  ),
  Case(
    "losses.triplet_margin",
    "PML TripletMarginLoss(power=2), mean of all",
    "torch",
    lambda b: ops.masked_mean(
      *losses.triplet_margin(
        ops.squared_distance(b["x"], b["y"]),
        ops.squared_distance(b["x"], b["z"]),
        margin=1.0,
      )
    ),
    lambda b: pml.TripletMarginLoss(
      margin=1.0,
      reducer=reducers.MeanReducer(),
      distance=distances.LpDistance(normalize_embeddings=False, power=2),
    )(
      torch.cat([b["x"], b["y"], b["z"]]),
      torch.zeros(3 * ROWS),
      tuple(torch.arange(ROWS) + ROWS * k for k in range(3)),
    ),
    by=_XYZ,
  ),
  Case(
    "losses.csc413_as_run",
    "torch triplet_margin_loss",
    "torch",
    _as_run,
    lambda b: F.triplet_margin_loss(b["x"], b["y"], b["z"], reduction="none"),
    by=_XYZ,
    verdict="same but for 1e-6",
    why="torch adds 1e-6 to every difference of coordinates.",
  ),
  Case(
    "losses.csc413_as_run",
    "optax triplet_margin_loss",
    "jax",
    _as_run,
    lambda b: optax.losses.triplet_margin_loss(b["x"], b["y"], b["z"]),
    by=_XYZ,
    verdict="same but for 1e-6",
    why="optax adds 1e-6 to the squared distance.",
  ),
  Case(
    "losses.soft_margin_triplet",
    "torch soft_margin_loss",
    "torch",
    _soft,
    _torch_soft,
    by=_XYZ,
  ),
  Case(
    "losses.soft_margin_triplet",
    "PML TripletMarginLoss(margin=0, smooth_loss=True)",
    "torch",
    lambda b: _active_mean(b, losses.soft_margin_triplet),
    lambda b: pml.TripletMarginLoss(margin=0.0, smooth_loss=True)(
      b["x"], b["ids"]
    ),
    by=("x",),
  ),
]


CASES = [*PAIRS, *TRIPLETS]
