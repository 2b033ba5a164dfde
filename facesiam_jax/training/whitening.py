"""Closed-form fit of an encoder's last layer: within-class whitening.

Photos of one person differ by pose, expression and light, and in the same
ways from person to person. The layer divides the features by that scatter, so
that what remains large between two faces is what sets people apart. It needs
no iteration and few people, and gradient training may go on from there.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from facesiam_jax import encoders, errors, preprocess
from facesiam_jax.training import recipe as recipe_lib

KIND = "whitening"
_BLOCK = 64
# Of each feature: float32 twice, float64 as it is, centred, within people.
_BYTES = 32


def within_class_whitening(
  features: np.ndarray,
  identity_ids: np.ndarray,
  *,
  dim: int,
  shrinkage: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Fits y = W^T x + b, whose scatter within a person is about the identity.

    V = the `dim` main axes of all features (PCA),  S = V^T S_w V,
    W = V L,  L L^T = (S + shrinkage tr(S) / dim I)^-1,  b = -W^T mean
  with S_w the mean over images of (x - person's mean)(x - person's mean)^T.

  Args:
    features: float [N, F].
    identity_ids: person of each row, integers [N].
    dim: size of the result, at most F.
    shrinkage: what is added to the scatter, as a fraction of its mean
      eigenvalue, > 0; keeps axes along which nobody happened to vary from
      being blown up.

  Returns:
    (W, b): float64 [F, dim] and [dim].

  Raises:
    ValueError: if the shapes do not fit, a value is out of range or not
      finite, or no person has two images that differ.

  References: Hatch, Kajarekar and Stolcke 2006, Within-Class Covariance
    Normalization for SVM-based Speaker Recognition.
  """
  features = np.asarray(features, np.float64)
  _check(features, identity_ids, dim, shrinkage)
  mean = features.mean(axis=0)
  centred = features - mean
  _, people, counts = np.unique(
    identity_ids, return_inverse=True, return_counts=True
  )
  sums = np.zeros((len(counts), features.shape[1]))
  np.add.at(sums, people, centred)
  within = centred - (sums / counts[:, None])[people]
  # eigh sorts upwards: the main axes are the last.
  axes = np.linalg.eigh(centred.T @ centred)[1][:, -dim:]
  within = within @ axes
  scatter = within.T @ within / len(within)
  size = np.trace(scatter) / dim
  if size <= 0:
    raise ValueError(
      "no person has two images that differ, so how one person's photos "
      "vary cannot be learned."
    )
  inverse = np.linalg.inv(scatter + shrinkage * size * np.eye(dim))
  kernel = axes @ np.linalg.cholesky((inverse + inverse.T) / 2)
  return kernel, -mean @ kernel


def _check(
  features: np.ndarray, identity_ids: np.ndarray, dim: int, shrinkage: float
) -> None:
  if features.ndim != 2 or np.shape(identity_ids) != features.shape[:1]:
    raise ValueError(
      f"features must be [N, F] with one identity each, got {features.shape} "
      f"and {np.shape(identity_ids)}."
    )
  if not np.isfinite(features).all():
    raise ValueError("features holds a value that is not finite.")
  if not 1 <= dim <= features.shape[1]:
    raise ValueError(
      f"dim must be 1 to {features.shape[1]}, the number of features, got "
      f"{dim}."
    )
  if shrinkage <= 0:
    raise ValueError(f"shrinkage must be positive, got {shrinkage}.")


def _blocks(
  images: np.ndarray, function: Callable[..., jax.Array]
) -> Iterator[np.ndarray]:
  """Applies a function of (images, rows) to blocks of one fixed shape."""
  for first in range(0, len(images), _BLOCK):
    part = images[first : first + _BLOCK]
    padding = ((0, _BLOCK - len(part)), *((0, 0),) * 3)
    rows = np.arange(first, first + _BLOCK, dtype=np.int32)
    yield np.asarray(function(np.pad(part, padding), rows))[: len(part)]


def _features(
  recipe: recipe_lib.Recipe, variables: Any, images: np.ndarray, num_copies: int
) -> np.ndarray:
  """Features of the images and their augmented copies, [N (1 + copies), F]."""
  features = functools.partial(
    recipe.encoder.apply, variables, method="features"
  )

  jit = functools.partial(jax.jit, compiler_options=encoders.compiler_options())

  @jit
  def plain(images: jax.Array, rows: jax.Array) -> jax.Array:
    del rows
    pixels = preprocess.to_float(images)
    return features(preprocess.standardize(pixels, **recipe.standardize))

  @jit
  def copied(images: jax.Array, rows: jax.Array, copy: jax.Array) -> jax.Array:
    return features(recipe_lib.training_images(recipe, images, rows, copy))

  parts = list(_blocks(images, plain))
  for copy in range(num_copies):
    one = functools.partial(copied, copy=jnp.int32(copy))
    parts.extend(_blocks(images, one))
  return np.concatenate(parts)


def fit_projection(
  recipe: recipe_lib.Recipe,
  params: Any,
  images: np.ndarray,
  identity_ids: np.ndarray,
  *,
  num_copies: int,
  shrinkage: float,
  memory_gb: float = math.inf,
) -> Any:
  """Replaces the encoder's projection by the whitening of the training people.

  Args:
    recipe: the static parts; its encoder has a method `features` and a dense
      layer "projection".
    params: {"encoder": ..., "head": ...}.
    images: training faces, uint8 [N, H, W, C].
    identity_ids: person of each, int32 [N].
    num_copies: augmented copies of each image that are fitted too; copy i is
      augmented as in step i of a run.
    shrinkage: see `within_class_whitening`.
    memory_gb: the most that the features may take on the host.

  Returns:
    The parameters with another projection.

  Raises:
    errors.UserError: if the encoder cannot be fitted so, or the people do not
      suffice.
  """
  encoder = params["encoder"]
  if not hasattr(recipe.encoder, "features") or "projection" not in encoder:
    raise errors.UserError(
      'config.start.kind = "whitening" needs an encoder with a method '
      '`features` and a dense layer "projection", such as "gabor"; '
      f"{type(recipe.encoder).__name__} has none."
    )
  old = encoder["projection"]
  takes = len(images) * (1 + num_copies) * old["kernel"].shape[0] * _BYTES
  if takes > memory_gb * 1e9:
    raise errors.UserError(
      f"the features of {len(images):,} faces and their copies take"
      f" {takes / 1e9:.3g} GB, more than"
      f" config.dataset.memory_gb={memory_gb:g}:"
      " raise it, or lower config.start.num_copies."
    )
  features = _features(recipe, {"params": encoder}, images, num_copies)
  try:
    kernel, bias = within_class_whitening(
      features,
      np.tile(identity_ids, 1 + num_copies),
      dim=old["kernel"].shape[1],
      shrinkage=shrinkage,
    )
  except ValueError as error:
    raise errors.UserError(
      f"the encoder's projection cannot be fitted: {error}"
    ) from error
  projection = {
    "kernel": jnp.asarray(kernel, jnp.float32),
    "bias": jnp.asarray(bias, jnp.float32),
  }
  return {**params, "encoder": {**encoder, "projection": projection}}
