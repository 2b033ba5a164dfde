"""Writes networks in dlib's format, from its description, for tests.

It shares nothing with the reader but the description of the format.
"""

import math
import typing

import numpy as np


class Written(typing.NamedTuple):
  """A file's bytes, and what a reader should find in it."""

  data: bytes
  layers: list


def integer(value):
  count = max(1, (abs(value).bit_length() + 7) // 8)
  sign = 128 if value < 0 else 0
  return bytes([count + sign]) + abs(value).to_bytes(count, "little")


def real(value):
  if math.isnan(value):
    return integer(0) + integer(32002)
  if math.isinf(value):
    return integer(0) + integer(32000 if value > 0 else 32001)
  fraction, exponent = math.frexp(float(value))
  mantissa, exponent = int(fraction * 2**53), exponent - 53
  while mantissa and mantissa % 256 == 0:
    mantissa, exponent = mantissa // 256, exponent + 8
  return integer(mantissa) + integer(exponent)


def text(value):
  return integer(len(value)) + value.encode()


def shape(sizes):
  return b"".join(map(integer, (1, *sizes)))


def tensor(array):
  sizes = b"".join(map(integer, (2, *array.shape)))
  return sizes + array.astype("<f4").tobytes()


def head():
  """The version, and the loss with margin 0.04 and threshold 0.6."""
  numbers = real(np.float32(0.04)) + real(np.float32(0.6))
  return integer(1) + text("loss_metric_2") + numbers


def _value(value):
  if isinstance(value, np.ndarray):
    return tensor(value)
  if isinstance(value, bool):
    return b"1" if value else b"0"
  if isinstance(value, tuple):
    return shape(value)
  return integer(value) if isinstance(value, int) else real(value)


def _draw(rng, count):
  return rng.normal(size=(count, 1, 1, 1)).astype(np.float32)


def con(rng, inputs, outputs, size, stride, *, version=4, use_bias=True):
  """A convolution: filters [outputs, inputs, rows, columns], then biases."""
  padding = size // 2 if stride == 1 else 0
  filters = (outputs, inputs, size, size)
  fields = {
    "params": _draw(rng, math.prod(filters) + outputs),
    "num_filters": outputs,
    "rows": size,
    "columns": size,
    "stride_y": stride,
    "stride_x": stride,
    "padding_y": padding,
    "padding_x": padding,
    "filters": filters,
    "biases": (1, outputs, 1, 1),
    "learning_rate": 1.0,
    "weight_decay": 1.0,
    "bias_learning_rate": 1.0,
    "bias_weight_decay": 0.0,
  }
  if version == 5:
    fields["use_bias"] = use_bias
  return f"con_{version}", fields


def affine(rng, features):
  one = (1, features, 1, 1)
  params = _draw(rng, 2 * features)
  return "affine_", {"params": params, "gamma": one, "beta": one, "mode": 0}


def pool(kind, size, stride):
  names = ("rows", "columns", "stride_y", "stride_x", "padding_y", "padding_x")
  return kind, dict(zip(names, (size, size, stride, stride, 0, 0), strict=True))


def matrix(rng, inputs, outputs):
  return "fc_2", {
    "num_outputs": outputs,
    "num_inputs": inputs,
    "params": rng.normal(size=(inputs, outputs, 1, 1)).astype(np.float32),
    "weights": (inputs, outputs, 1, 1),
    "biases": (0, 0, 0, 0),
    "mode": 1,
    "learning_rate": 1.0,
    "weight_decay": 1.0,
    "bias_learning_rate": 1.0,
    "bias_weight_decay": 0.0,
  }


def face_network(rng, widths, depths, dim, *, version=4):
  """The layers of dlib's face network with other widths and depths."""
  inputs = widths[0]
  layers = [con(rng, 3, inputs, 7, 2, version=version), affine(rng, inputs)]
  layers += [("relu_", {}), pool("max_pool_2", 3, 2)]
  for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
    for number in range(depth):
      down = stage > 0 and number == 0
      layers += [
        ("tag", {}),
        con(rng, inputs, width, 3, 2 if down else 1, version=version),
        affine(rng, width),
        ("relu_", {}),
        con(rng, width, width, 3, 1, version=version),
        affine(rng, width),
      ]
      if down:
        layers += [("tag", {}), ("tag", {}), pool("avg_pool_2", 2, 2)]
      layers += [("add_prev_", {}), ("relu_", {})]
      inputs = width
  return [*layers, pool("avg_pool_2", 0, 1), matrix(rng, inputs, dim)]


def serialize(layers, *, size=150, means=(122.782, 117.001, 104.298)):
  """Wraps layers as dlib does; returns a Written."""
  loss = {
    "margin": np.float32(0.04).item(),
    "threshold": np.float32(0.6).item(),
  }
  fields = dict(zip(("red", "green", "blue"), means, strict=True))
  fields |= {"rows": size, "columns": size}
  first = next(i for i, (kind, _) in enumerate(layers) if kind != "tag")
  versions = [
    1 if kind == "tag" else 3 if number == first else 2
    for number, (kind, _) in enumerate(layers)
  ]
  parts = [head(), *map(integer, reversed(versions))]
  parts += [text("input_rgb_image_sized"), *map(_value, fields.values())]
  empty = tensor(np.zeros((0, 0, 0, 0)))
  for version, (kind, held) in zip(versions, layers, strict=True):
    if kind != "tag":
      parts += [text(kind), *map(_value, held.values())]
      parts += [b"110", 3 * empty, integer(1) if version == 3 else b""]
  every = [("loss_metric_2", loss), ("input_rgb_image_sized", fields), *layers]
  return Written(b"".join(parts), every)


def network(rng, *, widths, depths, dim, **settings):
  """A whole file of a tiny face network; returns a Written."""
  return serialize(face_network(rng, widths, depths, dim, **settings))
