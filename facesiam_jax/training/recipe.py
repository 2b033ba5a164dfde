"""The static parts of a run, built from its config, and the state they make."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from facesiam_jax import (
  augment,
  encoders,
  errors,
  fusion,
  glasses,
  heads,
  parallel,
  preprocess,
)
from facesiam_jax.encoders import inference
from facesiam_jax.training import objectives
from facesiam_jax.training import optimizer as optimizer_lib
from facesiam_jax.training import state as state_lib

# What a random number is for; folded into the key.
DRAW, AUGMENT, DROPOUT, NEW_PEOPLE, GLASSES, CLASSES = range(6)
INIT, EVAL, OBJECTIVE = 100, 101, 102


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The static parts of a step.

  Attributes:
    encoder: Flax module, images -> embeddings.
    head: Flax module, two embeddings -> logit.
    objective: what is drawn and minimised.
    optimizer: gradients -> parameters.
    standardize: arguments of `preprocess.standardize`.
    augment: arguments of `augment.augment`.
    new_people: arguments of `augment.new_people`.
    glasses: share of the faces that get drawn glasses, 0..1.
    seed: of every random draw.
    ema_decay: of the parameters' moving average, 0 = off.
    accumulate: parts in which a device embeds its rows, one after another.
    num_people: that are trained on; 0 until the data are known.
  """

  encoder: Any
  head: Any
  objective: objectives.Objective
  optimizer: optimizer_lib.Optimizer
  standardize: dict[str, Any]
  augment: dict[str, Any]
  new_people: dict[str, Any]
  glasses: float
  seed: int
  ema_decay: float = 0.0
  accumulate: int = 1
  num_people: int = 0

  def draw_key(self) -> jax.Array:
    """Returns the key of the draws, the same at every step.

    The objective folds the step in, so that it can shuffle by epochs.
    """
    return jax.random.fold_in(jax.random.key(self.seed), DRAW)

  def step_key(self, purpose: int, step: jax.Array | int) -> jax.Array:
    """Returns the key of a step for one purpose."""
    key = jax.random.fold_in(jax.random.key(self.seed), purpose)
    return jax.random.fold_in(key, step)


def make_recipe(config: ml_collections.ConfigDict) -> Recipe:
  """Builds the static parts of a run from its config.

  Args:
    config: a valid training config.

  Returns:
    The recipe.

  Raises:
    errors.UserError: if a part is unknown or its arguments do not fit.
  """
  try:
    encoder = encoders.create(config.encoder.name, **config.encoder.args)
    if hasattr(encoder, "axis_name"):
      encoder = encoder.clone(axis_name=parallel.AXIS)
    return Recipe(
      encoder=encoder,
      head=heads.create(config.head.name, **config.head.args),
      objective=objectives.create(
        config.objective.name, **config.objective.args
      ),
      optimizer=optimizer_lib.make_optimizer(
        config.optimizer, config.num_steps
      ),
      standardize=config.standardize.to_dict(),
      augment=config.augment.to_dict(),
      new_people=config.new_people.to_dict(),
      glasses=config.glasses,
      seed=config.seed,
      ema_decay=config.ema_decay,
      accumulate=config.accumulate,
    )
  except (ValueError, ImportError, AttributeError) as error:
    text = str(error).rstrip(".")
    raise errors.UserError(
      f"the config names a part that cannot be built: {text}."
    ) from error


def init_state(
  recipe: Recipe, image_shape: tuple[int, int, int], num_people: int
) -> state_lib.TrainState:
  """Returns the state before the first step, a function of the seed.

  Args:
    recipe: from `make_recipe`.
    image_shape: (H, W, C) of a face.
    num_people: people to train on, for objectives that have a class a person.

  Returns:
    The state, on the default device.
  """
  key = jax.random.fold_in(jax.random.key(recipe.seed), INIT)
  encoder_key, head_key = jax.random.split(key)
  image = jnp.zeros((1, *image_shape), jnp.float32)
  variables = jax.jit(functools.partial(recipe.encoder.init, train=False))(
    encoder_key, image
  )
  embedding = jax.eval_shape(
    lambda v: recipe.encoder.apply(v, image, train=False), variables
  )
  zeros = jnp.zeros(embedding.shape, jnp.float32)
  params = {
    "encoder": variables["params"],
    "head": recipe.head.init(head_key, zeros, zeros)["params"],
    "objective": recipe.objective.init(
      jax.random.fold_in(key, OBJECTIVE), num_people, embedding.shape[1]
    ),
  }
  return state_lib.create(
    params,
    variables.get("batch_stats", {}),
    recipe.optimizer,
    with_ema=recipe.ema_decay > 0,
  )


def _is_sharded(recipe: Recipe, path: tuple[Any, ...]) -> bool:
  """Whether a leaf of the state, or of the parameters, is split."""
  keys = [str(getattr(part, "key", "")) for part in path]
  sharded = getattr(recipe.objective, "sharded", ())
  return "objective" in keys and keys[-1] in sharded


def partition(recipe: Recipe, tree: Any) -> Any:
  """Returns how a state, or its parameters, lie on the mesh.

  Args:
    recipe: its objective names which of its own parameters are sharded; what
      the optimizer and the moving average keep of them lies likewise.
    tree: a TrainState, or parameters with the group "objective".

  Returns:
    A PartitionSpec for each leaf: split along the first axis, or a copy on
    each device.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: P(parallel.AXIS) if _is_sharded(recipe, path) else P(),
    tree,
  )


def init_on_mesh(
  recipe: Recipe,
  image_shape: tuple[int, int, int],
  num_people: int,
  mesh: Mesh,
) -> state_lib.TrainState:
  """Returns `init_state` on the mesh, as `partition` says.

  No device ever holds more than its own part.

  Raises:
    errors.UserError: if what is sharded cannot be split evenly.
  """
  init = lambda: init_state(recipe, image_shape, num_people)
  shapes = jax.eval_shape(init)
  specs = partition(recipe, shapes)
  for leaf, spec in zip(
    jax.tree.leaves(shapes), jax.tree.leaves(specs), strict=True
  ):
    if spec != P() and leaf.shape[0] % mesh.size:
      raise errors.UserError(
        f"{leaf.shape[0]} rows of the objective's parameters do not split "
        f"evenly over {mesh.size} devices; take 2, 4, 8, 16, ... devices or "
        "an objective that is not sharded."
      )
  place = lambda spec: NamedSharding(mesh, spec)
  return jax.jit(init, out_shardings=jax.tree.map(place, specs))()


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
    key(NEW_PEOPLE),
    rows // recipe.objective.rows_per_person,
    **recipe.new_people,
  )
  pixels = glasses.draw_glasses(
    pixels, key(GLASSES), rows, probability=recipe.glasses
  )
  pixels = augment.augment(pixels, key(AUGMENT), rows, **recipe.augment)
  # The backward pass reads them again.
  pixels = fusion.settled(pixels)
  return preprocess.standardize(pixels, **recipe.standardize)


def apply_head(recipe: Recipe, params: Any) -> Callable[..., jax.Array]:
  """Returns the head as a function of two batches of embeddings."""
  return lambda x, y: recipe.head.apply({"params": params["head"]}, x, y)


def settings_of(
  config: ml_collections.ConfigDict, recipe: Recipe
) -> inference.Settings:
  """Returns how the run's network turns faces into embeddings."""
  return inference.Settings(
    standardize=config.standardize.to_dict(),
    normalize=recipe.head.metric == "cosine",
    **config.views.to_dict(),
  )


def encoder_variables(state: state_lib.TrainState) -> dict[str, Any]:
  """Returns the encoder's variables to measure and ship."""
  variables = {"params": state.eval_params["encoder"]}
  if state.batch_stats:
    variables["batch_stats"] = state.batch_stats
  return variables
