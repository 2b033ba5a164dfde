"""Real photos for tests, where they are."""

import os
import pathlib

import pytest


def folder():
  """Returns the folder with photos.tar, or skips the test."""
  given = os.environ.get("FACESIAM_SHARED_DATA")
  root = pathlib.Path(__file__).resolve().parents[1]
  data = pathlib.Path(given) if given else root.parent / "shared" / "data"
  if not (data / "photos.tar").is_file():
    pytest.skip(
      f"{data / 'photos.tar'} is not there; set FACESIAM_SHARED_DATA to the"
      " folder that holds it"
    )
  return data
