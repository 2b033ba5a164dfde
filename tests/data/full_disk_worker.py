"""Prepares a data set on a disk that is too small, then large enough.

Usage: full_disk_worker.py FOLDER, in a mount namespace of its own.
"""

import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image

from facesiam_jax import errors
from facesiam_jax.data import catalogue, preparing


def _mount(place, size, *options):
  subprocess.run(
    ["mount", "-t", "tmpfs", *options, "-o", size, "tmpfs", str(place)],
    check=True,
  )


def _source(folder):
  """Forty images of 12 kB that cannot be packed."""
  for number in range(40):
    path = folder / f"person{number // 4}" / f"{number % 4}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3))
    PIL.Image.fromarray(noise.astype(np.uint8)).save(path)


def _prepare(source, root):
  options = catalogue.Options(source, num_validation=0, num_test=0)
  return catalogue.prepare("folder", options, data_dir=str(root))[0]


def main(folder):
  """Fills the disk at several moments; prints a line for each."""
  preparing.PART = 8
  _source(folder / "source")
  small = folder / "small"
  small.mkdir()
  _mount(small, "size=16k")
  for size in (16, 60, 120, 200, 320, 400, 480, 520, 560):
    _mount(small, f"remount,size={size}k", "-o", "remount")
    try:
      made = _prepare(folder / "source", small)
    except errors.UserError as error:
      assert "No space left" in str(error) and "--data_dir" in str(error), error
      assert not list(small.glob("folder/*/1.0.0"))
      print("full:", error)
      continue
    print("made:", made.num_images("train"))
  _mount(small, "remount,size=4m", "-o", "remount")
  made = _prepare(folder / "source", small)
  made.check()
  files = {e.file: e.image for e in made.rows()}
  source = folder / "source"
  wanted = {
    str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*.png")
  }
  assert files == wanted
  assert not list(small.glob("*.incomplete"))


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
