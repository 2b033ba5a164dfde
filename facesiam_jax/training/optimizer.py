"""The optimizer and its learning-rate schedule, from a config.

An update is direction * learning rate of the step * multiplier of the group,
the groups being encoder, head and objective. The rate is a function of the
run's step, not of the updates that were made, so that a skipped batch does not
shift the schedule.

Weight decay applies to parameters of two axes or more: the kernels of
convolutions and dense layers, class centres, proxies. What has one axis or
none is exempt: biases, scales and shifts of normalisation, PReLU's slopes, the
head's scalars.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

_OPTIMIZERS = ("adam", "adamw", "sgd")
_SCHEDULES = ("constant", "cosine", "step")
ENCODER = "encoder"
GROUPS = (ENCODER, "head", "objective")


class Optimizer(NamedTuple):
  """What turns gradients into updates; the parameters are of `GROUPS`.

  Attributes:
    directions: of each group, an Optax transformation without a learning
      rate.
    schedule: step -> learning rate.
    multipliers: of each group, of the learning rate.
    freeze_steps: steps in which the encoder stays as it is.
    clip_norm: the largest norm of the gradient of all groups; 0 = any.
  """

  directions: dict[str, optax.GradientTransformation]
  schedule: optax.Schedule
  multipliers: dict[str, float]
  freeze_steps: int = 0
  clip_norm: float = 0.0

  def init(self, params: Any) -> Any:
    """Returns the state before the first step, of each group its own."""
    return {name: self.directions[name].init(params[name]) for name in GROUPS}

  def update(
    self,
    grads: Any,
    opt_state: Any,
    params: Any,
    *,
    step: jax.Array,
    norm: jax.Array,
    frozen: bool = False,
  ) -> tuple[Any, Any]:
    """Makes one update.

    Args:
      grads: gradients, as `params`.
      opt_state: from `init` or the last update.
      params: {"encoder": ..., "head": ..., "objective": ...}, float32.
      step: number of finished steps, int32 scalar.
      norm: of all gradients, over all devices, float32 scalar.
      frozen: whether the encoder stays: neither its parameters nor its part
        of the state change.

    Returns:
      (params, opt_state): the new ones.
    """
    if self.clip_norm:
      factor = self.clip_norm / jnp.maximum(norm, self.clip_norm)
      grads = jax.tree.map(lambda g: g * factor, grads)
    rate = self.schedule(step)
    params, opt_state = dict(params), dict(opt_state)
    for name in GROUPS:
      if frozen and name == ENCODER:
        continue
      updates, opt_state[name] = self.directions[name].update(
        grads[name], opt_state[name], params[name]
      )
      scale = -rate * self.multipliers[name]
      params[name] = jax.tree.map(
        lambda p, u, s=scale: p + s * u, params[name], updates
      )
    return params, opt_state


def make_schedule(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  Args:
    config: `learning_rate`; `warmup_steps`, linear from 0; and `schedule`,
      which says how it goes on: "constant", "cosine" down to `final` times
      the rate at the last step, or "step", times `step_factor` from each of
      `step_at` on, which are shares of the run.
    num_steps: length of the run.

  Returns:
    An Optax schedule.

  Raises:
    ValueError: for an unknown schedule.
  """
  peak, warmup = config.learning_rate, config.warmup_steps
  if config.schedule == "constant":
    after = optax.constant_schedule(peak)
  elif config.schedule == "cosine":
    after = optax.cosine_decay_schedule(
      peak, max(num_steps - warmup, 1), alpha=config.final
    )
  elif config.schedule == "step":
    at = [round(share * num_steps) - warmup for share in config.step_at]
    after = optax.piecewise_constant_schedule(
      peak, {step: config.step_factor for step in at}
    )
  else:
    raise ValueError(
      f"optimizer.schedule is {config.schedule!r}; choose from {_SCHEDULES}."
    )
  if not warmup:
    return after
  rising = optax.linear_schedule(0.0, peak, warmup)
  return optax.join_schedules([rising, after], [warmup])


def decayed(params: Any) -> Any:
  """Marks what weight decay applies to: see the module's own words."""
  return jax.tree.map(lambda x: x.ndim > 1, params)


def _direction(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """The update of one group, without the learning rate."""
  decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
  if config.name == "adam":
    return optax.scale_by_adam()
  if config.name == "adamw":
    return optax.chain(optax.scale_by_adam(), decay)
  if config.name == "sgd":
    if not config.momentum:
      return decay
    return optax.chain(decay, optax.trace(decay=config.momentum))
  raise ValueError(
    f"optimizer.name is {config.name!r}; choose from {_OPTIMIZERS}."
  )


def make_optimizer(
  config: ml_collections.ConfigDict, num_steps: int
) -> Optimizer:
  """Returns the optimizer a config describes.

  Args:
    config: the `optimizer` part of a training config.
    num_steps: length of the run, for the schedule.

  Returns:
    The optimizer.

  Raises:
    ValueError: for an unknown name or schedule.
  """
  return Optimizer(
    directions={name: _direction(config) for name in GROUPS},
    schedule=make_schedule(config, num_steps),
    multipliers={
      ENCODER: 1.0,
      "head": config.head_multiplier,
      "objective": config.objective_multiplier,
    },
    freeze_steps=config.freeze_steps,
    clip_norm=config.clip_norm,
  )
