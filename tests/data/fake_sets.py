"""Tiny data sets in their official layouts, made of noise."""

import io
import pathlib
import pickle
import tarfile
import zipfile

import numpy as np
import PIL.Image


def jpeg(seed=0, size=(24, 20), mode="RGB", **options):
  """Returns an encoded image of its own, of (width, height)."""
  return encode(pixels(seed, size, mode), "JPEG", **options)


def pixels(seed=0, size=(24, 20), mode="RGB"):
  """Returns noise as a Pillow image."""
  shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
  values = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return PIL.Image.fromarray(values)


def encode(image, kind, **options):
  """Returns a Pillow image as the bytes of a file."""
  file = io.BytesIO()
  image.save(file, format=kind, **options)
  return file.getvalue()


def tree(root, files):
  """Writes name -> bytes or text under a folder; returns the folder."""
  for name, content in files.items():
    path = pathlib.Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(data)
  return pathlib.Path(root)


def tar(path, files):
  """Writes name -> bytes as a .tar; returns its path."""
  with tarfile.open(path, "w") as archive:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      archive.addfile(member, io.BytesIO(data))
  return path


def zipped(path, files):
  """Writes name -> bytes as a .zip; returns its path."""
  with zipfile.ZipFile(path, "w") as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return path


def people(num_people=4, num_images=3, top=""):
  """Returns <top>person<p>/<i>.jpg -> bytes."""
  return {
    f"{top}person{p}/{i}.jpg": jpeg(100 * p + i)
    for p in range(num_people)
    for i in range(num_images)
  }


def celeba(root, rows, images=None, *, identities=None, partition=None):
  """Writes CelebA's three files.

  Args:
    root: the folder.
    rows: (image name, person, partition) of each row of the lists.
    images: names of the images that are there; None means those of all rows.
    identities: content of identity_CelebA.txt, else of rows.
    partition: content of list_eval_partition.txt, else of rows.
  """
  root.mkdir(parents=True, exist_ok=True)
  if images is None:
    images = dict.fromkeys(name for name, _, _ in rows)
  zipped(
    root / "img_align_celeba.zip",
    {f"img_align_celeba/{n}": jpeg(i) for i, n in enumerate(images)},
  )
  if identities is None:
    identities = "".join(f"{name} {person}\n" for name, person, _ in rows)
  if partition is None:
    partition = "".join(f"{name} {part}\n" for name, _, part in rows)
  tree(
    root,
    {"identity_CelebA.txt": identities, "list_eval_partition.txt": partition},
  )
  return root


def celeba_rows(num_people=6, num_images=3):
  """Returns rows for `celeba`: a third of the people in each partition."""
  return [
    (f"{p * num_images + i + 1:06d}.jpg", 10 + 7 * p, p % 3)
    for p in range(num_people)
    for i in range(num_images)
  ]


LFW_PEOPLE = {"Ada_Lovelace": 3, "Grace_Hopper": 2, "Mary": 2, "Emmy": 1}
LFW_LISTS = {
  "pairs.txt": (
    "2\t1\n"
    "Ada_Lovelace\t1\t3\n"
    "Ada_Lovelace\t2\tGrace_Hopper\t1\n"
    "Mary\t1\t2\n"
    "Mary\t1\tEmmy\t1\n"
  ),
  "pairsDevTrain.txt": "1\nAda_Lovelace\t1\t2\nAda_Lovelace\t1\tMary\t2\n",
  "pairsDevTest.txt": "1\nGrace_Hopper\t2\t1\nGrace_Hopper\t1\tEmmy\t1\n",
  "people.txt": "2\n2\nAda_Lovelace\t3\nGrace_Hopper\t2\n2\nMary\t2\nEmmy\t1\n",
  "peopleDevTrain.txt": "2\nAda_Lovelace\t3\nMary\t2\n",
  "peopleDevTest.txt": "2\nGrace_Hopper\t2\nEmmy\t1\n",
}


def lfw(root, tree_name="lfw", lists=None):
  """Writes LFW's layout with four people."""
  files = {
    f"{tree_name}/{name}/{name}_{n:04d}.jpg": jpeg(10 * p + n)
    for p, (name, count) in enumerate(LFW_PEOPLE.items())
    for n in range(1, count + 1)
  }
  return tree(root, files | (LFW_LISTS if lists is None else lists))


def cfp(root):
  """Writes CFP's layout: two people, two frontal and two profile images."""
  files = {"Data/list_name.txt": "Ada Lovelace\nGrace Hopper\n"}
  lists = {"frontal": "", "profile": ""}
  for view in lists:
    for number in range(4):
      name = (
        f"Data/Images/{number // 2 + 1:03d}/{view}/{number % 2 + 1:02d}.jpg"
      )
      files[name] = jpeg(number + 50 * (view == "profile"))
      lists[view] += f"{number + 1} ../{name}\n"
  files["Protocol/Pair_list_F.txt"] = lists["frontal"]
  files["Protocol/Pair_list_P.txt"] = lists["profile"]
  for fold in ("01", "02"):
    place = f"Protocol/Split/%s/{fold}/"
    files[place % "FF" + "same.txt"] = "1,2\n"
    files[place % "FF" + "diff.txt"] = "2,3\n"
    files[place % "FP" + "same.txt"] = "1,2\n4,3\n"
    files[place % "FP" + "diff.txt"] = "1,4\n"
  return tree(root, files)


def vggface2(root):
  """Writes VGGFace2's layout: two training people, one test person."""
  return tree(
    root,
    {
      f"{split}/{who}/{n:04d}_01.jpg": jpeg(int(who[1:]) + 100 * n)
      for split, who in (
        ("train", "n000002"),
        ("train", "n000003"),
        ("test", "n000001"),
      )
      for n in range(2)
    },
  )


def insightface_bin(path, num_pairs=20, protocol=4, images=None):
  """Writes a .bin set; every other pair is of one person."""
  if images is None:
    images = [jpeg(i, (16, 16)) for i in range(2 * num_pairs)]
  same = [i % 2 == 0 for i in range(num_pairs)]
  path.write_bytes(pickle.dumps((images, same), protocol=protocol))
  return path
