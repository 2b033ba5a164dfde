"""A bundle, a gallery of Ada and Bob, and services of it."""

import contextlib
import shutil
import types

import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.cli import main
from facesiam_jax.faces import photo
from facesiam_jax.serving import service
from tests.cli import pixel_bundle


@pytest.fixture(scope="session", name="made")
def _made(tmp_path_factory):
  """What no test changes: the bundle, a gallery, and photos."""
  folder = tmp_path_factory.mktemp("served")
  pixel_bundle.save(folder / "bundle")
  for name, person in (("Ada", 3), ("Bob", 11)):
    argv = ["enroll", "--bundle", folder / "bundle", "--gallery"]
    argv += [folder / "g.db", "--name", name, pixel_bundle.photo(person, 1)]
    assert main.main([str(word) for word in argv]) == 0
  PIL.Image.new("L", (300, 300), 128).save(folder / "none.png")
  return types.SimpleNamespace(
    folder=folder,
    bundle=bundle_lib.load(folder / "bundle"),
    two=pixel_bundle.side_by_side(folder / "two.png", 3, 11),
    three=pixel_bundle.side_by_side(folder / "three.png", 11, 3, 30),
    none=folder / "none.png",
    ada=pixel_bundle.photo(3, 1),
    bob=pixel_bundle.photo(11, 1),
    stranger=pixel_bundle.photo(30, 1),
  )


@pytest.fixture(name="gallery")
def _gallery(made, tmp_path):
  """A copy of the gallery for one test."""
  return shutil.copy(made.folder / "g.db", tmp_path / "g.db")


def _close(service):
  # A test may have done so.
  with contextlib.suppress(RuntimeError):
    service.close()


@pytest.fixture(name="serve")
def _serve(made, gallery):
  """Makes started services; what is not closed by the test is afterwards."""
  with contextlib.ExitStack() as stack:

    def start(**changes):
      settings = {"gallery": gallery} | changes
      one = service.Service(
        made.bundle,
        photo.reader(**made.bundle.framing),
        service.Settings(**settings),
      )
      stack.callback(_close, one)
      one.start()
      return one

    yield start
