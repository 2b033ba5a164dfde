"""Olivetti faces: a small network trained with a contrastive loss.

  facesiam train --config=olivetti_supcon --workdir=runs/olivetti-supcon

About four minutes on two cores, three of them for the inner networks that the
threshold comes from. Expected on the ten people of a fold, mean over the four
folds (benchmarks/olivetti.py): equal error rate 10 %, one-shot ten-way accuracy
87 %; FMR 0.9 % and FNMR 33 % at the threshold.

Supervised contrastive loss on 16 people x 8 images. With thirty people to
learn from, augmentation decides: each person of a batch is deformed and shaded
into one who does not exist, so that none is seen twice.
"""

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
    config.encoder.args = {
      "widths": (16, 48, 96),
      "dim": 128,
      "shrink": 2,
      "contrast_sigma": 0.0,
    }
    config.objective.name = "supcon"
    config.objective.args = {
      "num_people": 16,
      "images_per_person": 8,
      "temperature": 0.1,
    }
    config.standardize.kind = "per_image"
    config.new_people.reshape = 0.1
    config.new_people.shade = 0.3
    config.augment.flip = 0.5
    config.augment.rotation_deg = 15.0
    config.augment.shear_deg = 8.0
    config.augment.scale = 0.12
    config.augment.shift = 0.06
    config.augment.gain = 0.2
    config.augment.offset = 0.1
    config.augment.gradient = 0.4
    config.augment.erase = 0.45
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 2.0
    config.views.mirror = True
    config.views.shift = 0.04
    config.views.scale = 0.06
    config.calibration.kind = "cross_fit"
  return config
