"""What feed.py reads: JPEG files, and the same in ArrayRecord files."""

import io
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any


def jpegs(folder: pathlib.Path, scratch: pathlib.Path) -> list[pathlib.Path]:
  """Returns the JPEG files, sorted by person and image."""
  if folder.is_file():
    with tarfile.open(folder) as tar:
      tar.extractall(scratch / "photos", filter="data")
    folder = scratch / "photos"
  found = sorted(folder.rglob("*.jpg"))
  if not found:
    raise SystemExit(f"there is no JPEG in {folder}; give --photos.")
  return found


def write_records(paths: list[pathlib.Path], scratch: pathlib.Path) -> str:
  """Writes the files as a tfds data set; returns its folder."""
  import tensorflow_datasets as tfds

  class BenchmarkFaces(tfds.core.GeneratorBasedBuilder):
    """The files as they are, in order."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
      features = {
        "image": tfds.features.Image(
          shape=(112, 112, 3), encoding_format="jpeg"
        ),
        "identity": tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager: object) -> dict[str, Any]:
      del dl_manager
      return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
      for number, path in enumerate(paths):
        image = io.BytesIO(path.read_bytes())
        yield number, {"image": image, "identity": path.parent.name}

  tfds.disable_progress_bar()
  builder = BenchmarkFaces(
    data_dir=str(scratch / "tfds"), file_format="array_record"
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(try_download_gcs=False)
  )
  return str(builder.data_path)
