"""Files of a tfds data set: examples in, ArrayRecord and metadata out.

tfds is loaded here and nowhere else but in `prepared` and `olivetti`, and never
TensorFlow: an image goes in as a file object, whose bytes tfds stores as they
are.
"""

import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

VERSION = "1.0.0"
SUFFIX = "array_record"


class Example(NamedTuple):
  """One image of a prepared data set.

  Attributes:
    image: JPEG or PNG, 8 bits, grey or RGB, upright.
    identity: number of the person, -1 where it is not known.
    name: of the person.
    image_number: number of the image.
    file: what it was made of.
  """

  image: bytes
  identity: int
  name: str
  image_number: int
  file: str


class Split(NamedTuple):
  """Files of a split.

  Attributes:
    name: "train", "validation" or "test".
    lengths: examples in each of its files, each at least 1.
    num_bytes: of all examples.
  """

  name: str
  lengths: list[int]
  num_bytes: int


def _tfds() -> Any:
  with warnings.catch_warnings():
    # tfds and what it imports warn about their own deprecations.
    warnings.simplefilter("ignore")
    import tensorflow_datasets as tfds
  return tfds


def features(encoding: str = "jpeg") -> Any:
  """Returns the tfds features of `Example`.

  Args:
    encoding: what most images are, "jpeg" or "png"; readers look at the bytes.
  """
  tfds = _tfds()
  image = tfds.features.Image(
    shape=(None, None, 3), dtype=np.uint8, encoding_format=encoding
  )
  return tfds.features.FeaturesDict(
    {
      "image": image,
      "identity": np.int64,
      "name": tfds.features.Text(),
      "image_number": np.int64,
      "file": tfds.features.Text(),
    }
  )


def write(path: pathlib.Path, examples: Iterator[Example]) -> tuple[int, int]:
  """Writes examples to an ArrayRecord file, to the disk, and reads them back.

  Args:
    path: the file, which is made or replaced.
    examples: what goes into it, in order.

  Returns:
    Number of examples, and their bytes.

  Raises:
    OSError, RuntimeError: if it cannot be written, or reads back otherwise.
  """
  from array_record.python import array_record_module

  features_dict = features()
  digest, lengths = hashlib.sha256(), []
  writer = array_record_module.ArrayRecordWriter(
    os.fspath(path), "group_size:1"
  )
  try:
    for example in examples:
      row = example._asdict() | {"image": io.BytesIO(example.image)}
      record = features_dict.serialize_example(row)
      writer.write(record)
      digest.update(record)
      lengths.append(len(record))
  finally:
    writer.close()
  with path.open("rb+") as file:
    os.fsync(file.fileno())
  if _digest(path) != digest.digest():
    raise RuntimeError("what was written reads back wrong")
  return len(lengths), sum(lengths)


def _digest(path: pathlib.Path) -> bytes:
  from array_record.python import array_record_module

  digest = hashlib.sha256()
  reader = array_record_module.ArrayRecordReader(os.fspath(path))
  try:
    for first in range(0, reader.num_records(), 64):
      last = min(first + 64, reader.num_records())
      for record in reader.read(first, last):
        digest.update(record)
  finally:
    reader.close()
  return digest.digest()


def file_name(dataset: str, split: str, number: int, count: int) -> str:
  """Returns tfds's name of a file of a split."""
  return f"{dataset}-{split}.{SUFFIX}-{number:05d}-of-{count:05d}"


def write_metadata(
  folder: pathlib.Path,
  dataset: str,
  splits: Sequence[Split],
  *,
  encoding: str,
  text: str,
) -> None:
  """Writes what tfds needs to read the files of a folder.

  Args:
    folder: holds them, under the names of `file_name`.
    dataset: name of the data set.
    splits: what is there.
    encoding: as in `features`.
    text: a description.
  """
  tfds = _tfds()
  template = tfds.core.ShardedFileTemplate(
    data_dir=folder, dataset_name=dataset, filetype_suffix=SUFFIX
  )
  infos = [
    tfds.core.SplitInfo(
      name=split.name,
      shard_lengths=split.lengths,
      num_bytes=split.num_bytes,
      filename_template=template.replace(split=split.name),
    )
    for split in splits
  ]
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds.folder_dataset.write_metadata(
      data_dir=folder,
      features=features(encoding),
      split_infos=infos,
      version=VERSION,
      check_data=False,
      description=text,
    )


def read(folder: pathlib.Path, split: str) -> Iterator[Example]:
  """Reads the examples of a split, in order.

  Args:
    folder: holds the files and their metadata.
    split: one that has examples.

  Yields:
    The examples; images stay encoded.
  """
  tfds = _tfds()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    source = tfds.builder_from_directory(folder).as_data_source(
      split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
  for row in source:
    yield Example(
      image=row["image"],
      identity=int(row["identity"]),
      name=row["name"].decode(),
      image_number=int(row["image_number"]),
      file=row["file"].decode(),
    )
