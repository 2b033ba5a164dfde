"""Tests of Koch's network: the paper's counts and shapes, values of a tiny."""

import jax
import numpy as np
import pytest

from facesiam_jax import encoders
from facesiam_jax.encoders import koch
from tests import encoder_checks

# What implementations report, with the head's 4096 weights and its bias.
PUBLISHED = 38_951_745
TINY = koch.Koch((3, 4, 3), (4, 3, 2), size=18, dim=5)


def test_parameters_and_layers_as_published():
  found = encoder_checks.shapes(encoders.create("koch2015"), 105, channels=1)
  assert encoder_checks.count(found) + 4097 == PUBLISHED
  assert found == {
    "params/conv1/kernel": (10, 10, 1, 64),
    "params/conv1/bias": (64,),
    "params/conv2/kernel": (7, 7, 64, 128),
    "params/conv2/bias": (128,),
    "params/conv3/kernel": (4, 4, 128, 128),
    "params/conv3/bias": (128,),
    "params/conv4/kernel": (4, 4, 128, 256),
    "params/conv4/bias": (256,),
    # The paper's 9216: 6 x 6 pixels of 256 channels.
    "params/fc/kernel": (9216, 4096),
    "params/fc/bias": (4096,),
  }


def test_embeddings_are_sigmoids():
  encoder_checks.check_embeddings(TINY, 18, channels=1, half=0.01)
  variables, images, _ = encoder_checks.setting(TINY, 18, channels=1)
  embeddings = np.asarray(jax.jit(TINY.apply)(variables, images))
  assert 0 < embeddings.min() < 0.5 < embeddings.max() < 1


def test_gradient_and_remat():
  encoder_checks.check_training(TINY, 18, channels=1)


@pytest.mark.parametrize(
  ("module", "size", "words"),
  [
    (koch.Koch(), 104, "105 x 105 pixels"),
    (TINY.clone(windows=(4, 3)), 18, "differ in number"),
    (TINY.clone(windows=(4, 3, 5)), 18, "exceeds"),
  ],
)
def test_refuses(module, size, words):
  with pytest.raises(ValueError, match=words):
    encoder_checks.shapes(module, size, channels=1)
