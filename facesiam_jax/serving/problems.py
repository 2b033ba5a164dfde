"""What keeps a request from being answered, told in one sentence."""

import sqlite3

from facesiam_jax import errors
from facesiam_jax.faces.photo import NoUsableFace


class Problem(errors.UserError):
  """A sentence for whoever asked, and the HTTP status that goes with it.

  Attributes:
    status: 4xx if the request is at fault, 5xx if the service is.
  """

  def __init__(self, sentence: str, status: int):
    """Makes the error."""
    super().__init__(sentence)
    self.status = status


def status(error: errors.UserError) -> int:
  """Returns the HTTP status of an error.

  Args:
    error: raised while a request was answered.

  Returns:
    503 where the gallery's file is at fault, else 422.
  """
  if isinstance(error, Problem):
    return error.status
  return 503 if isinstance(error.__cause__, sqlite3.Error) else 422


def of_photo(name: str, faces: int) -> NoUsableFace:
  """Returns the error for a photo that does not show one face.

  Args:
    name: of the photo.
    faces: how many of like size it shows, 0 or more than 1.
  """
  if not faces:
    return NoUsableFace(
      "no face",
      f"No face was found in {name}: give another photo, upright and from the "
      "front.",
    )
  return NoUsableFace(
    "several faces",
    f"{faces} faces of like size were found in {name}: give a photo of one "
    "person, or say which face is meant.",
  )
