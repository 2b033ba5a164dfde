"""The encoder within a step: embeddings, and gradients pulled back through it.

A loss that compares the rows of a batch needs all embeddings at once, while
activations may fit for few rows only. With `accumulate` parts each device
embeds its rows part by part and keeps the embeddings alone; the loss and its
gradient by the embeddings are of the whole batch; then each part is embedded
again and the gradient pulled back through it (GradCache). So every objective,
mining included, sees the same batch as without, for one more forward pass.

Batch normalisation is of each part, over all devices: its gradient is not that
of the one big batch. Everything else of an encoder goes row by row, dropout
too, and is equal to it.

References: Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under
  Memory Limited Setup.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import state as state_lib

PullBack = Callable[[jax.Array], tuple[Any, Any]]


def _variables(params: Any, batch_stats: Any) -> dict[str, Any]:
  variables = {"params": params}
  if batch_stats:
    variables["batch_stats"] = batch_stats
  return variables


def _embed(
  recipe: recipe_lib.Recipe,
  params: Any,
  batch_stats: Any,
  faces: jax.Array,
  rows: jax.Array,
  step: jax.Array,
) -> tuple[jax.Array, Any]:
  """Runs the encoder in training mode; returns embeddings and statistics."""
  embeddings, updates = recipe.encoder.apply(
    _variables(params, batch_stats),
    recipe_lib.training_images(recipe, faces, rows, step),
    train=True,
    rows=rows,
    rngs={"dropout": recipe.step_key(recipe_lib.DROPOUT, step)},
    mutable=["batch_stats"],
  )
  embeddings = embeddings.astype(jnp.float32)
  return embeddings, updates.get("batch_stats", batch_stats)


def frozen(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  faces: jax.Array,
  rows: jax.Array,
) -> jax.Array:
  """Embeds faces by an encoder that stays as it is.

  Args:
    recipe: the static parts.
    state: of the run.
    faces: the device's own, uint8 [b, H, W, C].
    rows: their indices in the global batch, int32 [b].

  Returns:
    Embeddings, float32 [b, D]: by the running statistics, without dropout.
  """
  embeddings = recipe.encoder.apply(
    _variables(state.params["encoder"], state.batch_stats),
    recipe_lib.training_images(recipe, faces, rows, state.step),
    train=False,
  )
  return embeddings.astype(jnp.float32)


def forward(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  faces: jax.Array,
  rows: jax.Array,
) -> tuple[jax.Array, PullBack]:
  """Embeds faces in training mode.

  Args:
    recipe: the static parts.
    state: of the run.
    faces: the device's own, uint8 [b, H, W, C], b a multiple of
      `recipe.accumulate`.
    rows: their indices in the global batch, int32 [b].

  Returns:
    (embeddings, pull_back): float32 [b, D], and a function from the loss's
    gradient by them, float32 [b, D], to its gradient by the encoder's
    parameters and the encoder's new running statistics.
  """
  if recipe.accumulate > 1:
    return _in_parts(recipe, state, faces, rows)
  embeddings, pull, batch_stats = jax.vjp(
    lambda params: _embed(
      recipe, params, state.batch_stats, faces, rows, state.step
    ),
    state.params["encoder"],
    has_aux=True,
  )
  return embeddings, lambda gradient: (pull(gradient)[0], batch_stats)


def _in_parts(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  faces: jax.Array,
  rows: jax.Array,
) -> tuple[jax.Array, PullBack]:
  """Embeds part by part, and once more on the way back."""
  params = state.params["encoder"]
  split = lambda x: x.reshape(recipe.accumulate, -1, *x.shape[1:])
  parts = (split(faces), split(rows))
  embeddings = lax.map(
    lambda part: _embed(
      recipe, params, state.batch_stats, part[0], part[1], state.step
    )[0],
    parts,
  )

  def add(carry: Any, part: Any) -> tuple[Any, None]:
    total, batch_stats = carry
    own_faces, own_rows, gradient = part
    _, pull, batch_stats = jax.vjp(
      lambda p: _embed(recipe, p, batch_stats, own_faces, own_rows, state.step),
      params,
      has_aux=True,
    )
    return (jax.tree.map(jnp.add, total, pull(gradient)[0]), batch_stats), None

  def pull_back(gradient: jax.Array) -> tuple[Any, Any]:
    start = (jax.tree.map(jnp.zeros_like, params), state.batch_stats)
    return lax.scan(add, start, (*parts, split(gradient)))[0]

  return embeddings.reshape(len(rows), -1), pull_back
