"""Trains the networks that are compared, each row by one compiled function.

It is the library's own training step. Seed and learning rate are arguments of
the compiled function here, since there are dozens of runs that differ in
nothing else, and compiling takes as long as a small one of them.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel
from facesiam_jax.data import resident
from facesiam_jax.training import measuring
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import state as state_lib
from facesiam_jax.training import step as step_lib


class Trained(NamedTuple):
  """A network after its last step.

  Attributes:
    state: of the run.
    seconds: the steps took, compiling left out where it was compiled before.
    losses: of each step.
  """

  state: state_lib.TrainState
  seconds: float
  losses: np.ndarray


class Trainer:
  """Trains networks of one config that differ in seed, rate and people."""

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    image_shape: tuple[int, int, int],
    num_people: int,
  ) -> None:
    """Builds the functions, which compile when they are called first.

    Args:
      config: with learning rate 1, which the rate of a run multiplies.
      image_shape: (H, W, C) of a face.
      num_people: to train on.
    """
    if config.optimizer.learning_rate != 1:
      raise ValueError("config.optimizer.learning_rate must be 1")
    self.config, self.mesh = config, parallel.make_mesh()
    self.recipe = dataclasses.replace(
      recipe_lib.make_recipe(config), num_people=num_people
    )
    self._init = jax.jit(
      lambda seed: recipe_lib.init_state(
        self._with(seed, 1.0), image_shape, num_people
      )
    )
    self._step = parallel.pmap(
      lambda state, data, seed, rate: step_lib.train_step(
        self._with(seed, rate), state, data
      ),
      self.mesh,
      in_specs=(P(), P(), P(), P()),
      out_specs=(P(), P()),
      donate_argnums=(0,),
    )
    settings = recipe_lib.settings_of(config, self.recipe)
    # As they come: the scores scale them where they compare directions.
    settings = dataclasses.replace(settings, normalize=False)
    self.embed = measuring.make_embedder(self.recipe, settings, self.mesh)

  def _with(self, seed: Any, rate: Any) -> recipe_lib.Recipe:
    optimizer = self.recipe.optimizer
    schedule = lambda step: rate * optimizer.schedule(step)
    return dataclasses.replace(
      self.recipe, seed=seed, optimizer=optimizer._replace(schedule=schedule)
    )

  def data(self, images: np.ndarray, ids: np.ndarray) -> Any:
    """Returns a split on the device: uint8 [N, H, W, C], int [N]."""
    return parallel.replicate(resident.make_resident(images, ids), self.mesh)

  def start(self, seed: int) -> state_lib.TrainState:
    """Returns the state before the first step."""
    return parallel.replicate(self._init(jnp.int32(seed)), self.mesh)

  def step(
    self, state: state_lib.TrainState, data: Any, seed: int, rate: float
  ) -> tuple[state_lib.TrainState, Any]:
    """Makes one step; the state that is given cannot be used again."""
    return self._step(state, data, jnp.int32(seed), jnp.float32(rate))

  def fit(
    self,
    images: np.ndarray,
    ids: np.ndarray,
    *,
    seed: int,
    rate: float,
    state: state_lib.TrainState | None = None,
    num_steps: int | None = None,
  ) -> Trained:
    """Trains one network.

    Args:
      images: uint8 [N, H, W, C].
      ids: of the people, int [N].
      seed: of the start and of all draws.
      rate: the highest learning rate.
      state: to go on from, which cannot be used again; None starts anew.
      num_steps: None takes the config's.

    Raises:
      FloatingPointError: if a loss was not finite.
    """
    data = self.data(images, ids)
    state = self.start(seed) if state is None else state
    found = []
    begun = time.monotonic()
    for _ in range(self.config.num_steps if num_steps is None else num_steps):
      state, measured = self.step(state, data, seed, rate)
      found.append(measured["loss"])
    losses = np.array([float(loss) for loss in found])
    seconds = time.monotonic() - begun
    if not np.isfinite(losses).all():
      raise FloatingPointError(f"seed {seed}, rate {rate}: loss not finite")
    return Trained(state, seconds, losses)
