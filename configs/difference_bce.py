"""Recognition as binary classification, on the difference of two embeddings.

  facesiam train --config=difference_bce --workdir=runs/difference

The article "Siamese Networks or Binary Classification?": one network embeds
both faces (convolution, pooling, a dense layer of 128), and logistic regression
on the element-wise absolute difference, with a weight for each of the 128
entries and a bias, says whether they show one person; both learn together by
cross-entropy on pairs labelled 1 or 0. configs/chi_square_bce.py is the same on
the chi-square of the embeddings.

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
    config.head.name = "abs_difference_logistic"
    config.objective.name = "pair_bce"
    config.objective.args = {"num_pairs": 64, "per_image": False}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
  return config
