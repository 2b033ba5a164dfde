"""Siamese face recognition in JAX: train, measure, recognise.

Example:
  bundle = facesiam_jax.load("RUN/bundle")
  with facesiam_jax.Gallery.open("G.db", bundle, create=True) as gallery:
    gallery.enroll("Ada", ada_images)
    print(gallery.identify(images)[0].name)

Importing the package loads nothing heavy: the names below load what they need
on first use, and every room (`facesiam_jax.losses`, ...) is imported by itself.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from facesiam_jax.bundle import load
  from facesiam_jax.gallery.gallery import Gallery

__version__ = "0.1.0"

__all__ = [
  "Gallery",
  "load",
]

_ROOMS = {"Gallery": "gallery.gallery", "load": "bundle"}


def __getattr__(name: str) -> Any:
  if name not in _ROOMS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
