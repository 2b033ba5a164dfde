"""Trains on a real disk that fills up; run by full_disk_test.py.

  python full_disk_worker.py FOLDER PARTS

FOLDER is mounted anew as a small disk in memory, so this must run in a mount
namespace of its own. The run is given room for 0/PARTS, 1/PARTS, ... of what
an undisturbed one took, must say that the disk is full, and must end with the
bits of the undisturbed run once there is room. Prints what each attempt said.

How much a run takes is not the same each time: tensorstore writes a checkpoint
as 20 to 40 files, by how its threads happen to meet, and so one run took 0.54
MB and the next 0.76. With more than half of the room a run may fit; with less
it must not.
"""

import faulthandler
import os
import pathlib
import subprocess
import sys

import jax

_TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

import numpy as np  # noqa: E402
import tiny  # noqa: E402

from facesiam_jax import bundle as bundle_lib  # noqa: E402
from facesiam_jax import errors  # noqa: E402
from facesiam_jax.training import metric_writer, run  # noqa: E402

_SIZE = 16 << 20


def _weights(folder):
  bundle = bundle_lib.load(folder / "bundle")
  return [np.asarray(x) for x in jax.tree.leaves(bundle.variables)]


def _used(folder):
  files = os.statvfs(folder)
  return (files.f_blocks - files.f_bavail) * files.f_frsize


def _fill(folder, room):
  """Leaves `room` bytes on the disk of a folder; returns the file in the way.

  The bytes are written, not only promised, so that they are truly gone.
  """
  free = _SIZE - _used(folder)
  ballast = folder / "ballast"
  ballast.write_bytes(bytes(max(free - room, 0)))
  return ballast


def _try(folder):
  """Trains; returns what a user is told, or None where all was done."""
  try:
    run.train(tiny.config(ema_decay=0.9), folder)
  except errors.UserError as error:
    return str(error)
  return None


def main():
  disk, parts = pathlib.Path(sys.argv[1]), int(sys.argv[2])
  mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(disk)]
  subprocess.run(mount, check=True)
  whole = disk / "whole"
  assert _try(whole) is None
  needed = _used(disk)
  for part in range(parts):
    folder = disk / f"run-{part}"
    ballast = _fill(disk, needed * part // parts)
    said = _try(folder)
    if said is None:
      assert 2 * part > parts, f"part {part}: trained on a full disk"
      said = "there was room for the whole run"
    else:
      assert "no space left" in said.lower(), said
      assert not (folder / "bundle" / "bundle.json").exists()
    step = (metric_writer.read_metrics(folder) or [{"step": 0}])[-1]["step"]
    told = f"{part}/{parts} after step {step}: {said}"
    print(told.replace(str(disk), ""), flush=True)
    ballast.unlink()
    assert _try(folder) is None, "there was room again"
    for a, b in zip(_weights(whole), _weights(folder), strict=True):
      np.testing.assert_array_equal(a, b)
    assert (folder / "metrics.jsonl").read_bytes() == (
      whole / "metrics.jsonl"
    ).read_bytes()
    subprocess.run(["rm", "-r", str(folder)], check=True)


if __name__ == "__main__":
  faulthandler.enable()  # says where, should a signal end this
  jax.config.update("jax_num_cpu_devices", 8)
  main()
