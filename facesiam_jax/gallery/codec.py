"""Rows of a gallery file as they are in memory and as they are stored."""

from typing import NamedTuple


class PersonRow(NamedTuple):
  """A row of the table of people.

  Attributes:
    id: of the person.
    name: as enrolled; stored, what they are looked up by.
    consent: see `records.Terms`.
    purpose: the same.
    expires: the same.
    sealed: what is stored encrypted; None in memory.
  """

  id: int
  name: str
  consent: str | None = None
  purpose: str | None = None
  expires: str | None = None
  sealed: bytes | None = None


class TemplateRow(NamedTuple):
  """A row of the table of templates.

  Attributes:
    id: of the template.
    person_id: whose it is.
    digest: what tells one source from another.
    source: name of the file that it came from.
    file_hash: SHA-256 of that file's bytes.
    enrolled: when, in seconds since 1970.
    embedding: as `tables.encode` makes it; stored, maybe encrypted with the
      rest.
    quality: what it weighs in a weighted mean, None where that is not known;
      stored, 1 where it is encrypted with the embedding.
  """

  id: int
  person_id: int
  digest: bytes
  source: str | None
  file_hash: bytes | None
  enrolled: int | None
  embedding: bytes
  quality: float | None = None


class Clear:
  """Stores rows as they are.

  Attributes:
    is_sealed: whether stored rows are encrypted.
  """

  is_sealed = False

  def index(self, name: str) -> str:
    """Returns what a name is looked up by."""
    return name

  def blind(self, digest: bytes) -> bytes:
    """Returns what a source's digest is looked up by."""
    return digest

  def seal_person(self, row: PersonRow) -> PersonRow:
    """Returns the row to store."""
    return row

  def open_person(self, row: PersonRow) -> PersonRow:
    """Returns the row that was stored; UserError if it is damaged."""
    return row

  def seal_template(self, row: TemplateRow) -> TemplateRow:
    """Returns the row to store."""
    return row

  def open_template(self, row: TemplateRow) -> TemplateRow:
    """Returns the row that was stored; UserError if it is damaged."""
    return row
