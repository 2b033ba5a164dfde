"""Recognition as binary classification, on the chi-square of two embeddings.

  facesiam train --config=chi_square_bce --workdir=runs/chi-square

The other of two features of the article "Siamese Networks or Binary
Classification?": logistic regression on (x - y)^2 / (x + y), entry by entry.
Chi-square is of quantities that are not negative, so the embeddings go through
a softplus first, which the article does not mention. All else is
configs/difference_bce.py's.
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
    config.head.name = "chi_square_logistic"
    config.head.args = {"features": "softplus"}
    config.objective.name = "pair_bce"
    config.objective.args = {"num_pairs": 64, "per_image": False}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
  return config
