"""The note's second loss: contrastive, y d^2 + (1 - y) max(m - d, 0)^2.

  facesiam train --config=euclidean_contrastive --workdir=runs/contrastive

d is the Euclidean distance of the embeddings as they are, y = 1 for one person.
The note leaves the margin m open; it is 1 here. The loss has no w and b: the
logistic regressor that turns distances into probabilities is fitted after the
training, to the six validation people. All else is configs/euclidean_bce.py's.
"""

import ml_collections

from facesiam_jax.training import config as config_lib


def get_config() -> ml_collections.ConfigDict:
  """Returns the training config."""
  config = config_lib.default_config()
  with config.unlocked():
    config.num_steps = 300
    config.log_every = 25
    config.eval_every = 25
    config.checkpoint_every = 100
    config.encoder.name = "article_cnn"
    config.encoder.args = {"widths": (12, 24, 48), "dim": 128, "dropout": 0.0}
    config.head.name = "euclidean_logistic"
    config.objective.name = "contrastive"
    config.objective.args = {"num_pairs": 64, "per_image": False, "margin": 1.0}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
  return config
