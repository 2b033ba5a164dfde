"""Keras' side of benchmarks/training.py: `fit` under TensorFlow.

The batch is given, standardised and as float32; the model is a user's: layers
as the article has them, `compile` and `fit`. Layers bear the names of PyTorch's
modules, "_" for ".", so that weights can be compared.
"""

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import training_cases as cases
from keras import layers, ops


def _article(case: cases.Case, x: Any) -> Any:
  for number, width in enumerate(cases.ARTICLE_WIDTHS):
    x = layers.Conv2D(
      width, 3, padding="same", activation="relu", name=f"conv{number + 1}"
    )(x)
    x = layers.MaxPooling2D()(x)
    if case.dropout:
      x = layers.Dropout(case.dropout)(x)
  return layers.Dense(case.dim, name="fc")(layers.Flatten()(x))


def _conv(x: Any, features: int, side: int, stride: int, name: str) -> Any:
  if side > 1:
    x = layers.ZeroPadding2D(side // 2)(x)
  return layers.Conv2D(features, side, stride, use_bias=False, name=name)(x)


def _norm(x: Any, name: str) -> Any:
  return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _block(x: Any, features: int, stride: int, deep: bool, name: str) -> Any:
  outputs = features * (4 if deep else 1)
  steps = [(features, 1, 1), (features, 3, stride), (outputs, 1, 1)]
  if not deep:
    steps = [(features, 3, stride), (features, 3, 1)]
  branch = x
  for number, (width, side, step) in enumerate(steps, start=1):
    branch = _conv(branch, width, side, step, f"{name}_conv{number}")
    branch = _norm(branch, f"{name}_bn{number}")
    if number < len(steps):
      branch = layers.ReLU()(branch)
  if stride > 1 or x.shape[-1] != outputs:
    x = _conv(x, outputs, 1, stride, f"{name}_downsample_0")
    x = _norm(x, f"{name}_downsample_1")
  return layers.ReLU()(layers.Add()([x, branch]))


def _resnet(case: cases.Case, x: Any) -> Any:
  sizes, deep = cases.RESNET_STAGES[case.network]
  x = layers.ReLU()(_norm(_conv(x, 64, 7, 2, "conv1"), "bn1"))
  # After a ReLU zeros are as good as minus infinity.
  x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
  for stage, count in enumerate(sizes):
    for place in range(count):
      stride = 2 if stage and not place else 1
      name = f"layer{stage + 1}_{place}"
      x = _block(x, 64 * 2**stage, stride, deep, name)
  return layers.Dense(case.dim, name="fc")(layers.GlobalAveragePooling2D()(x))


def _distance(x: Any, y: Any) -> Any:
  return ops.sqrt(ops.maximum(ops.sum(ops.square(x - y), axis=-1), 1e-12))


def _triplet_loss(_: Any, embeddings: Any) -> Any:
  anchor, positive, negative = (embeddings[:, n] for n in range(3))
  gap = _distance(anchor, positive) - _distance(anchor, negative)
  return ops.relu(gap + cases.MARGIN)


def _model(case: cases.Case) -> tuple[Any, Any]:
  """Returns the model of whole groups, and the encoder within it."""
  shape = (case.size, case.size, case.channels)
  face = keras.Input(shape)
  build = _article if case.network == "article_cnn" else _resnet
  encoder = keras.Model(face, build(case, face), name="encoder")
  group = keras.Input((case.group, *shape))
  # One batch of all rows, so that batch statistics are of all.
  x = layers.Lambda(lambda g: ops.reshape(g, (-1, *shape)))(group)
  x = encoder(x)
  x = layers.Lambda(lambda e: ops.reshape(e, (-1, case.group, case.dim)))(x)
  if case.group == 2:
    x = layers.Lambda(lambda e: _distance(e[:, :1], e[:, 1:]))(x)
    x = layers.Dense(
      1,
      kernel_initializer=keras.initializers.Constant(cases.HEAD_WEIGHT),
      bias_initializer=keras.initializers.Constant(cases.HEAD_BIAS),
    )(x)
  return keras.Model(group, x), encoder


def _load(encoder: Any, state: dict[str, np.ndarray]) -> None:
  """Gives the layers the weights of PyTorch's modules."""
  grouped: dict[str, dict[str, np.ndarray]] = {}
  for name, value in state.items():
    module, leaf = name.rsplit(".", 1)
    grouped.setdefault(module.replace(".", "_"), {})[leaf] = value
  for name, leaves in grouped.items():
    weight = leaves["weight"]
    if "running_mean" in leaves:
      order = ("weight", "bias", "running_mean", "running_var")
      values = [leaves[leaf] for leaf in order]
    else:
      axes = (2, 3, 1, 0) if weight.ndim == 4 else (1, 0)
      values = [weight.transpose(axes)]
      values += [leaves["bias"]] if "bias" in leaves else []
    encoder.get_layer(name).set_weights(values)


class Side:
  """A compiled model and its arrays.

  Attributes:
    case: what is trained.
  """

  def __init__(self, case: cases.Case) -> None:
    """Draws the weights."""
    keras.utils.set_random_seed(0)
    self.case = case
    self._model, self._encoder = _model(case)
    self._compile(keras.optimizers.Adam(cases.RATE))
    images, ids = cases.batch(case)
    shape = (case.groups, case.group, *images.shape[1:])
    self._images = cases.standardized(images).reshape(shape)
    self._labels = np.zeros(case.groups, np.float32)
    if case.group == 2:
      self._labels = cases.same(ids)

  def _compile(self, optimizer: Any) -> None:
    loss: Any = _triplet_loss
    if self.case.group == 2:
      loss = keras.losses.BinaryCrossentropy(from_logits=True)
    self._model.compile(optimizer, loss=loss)

  def steps(self, count: int) -> None:
    """Makes steps: one `fit` over so many batches."""
    repeated = (count, *[1] * (self._images.ndim - 1))
    self._model.fit(
      np.tile(self._images, repeated),
      np.tile(self._labels, count),
      batch_size=self.case.groups,
      verbose=0,
    )

  def check(self, path: str) -> dict[str, Any]:
    """Returns the losses of a few plain steps from the weights in a file.

    Args:
      path: NumPy archive of PyTorch's state dict.
    """
    with np.load(path) as state:
      _load(self._encoder, dict(state))
    self._compile(keras.optimizers.SGD(self.case.check_rate))
    losses = [
      float(self._model.train_on_batch(self._images, self._labels))
      for _ in range(cases.CHECK_STEPS)
    ]
    count = sum(int(np.prod(x.shape)) for x in self._encoder.trainable_weights)
    return {"losses": losses, "parameters": count}
