"""What the layouts have in common: finding images in a tree of files."""

import pathlib

from facesiam_jax.data import listing, trees
from facesiam_jax.faces import photo


def in_tree(tree: trees.Tree, problems: listing.Problems) -> list[str]:
  """Returns the names of a tree's image files, sorted.

  Told by suffix, in any case; what lies beside them (lists, licences) is no
  problem, but what could not be looked at is.

  Args:
    tree: the files.
    problems: where what the tree skipped is counted.
  """
  for name, why in tree.skipped.items():
    problems.add("files that could not be looked at", f"{name} {why}")
  return [name for name in tree.files if is_image(name)]


def is_image(name: str) -> bool:
  """Whether a file's suffix is that of an image, in any case."""
  return pathlib.PurePosixPath(name).suffix.lower() in photo.SUFFIXES


def folder_of(name: str) -> str:
  """Returns the name of the folder that a file lies in."""
  return name.split("/")[-2]


def stem_of(name: str) -> str:
  """Returns a file's name without folders and suffix."""
  return pathlib.PurePosixPath(name).stem
