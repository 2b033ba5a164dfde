"""Runs one facesiam command as N processes of M CPU devices on this machine.

  python launch/local.py --processes=2 --devices=2 -- train --config=olivetti \\
    --workdir=runs/two

Each process gets --coordinator, --num_processes, --process_id, --cpu_devices.
Their lines come out with the process's number before them. When one ends badly
the others are ended too: SIGTERM, the grace time, SIGKILL. SIGTERM and SIGINT
are passed on; a second one kills at once. Exit status: 0 when all ended with 0;
75 when nothing but pre-emption ended them (all that was learned is saved: run
it again); else that of the first process that ended badly, 128 + n for a
signal n. Standard library only.
"""

import argparse
import contextlib
import dataclasses
import errno
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, BinaryIO

PREEMPTED = 75
_TICK_S = 0.1
# 1 is PR_SET_PDEATHSIG, 9 is SIGKILL.
_GUARD = (
  "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
  "os.execvp(sys.argv[1], sys.argv[1:])"
)


@dataclasses.dataclass
class _Child:
  """One process and what it has said.

  Attributes:
    number: its place among the processes.
    process: the process, in a session of its own.
    status: exit status, 128 + n for a signal n; None while it runs.
    partial: for each of its two streams the line not yet ended.
  """

  number: int
  process: subprocess.Popen[bytes]
  status: int | None = None
  partial: dict[int, bytes] = dataclasses.field(default_factory=dict)

  def signal(self, number: int) -> None:
    """Sends a signal to the process alone; its helpers are its own affair."""
    if self.status is None:
      # Popen.send_signal would reap one that has just ended.
      os.kill(self.process.pid, number)

  def kill(self) -> None:
    """Kills the process and whatever it started."""
    if self.status is None:
      os.killpg(self.process.pid, signal.SIGKILL)

  def has_ended(self) -> bool:
    """Whether it has ended just now; takes its status and ends its helpers."""
    if self.status is not None:
      return False
    # Not yet reaped, it still holds its process group, so that the group's
    # number cannot be another's.
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    if os.waitid(os.P_PID, self.process.pid, how) is None:
      return False
    with contextlib.suppress(PermissionError):  # macOS: only the ended is left
      os.killpg(self.process.pid, signal.SIGKILL)
    code = self.process.wait()
    self.status = code if code >= 0 else 128 - code
    return True


def reserve_port() -> tuple[socket.socket, int]:
  """Reserves a free port for a server in another process of this user.

  The socket is bound and never listens. Both it and JAX's coordinator (gRPC)
  set SO_REUSEPORT, so the coordinator may bind the port as well; nobody is
  handed it as a free one as long as the socket is open.

  Returns:
    (socket, port); close the socket when the server is no longer needed.
  """
  held = socket.socket()
  held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  held.bind(("", 0))
  return held, held.getsockname()[1]


def _guarded(command: Sequence[str]) -> list[str]:
  """Has the kernel kill a process when the launcher is gone (Linux).

  The process asks for that itself before it becomes the command: what runs
  between fork and exec here would not be safe beside other threads.
  """
  if shutil.which(command[0]) is None:
    raise FileNotFoundError(errno.ENOENT, "there is no program", command[0])
  if sys.platform != "linux":
    return [*command]
  return [sys.executable, "-IS", "-c", _GUARD, *command]


def _say(sentence: str) -> None:
  print(f"launch/local.py: {sentence}", file=sys.stderr, flush=True)


def _told(status: int) -> str:
  """Returns an exit status in words."""
  if status > 128:
    try:
      return f"was killed by {signal.Signals(status - 128).name}"
    except ValueError:
      pass
  if status == PREEMPTED:
    return f"was pre-empted (status {status})"
  return f"ended with status {status}"


def _result(statuses: Sequence[int]) -> int:
  """Returns the launcher's status from the processes', in order of ending."""
  bad = [s for s in statuses if s not in (0, PREEMPTED)]
  return bad[0] if bad else max(statuses)


class _Launch:
  """The processes of one launch, from their start to the end of the last."""

  def __init__(self, grace_s: float) -> None:
    self.grace_s = grace_s
    self.deadline: float | None = None
    self.ended: list[int] = []
    self.signals: list[int] = []
    self.selector = selectors.DefaultSelector()
    self.children: list[_Child] = []

  def start(self, commands: Sequence[Sequence[str]]) -> None:
    """Starts a process for each command."""
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    for number, guarded in enumerate([_guarded(one) for one in commands]):
      process = subprocess.Popen(
        guarded,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
      )
      child = _Child(number, process)
      self.children.append(child)
      self._listen(child, process.stdout, sys.stdout.buffer)
      self._listen(child, process.stderr, sys.stderr.buffer)

  def _listen(
    self, child: _Child, pipe: IO[bytes] | None, out: BinaryIO
  ) -> None:
    assert pipe is not None
    os.set_blocking(pipe.fileno(), False)
    self.selector.register(pipe, selectors.EVENT_READ, (child, out))

  def _copy(self, key: selectors.SelectorKey, *, last: bool = False) -> None:
    """Copies what a stream has to say, whole lines unless it is the last."""
    child, out = key.data
    try:
      new = os.read(key.fd, 1 << 16)
    except BlockingIOError:
      return
    if not new:
      self._close(key)
    text = child.partial.pop(key.fd, b"") + new
    # A progress bar ends its line with a carriage return.
    *lines, rest = re.split(rb"(?<=\n)|(?<=\r)(?!\n)", text)
    if rest and (last or not new):
      lines.append(rest + b"\n")
    elif rest:
      child.partial[key.fd] = rest
    prefix = b"[%d] " % child.number
    out.write(b"".join(prefix + line for line in lines))
    out.flush()

  def _close(self, key: selectors.SelectorKey) -> None:
    self.selector.unregister(key.fileobj)
    key.fileobj.close()  # type: ignore[union-attr]

  def _end_all(self, number: int) -> None:
    """Asks all to end; whoever has not by the deadline is killed."""
    if self.deadline is None:
      self.deadline = time.monotonic() + self.grace_s
      for child in self.children:
        child.signal(number)

  def _notice_ends(self) -> None:
    for child in self.children:
      if child.has_ended():
        assert child.status is not None
        self.ended.append(child.status)
        left = len(self.children) - len(self.ended)
        if child.status and left and self.deadline is None:
          _say(
            f"process {child.number} {_told(child.status)}; ending the other "
            f"{left} (SIGTERM, SIGKILL after {self.grace_s:g} s)."
          )
          self._end_all(signal.SIGTERM)

  def _obey(self) -> None:
    """Passes on what the launcher was told."""
    while self.signals:
      number = self.signals.pop(0)
      again = self.deadline is not None
      _say(
        f"got {signal.Signals(number).name}; "
        + ("killing all now." if again else "passing it on to all.")
      )
      if again:
        self.kill()
      self._end_all(number)

  def kill(self) -> None:
    """Kills all that still run."""
    for child in self.children:
      child.kill()

  def close(self) -> None:
    """Kills all that still run, and waits for them."""
    self.kill()
    for child in self.children:
      child.process.wait()
    for key in list(self.selector.get_map().values()):
      self._close(key)
    self.selector.close()

  def wait(self) -> int:
    """Waits for all; returns the status of the launch."""
    while len(self.ended) < len(self.children):
      for key, _ in self.selector.select(_TICK_S):
        self._copy(key)
      self._obey()
      self._notice_ends()
      if self.deadline is not None and time.monotonic() > self.deadline:
        still = [str(c.number) for c in self.children if c.status is None]
        if still:
          _say(f"process {', '.join(still)} did not end in time; killing.")
        self.deadline = float("inf")
        self.kill()
    for key in list(self.selector.get_map().values()):
      self._copy(key, last=True)
    return _result(self.ended)


def run(commands: Sequence[Sequence[str]], *, grace_s: float) -> int:
  """Runs commands side by side as one job.

  Args:
    commands: program and arguments, one list a process; at least one.
    grace_s: seconds between SIGTERM and SIGKILL, >= 0.

  Returns:
    The exit status, as the module says.

  Raises:
    OSError: if a command cannot be started; none is left running.
  """
  launch = _Launch(grace_s)
  hear = lambda number, _: launch.signals.append(number)
  before = {
    number: signal.signal(number, hear)
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    launch.start(commands)
    return launch.wait()
  finally:
    launch.close()
    for number, handler in before.items():
      signal.signal(number, handler)


def _at_least(least: float, kind: type) -> Callable[[str], float]:
  def parse(text: str) -> float:
    if kind(text) < least:
      raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
    return kind(text)

  parse.__name__ = kind.__name__  # what argparse calls it in its error
  return parse


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  usage = "launch/local.py [flags] -- VERB [flags of facesiam VERB]"
  parser = argparse.ArgumentParser(
    usage=usage,
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    "--processes", type=_at_least(1, int), default=2, help="default 2"
  )
  parser.add_argument(
    "--devices", type=_at_least(1, int), default=1, help="of each; default 1"
  )
  parser.add_argument(
    "--grace",
    type=_at_least(0, float),
    default=60.0,
    help="seconds from SIGTERM to SIGKILL; default 60",
  )
  parser.add_argument("command", nargs="+", metavar="VERB")
  return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command line.

  Args:
    argv: the words after the program's name; None takes those of the process.

  Returns:
    The exit status.
  """
  args = _parse(argv)
  verb, *rest = args.command
  held, port = reserve_port()
  commands = [
    [
      *(sys.executable, "-m", "facesiam_jax.cli.main", verb),
      f"--coordinator=127.0.0.1:{port}",
      f"--num_processes={args.processes}",
      f"--process_id={number}",
      f"--cpu_devices={args.devices}",
      *rest,
    ]
    for number in range(args.processes)
  ]
  with held:
    return run(commands, grace_s=args.grace)


if __name__ == "__main__":
  sys.exit(main())
