"""What a training run carries from step to step, and nothing else."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from facesiam_jax.training import optimizer as optimizer_lib

Params = Any


@struct.dataclass
class TrainState:
  """The whole state of a run: what a checkpoint holds.

  There is no random key in it: every draw is a function of the seed, the step
  and the row's place in the global batch.

  Attributes:
    step: number of finished steps, int32 scalar.
    params: {"encoder": ..., "head": ..., "objective": ...}, float32.
    batch_stats: running statistics of the encoder; {} where it has none.
    opt_state: state of the optimizer, of each group of parameters.
    ema_params: exponential moving average of params; {} where it is off.
  """

  step: jax.Array
  params: Params
  batch_stats: Any
  opt_state: Any
  ema_params: Params

  @property
  def eval_params(self) -> Params:
    """The parameters to measure and ship: the average where there is one."""
    return self.ema_params or self.params

  def with_encoder(self, params: Params, batch_stats: Any) -> "TrainState":
    """Returns the state before the first step with another encoder."""
    another = lambda of: {**of, "encoder": params} if of else of
    return dataclasses.replace(
      self,
      params=another(self.params),
      batch_stats=batch_stats,
      # A copy, since a donated buffer must not appear twice in the state.
      ema_params=jax.tree.map(jnp.copy, another(self.ema_params)),
    )


def create(
  params: Params,
  batch_stats: Any,
  optimizer: optimizer_lib.Optimizer,
  *,
  with_ema: bool,
) -> TrainState:
  """Returns the state before the first step.

  Args:
    params: initial parameters.
    batch_stats: initial running statistics, {} for none.
    optimizer: from `optimizer.make_optimizer`.
    with_ema: whether a moving average of the parameters is kept.

  Returns:
    A TrainState at step 0.
  """
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(params),
    # A copy, since a donated buffer must not appear twice in the state.
    ema_params=jax.tree.map(jnp.copy, params) if with_ema else {},
  )
