"""A base of what must be closed, and does not hide why it was."""

from types import TracebackType
from typing import Self


class Closing:
  """Has `close` called at the end of a `with`.

  What went wrong inside is not hidden by what goes wrong in closing: a full
  disk fails both, and the first says more.
  """

  def close(self) -> None:
    """Releases what is held."""

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    try:
      self.close()
    except Exception:
      if error is None:
        raise
