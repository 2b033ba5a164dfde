"""Reads TensorBoard's event files, without TensorFlow."""

import struct

from tensorboardX.proto import event_pb2


def read(folder):
  """Reads event files as TensorBoard does: length, its check, data, check."""
  events = []
  for path in sorted(folder.glob("events*")):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack("<Q", data[:8])
      events.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[16 + length :]
  return events
