"""What goes into a gallery file and comes out of it."""

import datetime
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax import errors

_MAX_NAME = 200
_MAX_TERM = 500
# Well above what float32 loses in a weighted sum.
_LEAST_QUALITY = 1e-6


class Templates(NamedTuple):
  """What is to be enrolled under one name.

  Attributes:
    embeddings: float32 [N, D].
    digests: what tells one source from another, N values.
    labels: what to call each source in a message, such as its path, N values.
    sources: where each came from, N values; none at all where none is known.
    quality: what each weighs in a weighted mean, N values of 1e-6 to 1, such as
      `grading.weight` gives, None where it is not known, which weighs 1; none
      at all where none is known.
  """

  embeddings: np.ndarray
  digests: Sequence[bytes]
  labels: Sequence[str]
  sources: "Sequence[Source]" = ()
  quality: Sequence[float | None] = ()


class Source(NamedTuple):
  """Where a template came from, as far as that is known.

  Attributes:
    name: of the file, without its folder.
    sha256: of the file's bytes, 32 bytes.
    enrolled: when, in seconds since 1970; None for now.
  """

  name: str | None = None
  sha256: bytes | None = None
  enrolled: int | None = None


class Terms(NamedTuple):
  """On what terms somebody is enrolled; None where it is not said.

  Attributes:
    consent: a reference to their consent, such as a document's number.
    purpose: what they are enrolled for.
    expires: the day, YYYY-MM-DD, from which on `Store.expire` removes them.
  """

  consent: str | None = None
  purpose: str | None = None
  expires: str | None = None


class Member(NamedTuple):
  """What a gallery knows of one person.

  Attributes:
    name: as enrolled.
    templates: how many.
    oldest: when the oldest template was enrolled, in seconds since 1970; None
      where that is not known.
    newest: the same of the newest.
    terms: Terms.
  """

  name: str
  templates: int
  oldest: int | None
  newest: int | None
  terms: Terms


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
    quality: what each weighs in a weighted mean, float32 [G]; 1 where that is
      not known.
    names: person id -> name.
  """

  template_ids: np.ndarray
  person_ids: np.ndarray
  embeddings: np.ndarray
  quality: np.ndarray
  names: dict[int, str]


class Block(NamedTuple):
  """Some templates as they are stored.

  Attributes:
    template_ids: int32 [N].
    person_ids: int32 [N].
    vectors: the embeddings, float32 [N, D]; or int8 levels.
    scales: what a row of levels is multiplied by, float32 [N]; None without.
    quality: as of `Records`, float32 [N].
  """

  template_ids: np.ndarray
  person_ids: np.ndarray
  vectors: np.ndarray
  scales: np.ndarray | None
  quality: np.ndarray

  def cut(self, first: int, last: int | None = None) -> "Block":
    """Returns the rows from `first` on, and before `last`."""
    return self._replace(
      **{name: rows[first:last] for name, rows in self.arrays().items()}
    )

  def then(self, other: "Block") -> "Block":
    """Returns these rows and those of another block of the same storage."""
    both = {
      name: np.concatenate([own, getattr(other, name)])
      for name, own in self.arrays().items()
    }
    return self._replace(**both)

  def arrays(self) -> dict[str, np.ndarray]:
    """Returns the arrays by name, without those that are None."""
    return {k: v for k, v in self._asdict().items() if v is not None}


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


def clean_terms(terms: Terms) -> Terms:
  """Returns terms in the one form in which they are stored.

  Args:
    terms: any text; the day as YYYY-MM-DD.

  Returns:
    The terms without space around them.

  Raises:
    UserError: if one is empty, over 500 characters or not printable, or the
      day is none.
  """
  cleaned = {}
  for field, text in terms._asdict().items():
    if text is None:
      continue
    cleaned[field] = text = unicodedata.normalize("NFC", text).strip()
    if not text or len(text) > _MAX_TERM or not text.isprintable():
      raise errors.UserError(
        f"--{field}={text!r} cannot be stored: use 1 to {_MAX_TERM} printable "
        "characters."
      )
  if "expires" in cleaned:
    try:
      day = datetime.date.fromisoformat(cleaned["expires"])
    except ValueError as error:
      raise errors.UserError(
        f"--expires={cleaned['expires']} is no day: give one as YYYY-MM-DD."
      ) from error
    cleaned["expires"] = day.isoformat()
  return Terms(**cleaned)


def is_quality(values: ArrayLike) -> bool:
  """Returns whether weights of templates can be stored and searched with."""
  weights = np.asarray(values, np.float64)
  return bool(((weights >= _LEAST_QUALITY) & (weights <= 1)).all())


def check_templates(
  people: Sequence[tuple[str, Templates]], dim: int, metric: str
) -> None:
  """Refuses embeddings that cannot be compared.

  Args:
    people: names with their templates.
    dim: the D that they must have.
    metric: of the gallery; by "cosine" a zero vector is like nothing.

  Raises:
    UserError: if one is not finite, or zero.
    ValueError: for a wrong shape or dtype, and a quality beyond 1e-6 to 1.
  """
  for name, templates in people:
    embeddings, count = templates.embeddings, len(templates.digests)
    if embeddings.shape != (count, dim) or count == 0:
      raise ValueError(
        f"{name}: embeddings must have shape [{count or 'N > 0'}, {dim}], "
        f"got {embeddings.shape}."
      )
    if embeddings.dtype != np.float32:
      raise ValueError(
        f"{name}: embeddings must be float32, got {embeddings.dtype}."
      )
    weights = templates.quality
    if not len(weights):
      continue
    known = [weight for weight in weights if weight is not None]
    if not is_quality(known) or len(weights) != count:
      raise ValueError(
        f"{name}: quality must be {count} numbers of {_LEAST_QUALITY:g} to 1, "
        f"got {list(weights)}."
      )
  rows = np.concatenate(
    [np.zeros((0, dim), np.float32), *(t.embeddings for _, t in people)]
  )
  not_finite = ~np.isfinite(rows).all(axis=1)
  zero = ~rows.any(axis=1) & (metric == "cosine")
  for bad, what in ((not_finite, "not finite"), (zero, "zero")):
    if bad.any():
      labels = [label for _, t in people for label in t.labels]
      raise errors.UserError(
        f"{labels[int(np.argmax(bad))]}: its embedding is {what}; look at the "
        "picture, and evaluate the bundle."
      )
