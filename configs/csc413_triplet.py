"""The CSC413 report's Siamese network: ResNet-50, random triplets, CelebA.

  facesiam prepare --dataset=celeba_identity --manual_dir=DIR
  facesiam train --config=csc413_triplet --workdir=runs/csc413

The report: CelebA by its partition, people and not images in one split; random
mirror, rotation to 20 degrees, shear to 10; the mean and deviation of ImageNet;
ResNet-50 to 256 numbers; triplets drawn at random, margin 1, 48 a batch, 1,400
iterations. In 86.3 % of its validation triplets the positive is the nearer.

It contradicts itself in the loss. Its text and figure 2 scale embeddings to
length 1, but its mean distances, 2.6 and 4.8, exceed 2; its equation 2 squares
them and has no hinge, but the functions it names do neither. Here it is as its
figures came about: embeddings as they are, plain distances, a hinge
(`losses.csc413_as_run`). With --config.objective.args.normalize=true and
--config.head.name=cosine_logistic they have length 1.

It starts from ImageNet's weights, which are not published with this project:
here from random ones. It does not say how large its faces are (178 is CelebA's
width), nor its optimizer and rate, which are ours.

ResNet-50 is not for two cores. There:

  facesiam prepare --dataset=celeba_identity --manual_dir=DIR \\
    --alignment=arcface_112 --size=64
  facesiam prepare --dataset=folder --manual_dir=celeba_wild112.tar \\
    --partition=list_eval_partition.txt --num_validation=40
  facesiam train --config=csc413_triplet --workdir=runs/csc413 \\
    --config.encoder.name=resnet18 --config.image_size=64 \\
    --config.num_steps=300 \\
    --config.dataset.name=celeba_identity/arcface_112_64,folder/celeba_wild112
"""

import ml_collections

from facesiam_jax.training import config as config_lib


def get_config() -> ml_collections.ConfigDict:
  """Returns the report's training config."""
  config = config_lib.default_config()
  with config.unlocked():
    config.image_size = 178
    config.num_steps = 1400
    config.log_every = 20
    config.eval_every = 100
    config.checkpoint_every = 100
    config.dataset.name = "celeba_identity"
    config.dataset.channels = 3
    config.dataset.num_validation = 40
    config.encoder.name = "resnet50"
    config.encoder.args = {"dim": 256, "width": 64}
    config.head.name = "euclidean_logistic"
    config.objective.name = "triplet"
    config.objective.args = {
      "num_triplets": 48,
      "margin": 1.0,
      "normalize": False,
    }
    config.standardize = ml_collections.ConfigDict(
      {
        "kind": "fixed",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
      }
    )
    config.augment.flip = 0.5
    config.augment.rotation_deg = 20.0
    config.augment.shear_deg = 10.0
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
  return config
