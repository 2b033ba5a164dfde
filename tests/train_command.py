"""Runs of the tiny recipe by the command line, in processes of their own."""

import os
import pathlib
import subprocess
import sys
import time

import jax
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.training import metric_writer

_STARTED = []
TESTS = pathlib.Path(__file__).parent


def _start(command, folder, flags):
  path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
  recipe = (f"--config={TESTS / 'tiny_recipe.py'}", f"--workdir={folder}")
  process = subprocess.Popen(
    [sys.executable, *command, *recipe, *flags],
    env={**os.environ, "PYTHONPATH": path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  _STARTED.append(process)
  return process


def train(folder, *flags, cpu_devices=2):
  """Starts `facesiam train`; what it says can be read from its pipes."""
  command = ("-m", "facesiam_jax.cli.main", "train")
  return _start(command, folder, (f"--cpu_devices={cpu_devices}", *flags))


def end_all():
  """Ends what a failed test left behind."""
  while _STARTED:
    process = _STARTED.pop()
    process.kill()
    process.communicate()


def train_two(folder, *flags, grace_s=60):
  """Starts launch/local.py with two processes of two devices each."""
  launcher = (str(TESTS.parent / "launch" / "local.py"), "--processes=2")
  options = ("--devices=2", f"--grace={grace_s}", "--", "train")
  return _start((*launcher, *options), folder, flags)


def child(launcher, number):
  """Returns the process id of one of the two."""
  listed = f"/proc/{launcher.pid}/task/{launcher.pid}/children"
  for pid in pathlib.Path(listed).read_text().split():
    command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    if f"--process_id={number}".encode() in command.split(b"\0"):
      return int(pid)
  raise AssertionError(f"process {number} is not there")


def said_by(number, text):
  """Returns the lines of one of the two."""
  start = f"[{number}] "
  lines = [x for x in text.splitlines() if x.startswith(start)]
  return [line.removeprefix(start) for line in lines]


def finish(process, status=0):
  """Waits for the end with this status; returns what was said."""
  said, told = process.communicate(timeout=300)
  assert process.returncode == status, told
  return said, told


def wait_for_lines(process, folder, lines):
  """Waits until so many lines of metrics are there."""
  deadline = time.monotonic() + 300
  while len(metric_writer.read_metrics(folder)) < lines:
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.01)


def assert_same_run(folder, other):
  """The same weights, optimizer's state and metrics, to the bit."""
  lines = [(run / "metrics.jsonl").read_bytes() for run in (folder, other)]
  assert lines[0] == lines[1]
  for a, b in zip(_weights(folder), _weights(other), strict=True):
    np.testing.assert_array_equal(a, b)


def _weights(folder):
  bundle = bundle_lib.load(folder / "bundle")
  return [np.asarray(x) for x in jax.tree.leaves(bundle.variables)]
