"""The optimizer and its learning-rate schedule, from a config."""

from typing import Any

import jax
import ml_collections
import optax

_OPTIMIZERS = ("adam", "adamw", "sgd")
_SCHEDULES = ("constant", "cosine")


def make_schedule(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  Args:
    config: `learning_rate`, `schedule` ("constant" or "cosine", down to 0)
      and `warmup_steps` (linear from 0).
    num_steps: length of the run.

  Returns:
    An Optax schedule.

  Raises:
    ValueError: for an unknown schedule.
  """
  if config.schedule not in _SCHEDULES:
    raise ValueError(
      f"optimizer.schedule is {config.schedule!r}; choose from {_SCHEDULES}."
    )
  if config.schedule == "cosine":
    return optax.warmup_cosine_decay_schedule(
      init_value=0.0 if config.warmup_steps else config.learning_rate,
      peak_value=config.learning_rate,
      warmup_steps=config.warmup_steps,
      decay_steps=max(num_steps, config.warmup_steps + 1),
    )
  if config.warmup_steps:
    return optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
  return optax.constant_schedule(config.learning_rate)


def _decayed(params: Any) -> Any:
  """Marks what weight decay applies to: matrices and kernels, not biases."""
  return jax.tree.map(lambda x: x.ndim > 1, params)


def make_optimizer(
  config: ml_collections.ConfigDict, num_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer a config describes.

  Args:
    config: `name` ("adam", "adamw" or "sgd"), the schedule's fields,
      `weight_decay` (adamw and sgd; biases and scales are exempt),
      `momentum` (sgd) and `clip_norm` (0 = off).
    num_steps: length of the run, for the schedule.

  Returns:
    An Optax transformation.

  Raises:
    ValueError: for an unknown name or schedule.
  """
  rate = make_schedule(config, num_steps)
  if config.name == "adam":
    transform = optax.adam(rate)
  elif config.name == "adamw":
    transform = optax.adamw(
      rate, weight_decay=config.weight_decay, mask=_decayed
    )
  elif config.name == "sgd":
    transform = optax.chain(
      optax.add_decayed_weights(config.weight_decay, mask=_decayed),
      optax.sgd(rate, momentum=config.momentum),
    )
  else:
    raise ValueError(
      f"optimizer.name is {config.name!r}; choose from {_OPTIMIZERS}."
    )
  if config.clip_norm:
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), transform)
  return transform
