"""Olivetti faces: the recipe for people never seen in training."""

import ml_collections

from facesiam_jax.training import config as config_lib


def get_config() -> ml_collections.ConfigDict:
  """Returns the training config."""
  config = config_lib.default_config()
  with config.unlocked():
    config.num_steps = 400
    config.log_every = 20
    config.eval_every = 100
    config.checkpoint_every = 200
    config.ema_decay = 0.98
    config.dataset.num_validation = 0
    config.encoder.name = "small_cnn"
    config.encoder.args = {"dropout": 0.2, "shrink": 1, "stage_dropout": 0.0}
    config.objective.name = "supcon"
    config.objective.args = {
      "num_people": 16,
      "images_per_person": 8,
      "temperature": 0.1,
    }
    config.standardize.kind = "per_image"
    config.augment.flip = 0.5
    config.augment.rotation_deg = 12.0
    config.augment.shear_deg = 8.0
    config.augment.scale = 0.12
    config.augment.stretch = 0.06
    config.augment.shift = 0.05
    config.augment.gain = 0.3
    config.augment.offset = 0.1
    config.augment.gradient = 0.3
    config.augment.gamma = 0.3
    config.augment.erase = 0.5
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.05
    config.views.mirror = True
    config.views.shift = 2
    config.calibration.kind = "cross_fit"
  return config
