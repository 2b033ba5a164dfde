"""Reads networks from dlib's .dat files, in Python and NumPy alone.

The format, in the order of the file (dlib: serialize.h, dnn/core.h, layers.h):
  integer   a control byte, 0x80 for a minus sign and the number of bytes in
            its low four bits, then that many bytes, little endian
  float     mantissa and exponent, two integers: mantissa * 2^exponent;
            exponents 32000, 32001 and 32002 are inf, -inf and NaN
  bool      the character "1" or "0"
  text      its length, then its bytes
  tensor    version 2, four sizes, raw little-endian float32
  network   version 1 and the loss; one version number a layer, from the last
            layer to the first; the input; then the layers from first to last,
            each a type name with what it holds, three flags and three tensors
            (caches of training, as a rule empty)
A tag or a skip is in the file as a version number and nothing else. No length
is believed before it is compared with what is left of the file.
"""

import dataclasses
import math
import os
from typing import Any, NoReturn

import numpy as np

from facesiam_jax import errors

# What a type of layer holds, in order, as name:kind; see `_Reader`.
_CON = (
  "params:tensor num_filters:integer rows:integer columns:integer"
  " stride_y:integer stride_x:integer padding_y:integer padding_x:integer"
  " filters:shape biases:shape learning_rate:real weight_decay:real"
  " bias_learning_rate:real bias_weight_decay:real"
)
_POOL = (
  "rows:integer columns:integer stride_y:integer stride_x:integer"
  " padding_y:integer padding_x:integer"
)
_LAYERS = {
  "add_prev_": "",
  "affine_": "params:tensor gamma:shape beta:shape mode:integer",
  "avg_pool_2": _POOL,
  "con_4": _CON,
  "con_5": f"{_CON} use_bias:flag",
  "fc_2": (
    "num_outputs:integer num_inputs:integer params:tensor weights:shape"
    " biases:shape mode:integer learning_rate:real weight_decay:real"
    " bias_learning_rate:real bias_weight_decay:real"
  ),
  "max_pool_2": _POOL,
  "relu_": "",
}
_LOSSES = {"loss_metric_2": "margin:real threshold:real"}
_INPUTS = {
  "input_rgb_image_sized": (
    "red:real green:real blue:real rows:integer columns:integer"
  )
}
# Version numbers of what wraps a layer; only the innermost layer has 3.
_TAG, _LAYER, _FIRST = 1, 2, 3
_LONGEST_NAME = 64
_DEEPEST = 4096
_LARGEST_FILE = 2**30
_SPECIAL = {32000: math.inf, 32001: -math.inf, 32002: math.nan}


@dataclasses.dataclass(frozen=True)
class Layer:
  """One entry of a network file.

  Attributes:
    kind: dlib's name of the type, such as "con_4"; "tag" for a tag or a skip.
    byte: where in the file it begins.
    fields: what it holds by name: int, float, bool, tuples of four sizes, and
      float32 arrays of four axes (samples, channels, rows, columns).
  """

  kind: str
  byte: int
  fields: dict[str, Any]


class _Reader:
  """Takes values from the front of a file; every failure names the byte."""

  def __init__(self, path: str, data: bytes):
    self._path = path
    self._data = data
    self.byte = 0

  @property
  def left(self) -> int:
    return len(self._data) - self.byte

  def fail(self, byte: int, what: str) -> NoReturn:
    raise errors.UserError(
      f"{self._path} cannot be read as a dlib network: at byte {byte} {what};"
      " give a whole file of a network as dlib's serialize writes it, such as"
      " dlib_face_recognition_resnet_model_v1.dat."
    )

  def _take(self, count: int) -> bytes:
    if count > self.left:
      self.fail(
        self.byte, f"{count} bytes are due and the file has {self.left} more"
      )
    taken = self._data[self.byte : self.byte + count]
    self.byte += count
    return taken

  def integer(self) -> int:
    byte = self.byte
    control = self._take(1)[0]
    count = control & 0x0F
    if control & 0x70 or not 1 <= count <= 8:
      self.fail(byte, f"an integer cannot begin with {control:#04x}")
    value = int.from_bytes(self._take(count), "little")
    return -value if control & 0x80 else value

  def real(self) -> float:
    byte = self.byte
    mantissa, exponent = self.integer(), self.integer()
    if exponent in _SPECIAL:
      return _SPECIAL[exponent]
    try:
      return math.ldexp(mantissa, exponent)
    except OverflowError:
      self.fail(byte, f"{mantissa} * 2^{exponent} is no number of dlib's")

  def flag(self) -> bool:
    byte = self.byte
    value = self._take(1)
    if value not in (b"0", b"1"):
      self.fail(byte, f"a flag is {value!r} where it can be b'0' or b'1'")
    return value == b"1"

  def text(self) -> str:
    byte = self.byte
    length = self.integer()
    if not 1 <= length <= _LONGEST_NAME:
      self.fail(byte, f"a type name would be {length} bytes long")
    return self._take(length).decode("ascii", "backslashreplace")

  def _version(self, expected: int, of: str) -> None:
    byte = self.byte
    version = self.integer()
    if version != expected:
      self.fail(byte, f"{of} is of version {version}, not {expected}")

  def _sizes(self) -> tuple[int, ...]:
    byte = self.byte
    sizes = tuple(self.integer() for _ in range(4))
    if min(sizes) < 0:
      self.fail(byte, f"a tensor has the sizes {sizes}")
    return sizes

  def shape(self) -> tuple[int, ...]:
    self._version(1, "a tensor's shape")
    return self._sizes()

  def tensor(self) -> np.ndarray:
    byte = self.byte
    self._version(2, "a tensor")
    sizes = self._sizes()
    count = math.prod(sizes)
    if 4 * count > self.left:
      self.fail(
        byte,
        f"a tensor of {sizes} is larger than the {self.left} bytes left",
      )
    raw = np.frombuffer(self._take(4 * count), "<f4")
    return raw.astype(np.float32).reshape(sizes)

  def fields(self, layout: str) -> dict[str, Any]:
    pairs = (field.split(":") for field in layout.split())
    return {name: getattr(self, kind)() for name, kind in pairs}

  def layer(self, known: dict[str, str], what: str) -> Layer:
    byte = self.byte
    kind = self.text()
    if kind not in known:
      self.fail(byte, f"{what} {kind!r} is none of {', '.join(sorted(known))}")
    return Layer(kind, byte, self.fields(known[kind]))

  def nest(self) -> list[int]:
    """Takes the versions of all layers, from the last to the first."""
    versions: list[int] = []
    while len(versions) < _DEEPEST:
      byte = self.byte
      version = self.integer()
      if version > _FIRST and versions[-1:] == [_FIRST]:
        # The length of the input's name, to be taken again with it.
        self.byte = byte
        return versions
      if not _TAG <= version <= _FIRST or versions[-1:] == [_FIRST]:
        self.fail(byte, f"a layer is of version {version}")
      versions.append(version)
    self.fail(self.byte, f"more than {_DEEPEST} layers are nested")

  def training_state(self, version: int) -> None:
    for _ in range(3):
      self.flag()
    for _ in range(3):
      self.tensor()
    if version == _FIRST:
      self.integer()


def parse(data: bytes, path: str) -> list[Layer]:
  """Reads a network from the bytes of a file; see `read`.

  Args:
    data: the whole file.
    path: what to call it in an error.

  Returns:
    As `read`.

  Raises:
    errors.UserError: as `read`.
  """
  reader = _Reader(path, data)
  if reader.integer() != 1:
    reader.fail(0, "there is no network with a loss of version 1")
  found = [reader.layer(_LOSSES, "the loss")]
  versions = reader.nest()
  found.append(reader.layer(_INPUTS, "the input"))
  for version in reversed(versions):
    if version == _TAG:
      found.append(Layer("tag", reader.byte, {}))
      continue
    found.append(reader.layer(_LAYERS, "a layer"))
    reader.training_state(version)
  if reader.left:
    reader.fail(reader.byte, f"{reader.left} bytes follow the last layer")
  return found


def read(path: str | os.PathLike[str]) -> list[Layer]:
  """Reads a network that dlib wrote.

  The layers of dlib's face recognition network are known: convolution, affine
  map, ReLU, pooling, addition, one matrix, a metric loss and RGB input. A file
  is data to this function; nothing in it is executed. 22 MB take 0.03 s.

  Args:
    path: the .dat file, not compressed.

  Returns:
    The loss, the input, then the layers in the order in which they compute.

  Raises:
    errors.UserError: in one sentence with the file and the byte, if it cannot
      be opened, ends early, goes on after the end, or is not such a network.
  """
  name = os.fspath(path)
  try:
    with open(name, "rb") as file:
      size = os.fstat(file.fileno()).st_size
      if size > _LARGEST_FILE:
        raise errors.UserError(
          f"{name} has {size} bytes, more than the {_LARGEST_FILE} of the"
          " largest dlib network that is read; give the network's own file."
        )
      data = file.read(size)
  except OSError as error:
    raise errors.UserError(
      f"{name} cannot be opened ({error.strerror}); give the path of a dlib"
      " network's .dat file."
    ) from error
  return parse(data, name)
