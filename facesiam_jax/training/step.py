"""One training step, written for one device of the mesh, and its scan.

Draw, gather, augmentation, encoder, loss, gradient and update are one pure
function; `parallel.pmap` maps it. Nothing here runs on the host.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from facesiam_jax import encoders, ops, parallel
from facesiam_jax.data import resident, streaming
from facesiam_jax.metrics import collapse
from facesiam_jax.training import embedding, objectives
from facesiam_jax.training import optimizer as optimizer_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import state as state_lib


def _gathered(
  recipe: recipe_lib.Recipe,
  embeddings: jax.Array,
  ids: jax.Array,
  rows: jax.Array,
  params: Any,
  step: jax.Array,
) -> objectives.Embedded:
  return objectives.Embedded(
    own=embeddings,
    own_ids=ids,
    own_rows=rows,
    columns=lax.all_gather(embeddings, parallel.AXIS, tiled=True),
    column_ids=lax.all_gather(ids, parallel.AXIS, tiled=True),
    params=params["objective"],
    key=recipe.step_key(recipe_lib.CLASSES, step),
    num_people=recipe.num_people,
  )


def _spread(recipe: recipe_lib.Recipe, columns: jax.Array) -> jax.Array:
  """How far apart the global batch lies, as the head compares it, 0..1."""
  if recipe.head.metric == "cosine":
    columns = ops.l2_normalize(columns)
  return collapse.collapse_statistics(columns).spread


def _reduced(recipe: recipe_lib.Recipe, grads: Any) -> tuple[Any, jax.Array]:
  """Sums gradients over the devices; returns them and their global norm.

  A device's gradient by its own shard is already that of the global batch.
  """
  specs = recipe_lib.partition(recipe, grads)
  grads = jax.tree.map(
    lambda g, spec: lax.psum(g, parallel.AXIS) if spec == P() else g,
    grads,
    specs,
  )
  square = lambda g, spec: (
    jnp.sum(jnp.square(g))
    if spec == P()
    else lax.psum(jnp.sum(jnp.square(g)), parallel.AXIS)
  )
  squares = jax.tree.leaves(jax.tree.map(square, grads, specs))
  return grads, jnp.sqrt(sum(squares, jnp.float32(0)))


def _moved_average(
  recipe: recipe_lib.Recipe, state: state_lib.TrainState, params: Any
) -> Any:
  if not recipe.ema_decay:
    return state.ema_params
  # Warmed up as (1 + n) / (10 + n), so that the start does not linger.
  step = state.step.astype(jnp.float32)
  decay = jnp.minimum(recipe.ema_decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(
    lambda old, new: decay * old + (1.0 - decay) * new,
    state.ema_params,
    params,
  )


def _update(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  grads: Any,
  norm: jax.Array,
  batch_stats: Any,
  sound: jax.Array,
) -> state_lib.TrainState:
  """Makes the update; where the batch is not sound, only the step is counted.

  What is frozen has no gradient in `grads`. In a branch XLA's CPU forms Adam's
  moments where the old ones lie; with a choice for each number instead it kept
  a copy of the old ones from the start of the step on.
  """

  def made(
    state: state_lib.TrainState, grads: Any, batch_stats: Any
  ) -> state_lib.TrainState:
    params, opt_state = recipe.optimizer.update(
      grads,
      state.opt_state,
      state.params,
      step=state.step,
      norm=norm,
      frozen=optimizer_lib.ENCODER not in grads,
    )
    return state_lib.TrainState(
      step=state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      ema_params=_moved_average(recipe, state, params),
    )

  def kept(
    state: state_lib.TrainState, grads: Any, batch_stats: Any
  ) -> state_lib.TrainState:
    del grads, batch_stats
    return dataclasses.replace(state, step=state.step + 1)

  return lax.cond(sound, made, kept, state, grads, batch_stats)


def _own_faces(
  recipe: recipe_lib.Recipe,
  data: resident.Resident | streaming.Batch,
  rows: jax.Array,
  step: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the device's own faces of a step, uint8, and who they show."""
  if isinstance(data, streaming.Batch):
    return data.images, data.identity_ids
  own = recipe.objective.draw(data.index, recipe.draw_key(), step)[rows]
  images, ids = jnp.asarray(data.images), jnp.asarray(data.identity_ids)
  return images[own], ids[own]


def train_step(
  recipe: recipe_lib.Recipe,
  state: state_lib.TrainState,
  data: resident.Resident | streaming.Batch,
  *,
  frozen: bool = False,
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """Makes one step; only inside a function mapped by `parallel.pmap`.

  Args:
    recipe: the static parts.
    state: as `recipe.partition` says: the same on every device, but for the
      device's own shard of what the objective has sharded.
    data: the training split, the same on every device; or the device's own
      rows of the step's batch.
    frozen: whether the encoder stays as it is, running statistics included.

  Returns:
    (state, metrics): the new state and the global batch's loss, accuracy,
    gradient norm and spread of the embeddings (`metrics.collapse`), float32
    scalars, all the same on every device. Where the loss or the norm is not
    finite, no update is made on any device: only the step is counted.
  """
  rows = parallel.own_rows(recipe.objective.batch_rows)
  faces, ids = _own_faces(recipe, data, rows, state.step)
  if frozen:
    embeddings = embedding.frozen(recipe, state, faces, rows)
  else:
    embeddings, pull_back = embedding.forward(recipe, state, faces, rows)

  def local_loss(params: Any, embeddings: jax.Array) -> tuple[jax.Array, Any]:
    batch = _gathered(recipe, embeddings, ids, rows, params, state.step)
    terms = recipe.objective.terms(recipe_lib.apply_head(recipe, params), batch)
    # The weights do not depend on the parameters, so the global sum may be
    # taken outside the differentiation.
    total = lax.psum(lax.stop_gradient(jnp.sum(terms.weights)), parallel.AXIS)
    loss = jnp.sum(terms.values * terms.weights) / jnp.maximum(total, 1.0)
    return loss, (terms, batch.columns)

  rest = {name: state.params[name] for name in ("head", "objective")}
  (loss, (terms, columns)), (grads, by_embeddings) = jax.value_and_grad(
    local_loss, argnums=(0, 1), has_aux=True
  )(rest, embeddings)
  batch_stats = state.batch_stats
  if not frozen:
    grads[optimizer_lib.ENCODER], batch_stats = pull_back(by_embeddings)
  grads, norm = _reduced(recipe, grads)
  loss = lax.psum(loss, parallel.AXIS)
  metrics = {
    "loss": loss,
    "accuracy": lax.pmean(jnp.mean(terms.correct), parallel.AXIS),
    "grad_norm": norm,
    "spread": _spread(recipe, columns),
  }
  sound = jnp.isfinite(loss) & jnp.isfinite(norm)
  return _update(recipe, state, grads, norm, batch_stats, sound), metrics


def make_train_steps(
  recipe: recipe_lib.Recipe,
  mesh: jax.sharding.Mesh,
  num_steps: int,
  *,
  streamed: bool = False,
  frozen: bool = False,
  state_spec: Any = None,
) -> Callable[..., tuple[state_lib.TrainState, dict[str, jax.Array]]]:
  """Returns a mapped, jitted function that makes `num_steps` steps.

  Args:
    recipe: the static parts.
    mesh: from `parallel.make_mesh`.
    num_steps: steps a call, >= 1. One chunk length must be kept for the whole
      run: a loop and a scan of the same step differ in the last bits.
    streamed: whether the data are a `streaming.Batch`, split over the devices,
      or a `resident.Resident`, a copy on each.
    frozen: whether the encoder stays as it is in these steps.
    state_spec: how the state lies on the mesh, from `recipe.partition`; None
      where nothing is sharded.

  Returns:
    (state, data) -> (state, metrics [num_steps]); the state is donated.

  Raises:
    ValueError: for more than one step a call on a batch that is for one.
  """
  if streamed and num_steps != 1:
    raise ValueError(f"a batch is for one step, not for {num_steps}.")
  if state_spec is None:
    state_spec = P()

  def steps(
    state: state_lib.TrainState, data: resident.Resident | streaming.Batch
  ) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
    body = lambda carry, _: train_step(recipe, carry, data, frozen=frozen)
    if num_steps == 1:
      state, metrics = body(state, None)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return lax.scan(body, state, None, length=num_steps)

  return parallel.pmap(
    steps,
    mesh,
    in_specs=(state_spec, P(parallel.AXIS) if streamed else P()),
    out_specs=(state_spec, P()),
    donate_argnums=(0,),
    compiler_options=encoders.compiler_options(parallel.platform(mesh)),
  )
