"""An ONNX file with YuNet's outputs, for a network that sees white squares.

Just enough of ONNX's protocol buffers is written here by hand. The network
takes the mean of each square of 32 pixels for its score, and reports a box and
five points at fixed places of the square; its two finer scales see nothing.
"""

import numpy as np

STRIDES = (8, 16, 32)
# In squares: the box's centre, the logarithms of its sides, the five points.
BOX = (0.5, 0.5, 0.0, 0.5)
POINTS = (0.25, 0.25, 0.75, 0.25, 0.5, 0.5, 0.25, 0.75, 0.75, 0.75)
_SIDE = 640
_FLOAT, _INT64, _ATTRIBUTE_INTS, _ATTRIBUTE_INT = 1, 7, 7, 2


def _varint(number):
  number %= 1 << 64
  out = bytearray()
  while number > 127:
    out.append(number & 127 | 128)
    number >>= 7
  return bytes([*out, number])


def _field(number, value):
  """One field of a message: a whole number, or text, bytes or a message."""
  if isinstance(value, int):
    return _varint(number << 3) + _varint(value)
  value = value.encode() if isinstance(value, str) else value
  return _varint(number << 3 | 2) + _varint(len(value)) + value


def _attribute(name, value):
  kind = _ATTRIBUTE_INT if isinstance(value, int) else _ATTRIBUTE_INTS
  values = (
    _field(3, value)
    if isinstance(value, int)
    else b"".join(_field(8, one) for one in value)
  )
  return _field(1, name) + values + _field(20, kind)


def _node(kind, inputs, output, **attributes):
  return (
    b"".join(_field(1, name) for name in inputs)
    + _field(2, output)
    + _field(4, kind)
    + b"".join(_field(5, _attribute(*item)) for item in attributes.items())
  )


def _constant(name, values):
  values = np.asarray(values)
  kind = _INT64 if values.dtype.kind == "i" else _FLOAT
  values = values.astype(np.int64 if kind == _INT64 else np.float32)
  dims = b"".join(_field(1, size) for size in values.shape)
  data = _field(9, values.tobytes())
  return dims + _field(2, kind) + _field(8, name) + data


def _array(name, *shape):
  dims = b"".join(_field(1, _field(1, size)) for size in shape)
  tensor = _field(1, _FLOAT) + _field(2, dims)
  return _field(1, name) + _field(2, _field(1, tensor))


def network():
  """Returns the file's bytes."""
  nodes = [
    _node("ReduceMean", ["input"], "gray", axes=[1], keepdims=1),
    _node("Mul", ["gray", "scale"], "light"),
  ]
  constants = [
    _constant("scale", 1 / 255),
    _constant("nothing", 0.0),
    _constant("column", [1, -1, 1]),
    _constant("box", np.reshape(BOX, (1, 1, 4))),
    _constant("points", np.reshape(POINTS, (1, 1, 10))),
  ]
  outputs = []
  for stride in STRIDES:
    square = [stride, stride]
    pooled, column, none = f"pool{stride}", f"column{stride}", f"none{stride}"
    nodes += [
      _node("AveragePool", ["light"], pooled, kernel_shape=square,
            strides=square),
      _node("Reshape", [pooled, "column"], column),
      _node("Mul", [column, "nothing"], none),
      _node("Add", [none, "box"], f"bbox_{stride}"),
      _node("Add", [none, "points"], f"kps_{stride}"),
    ]  # fmt: skip
    seen = column if stride == STRIDES[-1] else none
    nodes += [
      _node("Identity", [seen], f"{name}_{stride}") for name in ("cls", "obj")
    ]
  for name, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
    outputs += [
      _array(f"{name}_{stride}", 1, (_SIDE // stride) ** 2, width)
      for stride in STRIDES
    ]
  graph = (
    b"".join(_field(1, node) for node in nodes)
    + _field(2, "squares")
    + b"".join(_field(5, constant) for constant in constants)
    + _field(11, _array("input", 1, 3, _SIDE, _SIDE))
    + b"".join(_field(12, output) for output in outputs)
  )
  return _field(1, 7) + _field(7, graph) + _field(8, _field(2, 11))
