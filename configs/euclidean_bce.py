"""The note's first loss: cross-entropy of sigma(w d + b), d the distance.

  facesiam train --config=euclidean_bce --workdir=runs/euclidean-bce

The note "Siamese Neural networks for Face Recognition": one network of
convolutions, pooling and dense layers embeds both faces, the Euclidean distance
d of the embeddings goes into a logistic regressor with learned w and b, and
L = -(y log p + (1 - y) log(1 - p)), y = 1 for one person. Here w stays
negative, so that nearer always means more alike. configs/euclidean_contrastive
.py is its other loss.

It names no data set, sizes, optimizer or length; those are
configs/olivetti_article.py's here, without its dropout: 64x64 Olivetti faces,
64 pairs a step, half of them genuine, 300 steps of Adam. Ten people are held
out, six more set the threshold.
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
    config.objective.name = "pair_bce"
    config.objective.args = {"num_pairs": 64, "per_image": False}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
  return config
