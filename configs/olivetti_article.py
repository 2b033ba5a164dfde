"""The article's Siamese network on the Olivetti faces, as it is described.

  facesiam train --config=olivetti_article --workdir=runs/article

64x64 grey faces, three Conv-Pool-Dropout stages, a 128-d embedding, Euclidean
distance, sigma(w d + b) with learned w < 0, binary cross-entropy; one genuine
and one impostor pair for each image and epoch, 64 pairs a batch, 100 epochs.
No augmentation. The article trains on all 40 people; here ten are held out,
since only people the network has never seen say how well it recognises, and
six of the other thirty draw the validation curve and set the threshold; the
article's is at a probability of 0.5. It draws its 800 pairs once; here each
epoch draws its own. As worded, sigma(d) of a distance d >= 0 is 1/2 or more and
grows with it, the wrong way round: hence w < 0 and b. It does not say how wide
its layers are, how much drops out (0.3 here) nor its optimizer (Adam at 1e-3);
12, 24 and 48 channels train in two to three minutes on two cores.
"""

import ml_collections

from facesiam_jax.training import config as config_lib

_TRAIN_IMAGES = 240  # 24 people x 10
_PAIRS = 64
_EPOCHS = 100


def get_config() -> ml_collections.ConfigDict:
  """Returns the article's training config."""
  config = config_lib.default_config()
  with config.unlocked():
    steps_per_epoch = 2 * _TRAIN_IMAGES / _PAIRS
    config.num_steps = round(_EPOCHS * steps_per_epoch)
    config.log_every = 8
    config.eval_every = 8
    config.checkpoint_every = 200
    config.dataset.num_validation = 6
    config.encoder.name = "article_cnn"
    config.encoder.args = {"widths": (12, 24, 48), "dim": 128}
    config.head.name = "euclidean_logistic"
    config.objective.name = "pair_bce"
    config.objective.args = {"num_pairs": _PAIRS, "per_image": True}
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
  return config
