"""A gallery on a disk that really fills up."""

import os
import pathlib
import subprocess
import sys

import pytest

_WORKER = pathlib.Path(__file__).with_name("full_disk_worker.py")
_ROOT = str(pathlib.Path(__file__).parents[2])
# A mount namespace of its own, with the right to mount in it: what is mounted
# is seen by nobody else and gone with the process.
_UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]


def _cannot_mount(folder):
  """Returns why this machine cannot mount a small disk, or None."""
  mount = [*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", str(folder)]
  try:
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
  except FileNotFoundError:
    return "there is no `unshare` on this machine"
  return done.stderr.strip() if done.returncode else None


def test_a_full_disk_leaves_the_gallery_as_it_was(tmp_path):
  reason = _cannot_mount(tmp_path)
  if reason:
    pytest.skip(f"cannot mount a small disk: {reason}")
  done = subprocess.run(
    [*_UNSHARE, sys.executable, str(_WORKER), str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "PYTHONPATH": _ROOT},
  )
  said = f"status {done.returncode}\n{done.stdout}{done.stderr[-3000:]}"
  assert done.returncode == 0 and done.stdout == "done\n", said
