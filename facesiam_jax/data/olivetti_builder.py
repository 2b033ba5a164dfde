"""The tfds builder of the AT&T faces.

A module of its own, because importing tfds takes seconds; `data.olivetti` is
what callers import. It writes ArrayRecord, and hands encoded PNG bytes to tfds,
so that TensorFlow is never needed.
"""

import io
from collections.abc import Iterator

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from facesiam_jax.data import olivetti

_DESCRIPTION = """
The AT&T (formerly Olivetti Research Laboratory, ORL) database of faces: 40
people, ten grey images of 92x112 pixels of each, taken between April 1992 and
April 1994, with varying light, expression and glasses.
"""

_CITATION = """
@inproceedings{samaria1994parameterisation,
  title={Parameterisation of a stochastic model for human face identification},
  author={Samaria, Ferdinando S. and Harter, Andy C.},
  booktitle={IEEE Workshop on Applications of Computer Vision},
  year={1994}
}
"""


class Olivetti(tfds.core.GeneratorBasedBuilder):
  """40 people x 10 images: image, identity and image_number, both from 0."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=_DESCRIPTION,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(
            shape=(olivetti.HEIGHT, olivetti.WIDTH, 1),
            dtype=np.uint8,
            encoding_format="png",
          ),
          "identity": np.int32,
          "image_number": np.int32,
        }
      ),
      homepage="https://cam-orl.co.uk/facedatabase.html",
      citation=_CITATION,
      # The order of the examples is (person, image), on disk too.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
    del dl_manager  # Nothing is downloaded.
    return {"train": self._generate_examples(olivetti.read_source())}

  def _generate_examples(self, images: np.ndarray) -> Iterator:
    for person in range(olivetti.NUM_PEOPLE):
      for number in range(olivetti.IMAGES_PER_PERSON):
        png = io.BytesIO()
        PIL.Image.fromarray(images[person, number]).save(png, format="PNG")
        # An encoder that is given a file object stores its bytes as they are.
        png.seek(0)
        example = {
          "image": png,
          "identity": person,
          "image_number": number,
        }
        yield person * olivetti.IMAGES_PER_PERSON + number, example
