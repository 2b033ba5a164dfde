"""A run whose disk really fills up: small file systems mounted for the test."""

import os
import pathlib
import subprocess
import sys

import pytest

_WORKER = pathlib.Path(__file__).with_name("full_disk_worker.py")
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


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, pytest.param(12, marks=pytest.mark.soak)])
def test_a_full_disk_is_told_of_and_the_run_ends_with_the_same_bits(
  tmp_path, parts
):
  reason = _cannot_mount(tmp_path)
  if reason:
    pytest.skip(f"cannot mount a small disk: {reason}")
  done = subprocess.run(
    [*_UNSHARE, sys.executable, str(_WORKER), str(tmp_path), str(parts)],
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  said = f"status {done.returncode}\n{done.stdout}{done.stderr[-3000:]}"
  assert done.returncode == 0, said
  full = done.stdout.lower().count("no space left")
  whole = done.stdout.count("room for the whole run")
  assert full + whole == parts and full > parts / 2, said
