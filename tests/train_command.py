"""Runs of the tiny recipe by the command line, in processes of their own."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.training import metric_writer

_STARTED = []
TESTS = pathlib.Path(__file__).parent


def train(folder, *flags, cpu_devices=2):
  """Starts `facesiam train`; what it says can be read from its pipes."""
  path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "facesiam_jax.cli.main", "train"),
      *(f"--config={TESTS / 'tiny_recipe.py'}", f"--workdir={folder}"),
      *(f"--cpu_devices={cpu_devices}", *flags),
    ],
    env={**os.environ, "PYTHONPATH": path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  _STARTED.append(process)
  return process


def end_all():
  """Ends what a failed test left behind."""
  while _STARTED:
    process = _STARTED.pop()
    process.kill()
    process.communicate()


def train_two(folder, *flags):
  """Starts two processes of two devices each."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  together = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
  return [
    train(folder, *together, f"--process_id={number}", *flags)
    for number in range(2)
  ]


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
