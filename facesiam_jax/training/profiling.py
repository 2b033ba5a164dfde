"""A trace of a few steps, for TensorBoard's profiler or Perfetto."""

import pathlib
from typing import Any

import jax

from facesiam_jax.training import closing

# The first call compiles, the second finds its memory.
_BEFORE = 2
_CALLS = 5


class Trace(closing.Closing):
  """Traces the third to seventh call of the compiled steps."""

  def __init__(self, folder: pathlib.Path | None) -> None:
    """Prepares the trace.

    Args:
      folder: where it goes; None traces nothing.
    """
    self._folder = folder
    self._calls = 0
    self._running = False

  def after_call(self, result: Any) -> None:
    """Is told of each call, with what it returned."""
    if self._folder is None:
      return
    self._calls += 1
    if self._calls == _BEFORE:
      jax.block_until_ready(result)
      jax.profiler.start_trace(self._folder)
      self._running = True
    elif self._calls == _BEFORE + _CALLS:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Ends the trace, if it is under way."""
    if self._running:
      self._running = False
      jax.profiler.stop_trace()
