"""Stopping a run that is asked to: save first, tell how, resume later.

SIGTERM is what SLURM, Kubernetes and cloud machines send some seconds before
they kill; Ctrl-C is a user's. Within `deferred` either is noted, so that the
loop can save at the end of the step; elsewhere it ends what goes on at once,
since files are written whole or not at all and the run resumes by itself.

With several processes JAX's own service takes SIGTERM (Ctrl-C is passed to it),
tells all processes of it, and has them stop at one and the same step. After
the last step it does nothing there.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

# As sysexits.h has it, "temporary failure": the job files restart on it.
EXIT_STATUS = 75


class Preempted(Exception):
  """A run was asked to stop, and can be resumed."""


class Watch:
  """Whether the process was asked to stop."""

  def __init__(self) -> None:
    self._deferred = False
    self._received: int | None = None

  def _stop(self) -> None:
    if self._received == signal.SIGINT:
      raise KeyboardInterrupt
    raise Preempted("stopped as it was asked to; run the same command again.")

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    impatient = self._received == number == signal.SIGINT
    self._received = number
    if jax.process_count() > 1 and not impatient:
      # All processes are to stop at one step: JAX's service tells them.
      os.kill(os.getpid(), signal.SIGTERM)
      return
    if impatient or not self._deferred:
      self._stop()

  @contextlib.contextmanager
  def installed(self) -> Iterator["Watch"]:
    """Listens to signals; only a program's main thread can."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
      wanted = [signal.SIGINT]
      if jax.process_count() == 1:
        wanted.append(signal.SIGTERM)
      before = {n: signal.signal(n, self._handle) for n in wanted}
    try:
      yield self
    finally:
      for number, handler in before.items():
        signal.signal(number, handler)

  @contextlib.contextmanager
  def deferred(self) -> Iterator[None]:
    """Only notes signals; the caller asks `stops_at` and then `stop`s."""
    self._deferred = True
    try:
      yield
    finally:
      self._deferred = False

  def stops_at(self, step: int, num_steps: int = 1) -> bool:
    """Returns whether to save and stop after this step.

    The same on every process of a run; to be asked after every call.

    Args:
      step: number of finished steps.
      num_steps: of the call that was made last.
    """
    if jax.process_count() == 1:
      return self._received is not None
    # The service names one step, any, and wants to be asked of each.
    reached = multihost_utils.reached_preemption_sync_point
    return any([reached(n) for n in range(step - num_steps + 1, step + 1)])

  def stop(self, step: int) -> None:
    """Ends the run, which is saved.

    Raises:
      KeyboardInterrupt: if Ctrl-C was pressed.
      Preempted: otherwise.
    """
    if self._received == signal.SIGINT and jax.process_count() == 1:
      raise KeyboardInterrupt
    raise Preempted(
      f"saved at step {step} and stopped, as it was asked to; run the same "
      "command again to go on."
    )
