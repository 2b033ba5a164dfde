"""The gallery: enrolled people, exact search, one SQLite file.

`search` is pure and imports JAX alone; the names below bring the file with
them and are therefore loaded on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from facesiam_jax.gallery.gallery import Gallery, Identification, Match
  from facesiam_jax.gallery.store import Store

__all__ = [
  "Gallery",
  "Identification",
  "Match",
  "Store",
]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  room = "store" if name == "Store" else "gallery"
  return getattr(importlib.import_module(f"{__name__}.{room}"), name)
