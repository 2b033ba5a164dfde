"""Losses of batches and classes against PML, torch and optax."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, miners, reducers
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.regularizers import LpRegularizer

from facesiam_jax import losses, mining, ops
from peers.compare import ROWS, Batch, Case

_EACH = reducers.DoNothingReducer()
_ROWS = jnp.arange(ROWS)


def _batch_wise(function, b: Batch, ids: str = "ids", **options) -> Any:
  return function(b["x"], b[ids], b["x"], b[ids], anchor_rows=_ROWS, **options)


def _mean(function, ids: str = "ids", **options):
  return lambda b: ops.masked_mean(*_batch_wise(function, b, ids, **options))


def _by_pairs(b: Batch, **options) -> jax.Array:
  """NT-Xent's mean over pairs, not anchors: weighs anchors by positives."""
  values, _ = _batch_wise(losses.nt_xent, b, **options)
  positives, _ = mining.all_triplets(b["ids"], b["ids"], anchor_rows=_ROWS)
  return ops.masked_mean(values, jnp.sum(positives, axis=1))


def _rows(part: dict[str, torch.Tensor]) -> torch.Tensor:
  return part["losses"].reshape(-1)


# Batches


def _two_images(b: Batch, norm_penalty: float, unit: bool = False) -> jax.Array:
  """N-pair loss as in the paper: one image of each person against another."""
  rows = jnp.full(ROWS // 2, -1)
  x, ids = b["x"], b["two"][::2]
  x = ops.l2_normalize(x) if unit else x
  return ops.masked_mean(
    *losses.n_pair(
      x[::2],
      ids,
      x[1::2],
      ids,
      anchor_rows=rows,
      norm_penalty=norm_penalty,
    )
  )


def _mined(b: Batch) -> jax.Array:
  masks = mining.multi_similarity(
    ops.pairwise_cosine_similarity(b["x"], b["x"]),
    b["ids"],
    b["ids"],
    anchor_rows=_ROWS,
  )
  return ops.masked_mean(
    *_batch_wise(
      losses.multi_similarity, b, pair_mask=masks.positives | masks.negatives
    )
  )


def _pml_mined(b: Batch) -> torch.Tensor:
  pairs = miners.MultiSimilarityMiner()(b["x"].detach(), b["ids"])
  return pml.MultiSimilarityLoss()(b["x"], b["ids"], pairs)


def _pml_rows(loss_class, ids: str = "ids", **options):
  loss = loss_class(reducer=_EACH, **options)
  return lambda b: _rows(loss(b["x"], b[ids])["loss"])


_KEEP = (
  "SimCLR's eq. 1 has two images a person, where both are the same (row "
  "above). With more, PML and optax leave a positive's fellow positives out "
  "of its denominator; SupCon's eq. 2 keeps them, as our default does. Ours "
  'is theirs with other_positives="drop" and the mean over pairs instead of '
  "anchors."
)
_UNIT = (
  "Sohn 2016, section 3, does not scale embeddings to length 1 and "
  "penalises their norm instead; PML's default does the former and not the "
  "latter, so that its loss cannot come near 0."
)

BATCHES = [
  Case(
    "losses.supcon",
    "PML SupConLoss",
    "torch",
    _mean(losses.supcon),
    lambda b: pml.SupConLoss()(b["x"], b["ids"]),
    by=("x",),
  ),
  Case(
    "losses.nt_xent",
    "PML SupConLoss(temperature=0.07)",
    "torch",
    _mean(losses.nt_xent, temperature=0.07),
    lambda b: pml.SupConLoss(temperature=0.07)(b["x"], b["ids"]),
    by=("x",),
  ),
  Case(
    "losses.nt_xent",
    "PML NTXentLoss, two images a person",
    "torch",
    _mean(losses.nt_xent, "two", temperature=0.07),
    lambda b: pml.NTXentLoss()(b["x"], b["two"]),
    by=("x",),
  ),
  Case(
    "losses.nt_xent",
    "optax ntxent, two images a person",
    "jax",
    _mean(losses.nt_xent, "two", temperature=0.07),
    lambda b: optax.losses.ntxent(b["x"], b["two"]),
    by=("x",),
  ),
  Case(
    "losses.nt_xent",
    "PML NTXentLoss",
    "torch",
    lambda b: _by_pairs(b, temperature=0.07, other_positives="drop"),
    lambda b: pml.NTXentLoss()(b["x"], b["ids"]),
    by=("x",),
    plain=(
      _mean(losses.nt_xent, temperature=0.07),
      lambda b: pml.NTXentLoss()(b["x"], b["ids"]),
    ),
    verdict="other denominator",
    why=_KEEP,
  ),
  Case(
    "losses.nt_xent",
    "optax ntxent",
    "jax",
    lambda b: _by_pairs(b, temperature=0.07, other_positives="drop"),
    lambda b: optax.losses.ntxent(b["x"], b["ids"]),
    by=("x",),
    plain=(
      _mean(losses.nt_xent, temperature=0.07),
      lambda b: optax.losses.ntxent(b["x"], b["ids"]),
    ),
    verdict="other denominator",
    why="as PML's.",
  ),
  Case(
    "losses.n_pair",
    "PML NPairsLoss",
    "torch",
    lambda b: _two_images(b, 0.0, unit=True),
    lambda b: pml.NPairsLoss()(b["x"], b["two"]),
    by=("x",),
    plain=(
      lambda b: _two_images(b, 0.002),
      lambda b: pml.NPairsLoss()(b["x"], b["two"]),
    ),
    verdict="normalised, no penalty",
    why=_UNIT,
  ),
  Case(
    "losses.n_pair",
    "PML NPairsLoss, not normalised, with LpRegularizer(power=2)",
    "torch",
    lambda b: _two_images(b, 0.002),
    lambda b: pml.NPairsLoss(
      distance=distances.DotProductSimilarity(normalize_embeddings=False),
      embedding_regularizer=LpRegularizer(power=2),
      embedding_reg_weight=0.001,
    )(b["x"], b["two"]),
    by=("x",),
    why="c/4 of two squared lengths a pair is c/2 of one an image: weight c/2.",
  ),
  Case(
    "losses.multi_similarity",
    "PML MultiSimilarityLoss",
    "torch",
    _mean(losses.multi_similarity),
    lambda b: pml.MultiSimilarityLoss()(b["x"], b["ids"]),
    by=("x",),
  ),
  Case(
    "losses.multi_similarity",
    "PML MultiSimilarityLoss with MultiSimilarityMiner",
    "torch",
    _mined,
    _pml_mined,
    by=("x",),
  ),
  Case(
    "losses.circle",
    "PML CircleLoss, each anchor",
    "torch",
    lambda b: _batch_wise(losses.circle, b)[0],
    _pml_rows(pml.CircleLoss, m=0.25, gamma=256),
    by=("x",),
  ),
  Case(
    "losses.circle",
    "PML CircleLoss",
    "torch",
    _mean(losses.circle, margin=0.4, scale=80.0),
    lambda b: pml.CircleLoss()(b["x"], b["ids"]),
    by=("x",),
    plain=(_mean(losses.circle), lambda b: pml.CircleLoss()(b["x"], b["ids"])),
    verdict="other defaults",
    why="ours are the paper's for faces (0.25, 256), PML's those for "
    "fine-grained retrieval (0.4, 80).",
  ),
]


# Classes


def _with(loss: torch.nn.Module, name: str, value: torch.Tensor) -> Any:
  """Puts a tensor, with its gradient, in a loss's parameter's place."""
  delattr(loss, name)
  setattr(loss, name, value)
  loss.cast_types = lambda *unused: None
  return loss


def _pml_classes(loss_class, **options):
  def theirs(b: Batch) -> torch.Tensor:
    loss = loss_class(num_classes=10, embedding_size=8, **options)
    return _with(loss, "W", b["centers"].T)(b["x"], b["ids"])

  return theirs


def _pml_sub_center(b: Batch) -> torch.Tensor:
  loss = pml.SubCenterArcFaceLoss(num_classes=10, embedding_size=8)
  centers = b["sub_centers"].reshape(-1, 8)
  return _with(loss, "W", centers.T)(b["x"], b["ids"])


def _pml_proxy_anchor(b: Batch) -> torch.Tensor:
  loss = pml.ProxyAnchorLoss(num_classes=10, embedding_size=8)
  return _with(loss, "proxies", b["centers"])(b["x"], b["ids"])


def _classes(function, centers: str = "centers", **options):
  return lambda b: ops.masked_mean(
    *function(b["x"], b[centers], b["ids"], **options)
  )


_PML_SPHERE = dict(margin=4, scale=1)
_DEGREES = 28.6
_RADIANS = _DEGREES * 3.141592653589793 / 180
_BOTH = ("x", "centers")

CLASSES = [
  Case(
    "losses.softmax_cross_entropy",
    "torch cross_entropy",
    "torch",
    lambda b: losses.softmax_cross_entropy(b["logits"], b["ids"])[0],
    lambda b: F.cross_entropy(b["logits"], b["ids"], reduction="none"),
    by=("logits",),
  ),
  Case(
    "losses.softmax_cross_entropy",
    "optax softmax_cross_entropy_with_integer_labels",
    "jax",
    lambda b: losses.softmax_cross_entropy(b["logits"], b["ids"])[0],
    lambda b: optax.losses.softmax_cross_entropy_with_integer_labels(
      b["logits"], b["ids"]
    ),
    by=("logits",),
  ),
  Case(
    "losses.proxy_anchor",
    "PML ProxyAnchorLoss",
    "torch",
    lambda b: ops.masked_mean(
      *losses.proxy_anchor(b["centers"], jnp.arange(10), b["x"], b["ids"])
    ),
    _pml_proxy_anchor,
    by=_BOTH,
  ),
  Case(
    "losses.cosface",
    "PML CosFaceLoss",
    "torch",
    _classes(losses.cosface),
    _pml_classes(pml.CosFaceLoss),
    by=_BOTH,
  ),
  Case(
    "losses.arcface",
    "PML ArcFaceLoss",
    "torch",
    _classes(losses.arcface, margin=_RADIANS),
    _pml_classes(pml.ArcFaceLoss),
    by=_BOTH,
    plain=(
      _classes(losses.arcface, margin=0.5),
      _pml_classes(pml.ArcFaceLoss, margin=0.5),
    ),
    verdict="margin in degrees",
    why="the paper's 0.5 is in radians, as ours; PML's default 28.6 is in "
    "degrees, and margin=0.5 there is next to none.",
  ),
  Case(
    'losses.arcface(gradient="straight_through")',
    "PML ArcFaceLoss",
    "torch",
    _classes(losses.arcface, margin=_RADIANS, gradient="straight_through"),
    _pml_classes(pml.ArcFaceLoss),
    plain=(
      lambda b: jax.grad(
        lambda x: _classes(
          losses.arcface, margin=_RADIANS, gradient="straight_through"
        )({**b, "x": x})
      )(b["x"]),
      lambda b: torch.autograd.grad(
        _pml_classes(pml.ArcFaceLoss)({**b, "x": b["x"].requires_grad_()}),
        b["x"],
      )[0],
    ),
    verdict="other gradient",
    why="the value is the same; the figure is that of the gradients, ours "
    "on demand that of a plain cosine. PML's is the paper's, and so is our "
    "default (row above).",
  ),
  Case(
    "losses.combined_margin",
    "PML ArcFaceLoss",
    "torch",
    _classes(losses.combined_margin, m2=_RADIANS, m3=0.0),
    _pml_classes(pml.ArcFaceLoss),
    by=_BOTH,
  ),
  Case(
    "losses.combined_margin",
    "PML CosFaceLoss",
    "torch",
    _classes(losses.combined_margin, m2=0.0, m3=0.35),
    _pml_classes(pml.CosFaceLoss),
    by=_BOTH,
  ),
  Case(
    "losses.sphereface",
    "PML SphereFaceLoss",
    "torch",
    _classes(losses.sphereface, annealing=0.0),
    _pml_classes(pml.SphereFaceLoss, **_PML_SPHERE),
    by=_BOTH,
    plain=(
      _classes(losses.sphereface),
      _pml_classes(pml.SphereFaceLoss, **_PML_SPHERE),
    ),
    verdict="no annealing",
    why="PML's is the paper's eq. 7; ours with annealing=0 is it too. Our "
    "default 5 is where the annealing of the authors' training file "
    "ends.",
  ),
  Case(
    "losses.sub_center",
    "PML SubCenterArcFaceLoss",
    "torch",
    _classes(losses.sub_center, "sub_centers", margin=_RADIANS),
    _pml_sub_center,
    by=("x", "sub_centers"),
  ),
]

CASES = [*BATCHES, *CLASSES]
