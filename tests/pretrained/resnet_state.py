"""A tiny network in torchvision's layout, without torch."""

import numpy as np


def resnet_state(width=4, dim=6, seed=0):
  """A state dict of torchvision's layout: one basic block a stage."""
  rng = np.random.default_rng(seed)
  state = {}

  def norm(name, size):
    state[f"{name}.weight"] = rng.uniform(0.5, 1.5, size)
    state[f"{name}.bias"] = rng.normal(size=size)
    state[f"{name}.running_mean"] = rng.normal(size=size)
    state[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
    state[f"{name}.num_batches_tracked"] = np.array(3)

  def conv(name, *shape):
    state[f"{name}.weight"] = rng.normal(size=shape)

  conv("conv1", width, 3, 7, 7)
  norm("bn1", width)
  inputs = width
  for stage in range(4):
    features, name = width * 2**stage, f"layer{stage + 1}.0"
    conv(f"{name}.conv1", features, inputs, 3, 3)
    norm(f"{name}.bn1", features)
    conv(f"{name}.conv2", features, features, 3, 3)
    norm(f"{name}.bn2", features)
    if stage:
      conv(f"{name}.downsample.0", features, inputs, 1, 1)
      norm(f"{name}.downsample.1", features)
    inputs = features
  conv("fc", dim, inputs)
  state["fc.bias"] = rng.normal(size=dim)
  return {
    name: np.asarray(
      array, np.int64 if name.endswith("tracked") else np.float32
    )
    for name, array in state.items()
  }
