"""What goes into a gallery file and comes out of it."""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from facesiam_jax import errors

_MAX_NAME = 200


class Templates(NamedTuple):
  """What is to be enrolled under one name.

  Attributes:
    embeddings: float32 [N, D].
    digests: what tells one source from another, N values.
    labels: what to call each source in a message, such as its path, N values.
  """

  embeddings: np.ndarray
  digests: Sequence[bytes]
  labels: Sequence[str]


class Added(NamedTuple):
  """What an enrolment did.

  Attributes:
    templates: how many were added.
    duplicates: labels of the sources that were enrolled already.
  """

  templates: int
  duplicates: list[str]


class Records(NamedTuple):
  """A whole gallery, in the order of the template ids.

  Attributes:
    template_ids: int32 [G], ascending.
    person_ids: int32 [G].
    embeddings: float32 [G, D].
    names: person id -> name.
  """

  template_ids: np.ndarray
  person_ids: np.ndarray
  embeddings: np.ndarray
  names: dict[int, str]


def clean_name(name: str) -> str:
  """Returns a person's name in the one form in which it is stored.

  Args:
    name: any text; accents may be composed or not (macOS splits them).

  Returns:
    The name in Unicode form C, without space around it.

  Raises:
    UserError: if it is empty, over 200 characters, or not printable text.
  """
  cleaned = unicodedata.normalize("NFC", name).strip()
  if not cleaned or len(cleaned) > _MAX_NAME or not cleaned.isprintable():
    raise errors.UserError(
      f"The name {name!r} cannot be enrolled: use 1 to {_MAX_NAME} printable "
      "characters."
    )
  return cleaned
