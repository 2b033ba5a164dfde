"""One training step, written for one device of the mesh, and its scan.

Draw, gather, augmentation, encoder, loss, gradient and update are one pure
function; `parallel.pmap` maps it. Nothing here runs on the host.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from facesiam_jax import augment, glasses, ops, parallel, preprocess, warping
from facesiam_jax.data import resident, streaming
from facesiam_jax.metrics import collapse
from facesiam_jax.training import objectives
from facesiam_jax.training import state as state_lib

# What a random number is for; folded into the step's key.
_DRAW, _AUGMENT, _DROPOUT, _NEW_PEOPLE, _GLASSES = range(5)


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The static parts of a step.

  Attributes:
    encoder: Flax module, images -> embeddings.
    head: Flax module, two embeddings -> logit.
    objective: what is drawn and minimised.
    optimizer: Optax transformation.
    standardize: arguments of `preprocess.standardize`.
    augment: arguments of `augment.augment`.
    new_people: arguments of `augment.new_people`.
    glasses: share of the faces that get drawn glasses, 0..1.
    seed: of every random draw.
    ema_decay: of the parameters' moving average, 0 = off.
  """

  encoder: Any
  head: Any
  objective: objectives.Objective
  optimizer: optax.GradientTransformation
  standardize: dict[str, Any]
  augment: dict[str, Any]
  new_people: dict[str, Any]
  glasses: float
  seed: int
  ema_decay: float = 0.0

  def draw_key(self) -> jax.Array:
    """Returns the key of the draws, the same at every step.

    The objective folds the step in, so that it can shuffle by epochs.
    """
    return jax.random.fold_in(jax.random.key(self.seed), _DRAW)

  def step_key(self, purpose: int, step: jax.Array | int) -> jax.Array:
    """Returns the key of a step for one purpose."""
    key = jax.random.fold_in(jax.random.key(self.seed), purpose)
    return jax.random.fold_in(key, step)


def training_images(
  recipe: Recipe, images: jax.Array, rows: jax.Array, step: jax.Array | int
) -> jax.Array:
  """Turns drawn faces into what the encoder is trained on.

  Args:
    recipe: the static parts.
    images: the drawn faces, uint8 [b, H, W, C].
    rows: their indices in the global batch, int32 [b].
    step: number of the step.

  Returns:
    float32 [b, H, W, C]; row i depends on images[i], rows[i] and step alone.
  """
  key = lambda purpose: recipe.step_key(purpose, step)
  pixels = preprocess.to_float(images)
  pixels = augment.new_people(
    pixels,
    key(_NEW_PEOPLE),
    rows // recipe.objective.rows_per_person,
    **recipe.new_people,
  )
  pixels = glasses.draw_glasses(
    pixels, key(_GLASSES), rows, probability=recipe.glasses
  )
  pixels = augment.augment(pixels, key(_AUGMENT), rows, **recipe.augment)
  # The backward pass reads them again.
  pixels = warping.settled(pixels)
  return preprocess.standardize(pixels, **recipe.standardize)


def apply_head(recipe: Recipe, params: Any) -> Callable[..., jax.Array]:
  """Returns the head as a function of two batches of embeddings."""
  return lambda x, y: recipe.head.apply({"params": params["head"]}, x, y)


def _embed(
  recipe: Recipe,
  params: Any,
  batch_stats: Any,
  images: jax.Array,
  rows: jax.Array,
  dropout_key: jax.Array,
) -> tuple[jax.Array, Any]:
  """Runs the encoder in training mode; returns embeddings and statistics."""
  variables = {"params": params["encoder"]}
  if batch_stats:
    variables["batch_stats"] = batch_stats
  embeddings, updates = recipe.encoder.apply(
    variables,
    images,
    train=True,
    rows=rows,
    rngs={"dropout": dropout_key},
    mutable=["batch_stats"],
  )
  return embeddings, updates.get("batch_stats", batch_stats)


def _gathered(
  embeddings: jax.Array, ids: jax.Array, rows: jax.Array, params: Any
) -> objectives.Embedded:
  return objectives.Embedded(
    own=embeddings,
    own_ids=ids,
    own_rows=rows,
    columns=lax.all_gather(embeddings, parallel.AXIS, tiled=True),
    column_ids=lax.all_gather(ids, parallel.AXIS, tiled=True),
    params=params["objective"],
  )


def _spread(recipe: Recipe, columns: jax.Array) -> jax.Array:
  """How far apart the global batch lies, as the head compares it, 0..1."""
  if recipe.head.metric == "cosine":
    columns = ops.l2_normalize(columns)
  return collapse.collapse_statistics(columns).spread


def _update(
  recipe: Recipe, state: state_lib.TrainState, grads: Any, batch_stats: Any
) -> state_lib.TrainState:
  updates, opt_state = recipe.optimizer.update(
    grads, state.opt_state, state.params
  )
  params = optax.apply_updates(state.params, updates)
  ema_params = state.ema_params
  if recipe.ema_decay:
    # Warmed up as (1 + n) / (10 + n), so that the start does not linger.
    step = state.step.astype(jnp.float32)
    decay = jnp.minimum(recipe.ema_decay, (1.0 + step) / (10.0 + step))
    ema_params = jax.tree.map(
      lambda old, new: decay * old + (1.0 - decay) * new, ema_params, params
    )
  return state_lib.TrainState(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema_params=ema_params,
  )


def _own_faces(
  recipe: Recipe,
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
  recipe: Recipe,
  state: state_lib.TrainState,
  data: resident.Resident | streaming.Batch,
) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
  """Makes one step; only inside a function mapped by `parallel.pmap`.

  Args:
    recipe: the static parts.
    state: the same on every device.
    data: the training split, the same on every device; or the device's own
      rows of the step's batch.

  Returns:
    (state, metrics): the new state and the global batch's loss, accuracy,
    gradient norm and spread of the embeddings (`metrics.collapse`), float32
    scalars, all the same on every device.
  """
  rows = parallel.own_rows(recipe.objective.batch_rows)
  faces, ids = _own_faces(recipe, data, rows, state.step)
  images = training_images(recipe, faces, rows, state.step)
  dropout_key = recipe.step_key(_DROPOUT, state.step)

  def local_loss(params: Any) -> tuple[jax.Array, Any]:
    embeddings, batch_stats = _embed(
      recipe, params, state.batch_stats, images, rows, dropout_key
    )
    batch = _gathered(embeddings, ids, rows, params)
    terms = recipe.objective.terms(apply_head(recipe, params), batch)
    # The weights do not depend on the parameters, so the global sum may be
    # taken outside the differentiation.
    total = lax.psum(lax.stop_gradient(jnp.sum(terms.weights)), parallel.AXIS)
    loss = jnp.sum(terms.values * terms.weights) / jnp.maximum(total, 1.0)
    return loss, (terms, batch.columns, batch_stats)

  (loss, (terms, columns, batch_stats)), grads = jax.value_and_grad(
    local_loss, has_aux=True
  )(state.params)
  grads = lax.psum(grads, parallel.AXIS)
  metrics = {
    "loss": lax.psum(loss, parallel.AXIS),
    "accuracy": lax.pmean(jnp.mean(terms.correct), parallel.AXIS),
    "grad_norm": optax.tree.norm(grads),
    "spread": _spread(recipe, columns),
  }
  return _update(recipe, state, grads, batch_stats), metrics


def make_train_steps(
  recipe: Recipe,
  mesh: jax.sharding.Mesh,
  num_steps: int,
  *,
  streamed: bool = False,
) -> Callable[..., tuple[state_lib.TrainState, dict[str, jax.Array]]]:
  """Returns a mapped, jitted function that makes `num_steps` steps.

  Args:
    recipe: the static parts.
    mesh: from `parallel.make_mesh`.
    num_steps: steps a call, >= 1. One chunk length must be kept for the whole
      run: a loop and a scan of the same step differ in the last bits.
    streamed: whether the data are a `streaming.Batch`, split over the devices,
      or a `resident.Resident`, a copy on each.

  Returns:
    (state, data) -> (state, metrics [num_steps]); the state is donated.

  Raises:
    ValueError: for more than one step a call on a batch that is for one.
  """
  if streamed and num_steps != 1:
    raise ValueError(f"a batch is for one step, not for {num_steps}.")

  def steps(
    state: state_lib.TrainState, data: resident.Resident | streaming.Batch
  ) -> tuple[state_lib.TrainState, dict[str, jax.Array]]:
    body = lambda carry, _: train_step(recipe, carry, data)
    if num_steps == 1:
      state, metrics = body(state, None)
      return state, jax.tree.map(lambda x: x[None], metrics)
    return lax.scan(body, state, None, length=num_steps)

  spec = jax.sharding.PartitionSpec()
  own = jax.sharding.PartitionSpec(parallel.AXIS)
  return parallel.pmap(
    steps,
    mesh,
    in_specs=(spec, own if streamed else spec),
    out_specs=(spec, spec),
    donate_argnums=(0,),
  )
