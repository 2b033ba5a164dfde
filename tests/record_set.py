"""Small tfds data sets in ArrayRecord files, for tests of what reads them."""

import contextlib
import io
import warnings

import numpy as np
import PIL.Image

SIZE = 12


def faces(num_people=6, images_per_person=5, size=SIZE, channels=3):
  """Random images whose mean tells the person; ids that are not 0..M-1."""
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(num_people) * 7 + 40, images_per_person)
  ids = ids[rng.permutation(len(ids))]
  images = rng.integers(0, 256, (len(ids), size, size, channels), np.uint8)
  return images, ids


def png(pixels):
  """The bytes of a PNG."""
  file = io.BytesIO()
  PIL.Image.fromarray(pixels.squeeze()).save(file, format="PNG")
  return file.getvalue()


def write(folder, images, ids, *, kind="png", extra=None):
  """Writes a data set and returns its folder.

  Args:
    folder: a new folder.
    images: arrays, or bytes that are written as they are.
    ids: numbers or texts.
    kind: "png" for encoded images, "array" for plain ones.
    extra: features to leave out, by name.
  """
  with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    from tensorflow_datasets.core import registered

    # One class for each set, all of one name.
    with registered.skip_registration():
      builder = _builder(tfds, folder, images, ids, kind, extra or ())
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  return builder.data_path


def _builder(tfds, folder, images, ids, kind, left_out):
  arrays = [x for x in images if isinstance(x, np.ndarray)]
  shapes = {x.shape for x in arrays}
  shape = shapes.pop() if len(shapes) == 1 else (None, None, 3)
  text = isinstance(ids[0], str)
  features = {
    "image": tfds.features.Image(shape=shape, encoding_format="png")
    if kind == "png"
    else tfds.features.Tensor(shape=shape, dtype=np.uint8),
    "identity": tfds.features.Text() if text else np.int64,
  }

  class SmallFaces(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {k: v for k, v in features.items() if k not in left_out}
        ),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for number, (image, person) in enumerate(zip(images, ids, strict=True)):
        if kind == "png":
          image = io.BytesIO(image if isinstance(image, bytes) else png(image))
        example = {"image": image, "identity": person}
        yield number, {k: v for k, v in example.items() if k not in left_out}

  return SmallFaces(data_dir=str(folder), file_format="array_record")


def load(config, image_size):
  """A data set for config.dataset.name = "record_set:load"."""
  from facesiam_jax.data import records, sets

  faces = records.open_faces(config.data_dir, size=image_size)
  people = tuple(range(6))
  count = config.num_validation
  return sets.DataSet(faces, people[count:], people[:count], test=(6, 7))
