"""Embedding faces on all devices, and measuring a network on other people."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec as P

from facesiam_jax import encoders, parallel, sampling
from facesiam_jax.encoders import inference
from facesiam_jax.training import objectives
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import split as split_lib
from facesiam_jax.training import state as state_lib

# The most rows that a device embeds at once.
_BLOCK = 64


def make_embedder(
  recipe: recipe_lib.Recipe,
  settings: inference.Settings,
  mesh: jax.sharding.Mesh,
) -> Callable[[state_lib.TrainState, Any], np.ndarray]:
  """Returns a function that embeds faces, each device some of them.

  Args:
    recipe: its encoder.
    settings: of the embeddings.
    mesh: from `parallel.make_mesh`; may span processes.

  Returns:
    (state, uint8 faces [N, H, W, C]) -> float32 [N, D], on every process;
    to be called by all of them with the same. Each reads its own rows.
  """

  def block(variables: Any, images: jax.Array) -> jax.Array:
    own = inference.embed(recipe.encoder, variables, images, settings)
    return lax.all_gather(own, parallel.AXIS, tiled=True)

  mapped = parallel.pmap(
    block,
    mesh,
    in_specs=(P(), P(parallel.AXIS)),
    out_specs=P(),
    compiler_options=encoders.compiler_options(parallel.platform(mesh)),
  )

  def embedder(state: state_lib.TrainState, images: Any) -> np.ndarray:
    variables = parallel.replicate(recipe_lib.encoder_variables(state), mesh)
    total = len(images)
    size = mesh.size * min(_BLOCK, -(-total // mesh.size))
    own = parallel.process_rows(size, mesh)
    parts = []
    for first in range(0, total, size):
      # Padded with the last face.
      rows = np.minimum(first + own, total - 1)
      part = parallel.split(np.asarray(images[rows]), size, mesh)
      parts.append(np.asarray(mapped(variables, part))[: total - first])
    return np.concatenate(parts)

  return embedder


def make_measure(
  recipe: recipe_lib.Recipe,
  settings: inference.Settings,
  validation: split_lib.Split,
  mesh: jax.sharding.Mesh,
) -> Callable[[state_lib.TrainState], tuple[dict[str, float], np.ndarray]]:
  """Returns a function that measures a state on the validation people.

  The examples are drawn once, from the seed, so that the curve moves with the
  network alone; there is no augmentation and no dropout.

  Args:
    recipe: from `recipe.make_recipe`.
    settings: of the embeddings; their views are not averaged here.
    validation: images of people that are not trained on.
    mesh: from `parallel.make_mesh`.

  Returns:
    state -> ({"loss", "accuracy"}, embeddings of all validation images).
  """
  embedder = make_embedder(
    recipe,
    dataclasses.replace(settings, mirror=False, shift=0.0, scale=0.0),
    mesh,
  )
  index = sampling.index_identities(validation.identity_ids)
  numbers = np.unique(validation.identity_ids, return_inverse=True)[1]
  key = jax.random.fold_in(jax.random.key(recipe.seed), recipe_lib.EVAL)
  rows = np.asarray(recipe.objective.draw_eval(index, key))
  ids = jnp.asarray(numbers[rows], jnp.int32)

  @jax.jit
  def judge(head: Any, embeddings: jax.Array) -> tuple[jax.Array, jax.Array]:
    batch = objectives.Embedded(
      own=embeddings,
      own_ids=ids,
      own_rows=jnp.arange(len(rows)),
      columns=embeddings,
      column_ids=ids,
      # Of training people, who are not these.
      params={},
    )
    apply = recipe_lib.apply_head(recipe, {"head": head})
    terms = recipe.objective.eval_terms(apply, batch)
    total = jnp.maximum(jnp.sum(terms.weights), 1.0)
    loss = jnp.sum(terms.values * terms.weights) / total
    return loss, jnp.mean(terms.correct)

  def measure(
    state: state_lib.TrainState,
  ) -> tuple[dict[str, float], np.ndarray]:
    embeddings = embedder(state, validation.images)
    head = jax.device_get(state.eval_params["head"])
    loss, accuracy = judge(head, embeddings[rows])
    return {"loss": float(loss), "accuracy": float(accuracy)}, embeddings

  return measure
