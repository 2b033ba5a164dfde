"""The recipes of docs/pods.md, for a number of chips.

  facesiam plan --config=benchmarks/pod_recipes.py:triplet-256 \\
    --topology=v5e:16x16 --num_people=100000

The batch grows with the chips, so that each always has the same share.
"""

import ml_collections

from facesiam_jax.training import config as config_lib

_IMAGES_PER_PERSON = 4
_TRIPLET_PEOPLE_A_CHIP = 32
_MARGIN_IMAGES_A_CHIP = 64


def get_config(name: str) -> ml_collections.ConfigDict:
  """Returns a training config.

  Args:
    name: "triplet-CHIPS": ResNet-50, batch-hard triplets, 128 faces a chip;
      "partial_fc-CHIPS": IResNet-100, ArcFace on a tenth of the classes, 64
      faces a chip; or "ten_million-CHIPS" and "billion-CHIPS": these two
      without a training step, for the galleries of their embeddings.
      Faces of 112 pixels, bfloat16, SGD with momentum.

  Returns:
    The config.
  """
  kind, _, chips = name.partition("-")
  config = config_lib.default_config()
  with config.unlocked():
    config.image_size = 112
    config.dataset.channels = 3
    config.feed.kind = "streaming"
    config.augment.flip = 0.5
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    if kind in ("triplet", "ten_million"):
      config.encoder.name = "resnet50"
      config.encoder.args = {"dtype": "bfloat16"}
      config.objective.name = "batch_hard_triplet"
      config.objective.args = {
        "num_people": _TRIPLET_PEOPLE_A_CHIP * int(chips),
        "images_per_person": _IMAGES_PER_PERSON,
      }
    else:
      config.encoder.name = "iresnet100"
      config.encoder.args = {"dtype": "bfloat16"}
      config.objective.name = "partial_fc"
      config.objective.args = {
        "num_images": _MARGIN_IMAGES_A_CHIP * int(chips),
        "sample_fraction": 0.1,
        "scale": 64.0,
      }
    if kind in ("ten_million", "billion"):
      config.start.kind = "whitening"
      config.num_steps = 0
  return config
