"""Published layouts: who is in which split, which images, which pairs."""

import os
import pathlib
import shutil

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, trees
from facesiam_jax.data.sources import (
  celeba,
  cfp,
  folder,
  insightface_bin,
  lfw,
  vggface2,
)
from tests.data import fake_sets


def _list(module, path, *, strict=False, **options):
  problems = listing.Problems(strict=strict)
  with module.opened(
    catalogue.Options(pathlib.Path(path), **options), problems
  ) as (variant, content):
    return variant, content


def _splits(content):
  return {item.name: item.split for item in content.items}


def _shared(name):
  given = os.environ.get("FACESIAM_SHARED_DATA")
  root = pathlib.Path(__file__).resolve().parents[3]
  data = pathlib.Path(given) if given else root.parent / "shared" / "data"
  if not (data / name).exists():
    pytest.skip(f"{data / name} is not there; set FACESIAM_SHARED_DATA")
  return data / name


# The folder layout.


@pytest.mark.parametrize("top", ["", "faces/", "a/b/"])
@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_any_tree_of_people(tmp_path, top, kind):
  files = fake_sets.people(3, 2, top)
  path = {
    "folder": lambda: fake_sets.tree(tmp_path / "x", files),
    "tar": lambda: fake_sets.tar(tmp_path / "x.tar", files),
    "zip": lambda: fake_sets.zipped(tmp_path / "x.zip", files),
  }[kind]()
  variant, content = _list(folder, path, num_validation=1, num_test=1)
  assert variant == "x" and not content.problems.counts
  got = {(i.file, i.identity, i.name, i.number) for i in content.items}
  assert got == {
    (f"{top}person{p}/{n}.jpg", p, f"person{p}", n)
    for p in range(3)
    for n in range(2)
  }
  assert sorted(_splits(content).values()) == ["test", "train", "validation"]


def test_a_person_stays_in_his_split_when_others_come(tmp_path):
  names = [f"p{n}" for n in range(300)]
  few = {f"{name}/1.jpg": b"x" for name in names[:100]}
  many = {f"{name}/1.jpg": b"x" for name in names}
  one = _splits(_list(folder, fake_sets.tree(tmp_path / "a", few))[1])
  two = _splits(_list(folder, fake_sets.tree(tmp_path / "b", many))[1])
  assert {name: two[name] for name in one} == one
  counts = np.unique(list(two.values()), return_counts=True)
  shares = dict(zip(*counts, strict=True))
  assert 15 <= shares["test"] <= 45 and 15 <= shares["validation"] <= 45


def test_the_hash_is_written_down():
  """Results are compared across machines and releases."""
  assert listing.draw("7201") == listing.draw("07201")
  assert round(listing.draw("7201"), 6) == 0.348159
  assert round(listing.draw("Zoë"), 6) == round(listing.draw("Zoe\u0308"), 6)
  names = [str(n) for n in range(100)]
  assert listing.lowest(names, 3) == listing.lowest(names[::-1], 3)
  assert len(listing.lowest(names, 0)) == 0


def test_accents_do_not_make_two_people(tmp_path):
  files = {"Zoë/1.jpg": b"x", "Zoe\u0308/2.jpg": b"y", "Ann Lee/ü 1.JPG": b"z"}
  _, content = _list(
    folder, fake_sets.tree(tmp_path / "x", files), num_validation=0, num_test=0
  )
  assert {(i.identity, i.name) for i in content.items} == {
    (0, "Ann Lee"),
    (1, "Zoë"),
  }


def test_images_at_another_depth_are_counted(tmp_path):
  files = fake_sets.people(2, 2, "top/") | {"stray.jpg": b"", "top/x.jpg": b""}
  files |= {"top/person0/more/1.jpg": b"", "top/list.txt": b""}
  _, content = _list(folder, fake_sets.tree(tmp_path / "x", files))
  assert len(content.items) == 4
  assert content.problems.counts == {
    "images that are not in <person>/<image>": 3
  }
  with pytest.raises(errors.UserError, match="--strict"):
    _list(folder, tmp_path / "x", strict=True)


def test_a_partition_file_by_person_and_by_image(tmp_path):
  path = fake_sets.tree(tmp_path / "x", fake_sets.people(4, 2))
  by_person = tmp_path / "people.txt"
  by_person.write_text(
    "# who\nperson0\ttrain\t9\nperson1\tvalidation\nperson2\ttest\nnobody\ttest"
  )
  _, content = _list(folder, path, partition=by_person)
  assert _splits(content) == {
    "person0": "train",
    "person1": "validation",
    "person2": "test",
  }
  assert content.problems.counts == {"people in no partition": 1}
  files = {f"a/{n}.jpg": b"x" for n in range(4)}
  files |= {f"b/{n}.jpg": b"x" for n in range(4, 6)}
  path = fake_sets.tree(tmp_path / "y", files)
  by_image = tmp_path / "list_eval_partition.txt"
  by_image.write_text("".join(f"{n}.jpg {2 * (n > 3)}\n" for n in range(9)))
  assert _splits(_list(folder, path, partition=by_image)[1]) == {
    "a": "train",
    "b": "test",
  }
  by_image.write_text("1.jpg 0\n2.jpg 2\n")
  with pytest.raises(errors.UserError, match="a person must be in one"):
    _list(folder, path, partition=by_image)


@pytest.mark.parametrize(
  "text", ["person0\n", "person0\tnowhere\n", "a b c 3\n", "\xff\xfe"]
)
def test_other_partition_files_are_refused(tmp_path, text):
  path = fake_sets.tree(tmp_path / "x", fake_sets.people(2, 2))
  (tmp_path / "p.txt").write_bytes(text.encode("latin1"))
  with pytest.raises(errors.UserError, match="p.txt"):
    _list(folder, path, partition=tmp_path / "p.txt")


def test_more_people_than_there_are(tmp_path):
  path = fake_sets.tree(tmp_path / "x", fake_sets.people(3, 2))
  with pytest.raises(errors.UserError, match="--num_validation=2"):
    _list(folder, path, num_validation=2, num_test=2)


# CelebA.


def test_celeba_has_its_own_numbers(tmp_path):
  root = fake_sets.celeba(tmp_path, fake_sets.celeba_rows(6, 3))
  variant, content = _list(celeba, root)
  assert variant == "" and not content.problems.counts
  want = {
    (f"img_align_celeba/{name}", listing.SPLITS[part], person, int(name[:6]))
    for name, person, part in fake_sets.celeba_rows(6, 3)
  }
  got = {(i.file, i.split, i.identity, i.number) for i in content.items}
  assert got == want
  assert {i.name for i in content.items} == {str(10 + 7 * p) for p in range(6)}


def test_celeba_in_the_framing_of_a_template(tmp_path):
  root = fake_sets.celeba(tmp_path, fake_sets.celeba_rows())
  variant, content = _list(celeba, root, alignment="arcface_112")
  assert variant == content.alignment == "arcface_112"
  # The eyes lie 0.46 of the template's side from the top, and halfway between
  # its sides; in CelebA's pictures at 111 or so of 218, and at 88.5 of 178.
  left, top, side = content.box
  assert abs((111 - top * 218) / (side * 178) - 0.46) < 0.01
  assert abs((88.5 - left * 178) / (side * 178) - 0.5) < 0.01
  assert top * 218 + side * 178 < 218 and left + side < 1
  with pytest.raises(errors.UserError, match="--alignment=dlib_150"):
    _list(celeba, root, alignment="dlib_150")
  assert _list(celeba, root)[1].box is None


def test_celeba_unpacked_is_the_same(tmp_path):
  root = fake_sets.celeba(tmp_path, fake_sets.celeba_rows())
  before = [i.number for i in _list(celeba, root)[1].items]
  shutil.unpack_archive(root / "img_align_celeba.zip", root)
  (root / "img_align_celeba.zip").unlink()
  assert [i.number for i in _list(celeba, root)[1].items] == before


def test_celeba_counts_what_does_not_match(tmp_path):
  rows = fake_sets.celeba_rows(3, 2)
  identities = "".join(f"{n} {p}\n" for n, p, _ in rows[:5])
  identities += f"{rows[0][0]} {rows[0][1]}\n{rows[1][0]} 999\n"
  identities += "200000.jpg 5\n200001.jpg 5\n"
  partition = "".join(f"{n} {part}\n" for n, _, part in rows if n != rows[2][0])
  root = fake_sets.celeba(
    tmp_path, rows, identities=identities, partition=partition
  )
  _, content = _list(celeba, root)
  assert content.problems.counts == {
    "repeated rows in identity_CelebA.txt": 1,
    "files to which identity_CelebA.txt gives two different numbers": 1,
    "rows of identity_CelebA.txt without an image": 2,
    "images that identity_CelebA.txt does not name": 2,
    "images that list_eval_partition.txt does not name": 1,
  }
  assert [i.number for i in content.items] == [1, 4, 5]
  with pytest.raises(errors.UserError, match="--strict"):
    _list(celeba, root, strict=True)


def test_celeba_refuses_a_person_in_two_partitions(tmp_path):
  rows = [("000001.jpg", 5, 0), ("000002.jpg", 5, 2)]
  with pytest.raises(errors.UserError, match="person 5"):
    _list(celeba, fake_sets.celeba(tmp_path, rows))


@pytest.mark.parametrize(
  "file", ["identity_CelebA.txt", "list_eval_partition.txt", "x.zip"]
)
def test_celeba_names_the_missing_file(tmp_path, file):
  root = fake_sets.celeba(tmp_path, fake_sets.celeba_rows())
  (root / "img_align_celeba.zip").rename(root / "x.zip")
  (root / "x.zip").rename(root / "img_align_celeba.zip")
  target = "img_align_celeba.zip" if file == "x.zip" else file
  (root / target).unlink()
  with pytest.raises(errors.UserError, match=target):
    _list(celeba, root)


@pytest.mark.parametrize(
  "line",
  ["000001.jpg", "000001.jpg x", "000001.jpg -3", "000001.jpg 1.5", " 7",
   "000001.jpg " + "9" * 5000, "000001.jpg 99999999999"],
)  # fmt: skip
def test_celeba_names_the_bad_line(tmp_path, line):
  root = fake_sets.celeba(
    tmp_path, fake_sets.celeba_rows(), identities=f"000003.jpg 5\n{line}\n"
  )
  with pytest.raises(errors.UserError, match="identity_CelebA.txt, line 2"):
    _list(celeba, root)


def _full_lists(wrong=0):
  """Lists of the published size, with so many people in another partition."""
  people = [
    (person, part)
    for part, split in enumerate(listing.SPLITS)
    for person in range(celeba.NUM_PEOPLE[split])
  ]
  identities, parts = {}, {}
  for number in range(celeba.NUM_IMAGES):
    person = number % len(people)
    part = people[person][1]
    if person < wrong:
      part = 2
    identities[f"{number:06d}.jpg"] = person
    parts[f"{number:06d}.jpg"] = part
  return identities, parts


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_full_set_has_the_published_people(tmp_path, monkeypatch, wrong):
  identities, parts = _full_lists(wrong)
  found = {"identity_CelebA.txt": identities, "list_eval_partition.txt": parts}
  monkeypatch.setattr(
    celeba.lists, "read_numbers", lambda path, *a, **k: found[path.name]
  )
  files = {f"img_align_celeba/{name}": "" for name in identities}
  tree = trees.Tree(tmp_path, files, {}, lambda name: b"")
  problems = listing.Problems()
  if wrong:
    with pytest.raises(errors.UserError, match="8192"):
      celeba.read(tree, tmp_path, problems)
    return
  content = celeba.read(tree, tmp_path, problems)
  people = {i.identity: i.split for i in content.items}
  counts = np.unique(list(people.values()), return_counts=True)
  assert dict(zip(*counts, strict=True)) == celeba.NUM_PEOPLE


def test_celeba_people_can_be_moved(tmp_path):
  root = fake_sets.celeba(tmp_path / "c", fake_sets.celeba_rows(6, 2))
  (tmp_path / "people.txt").write_text("00010\tvalidation\n31\ttest\n5\ttest\n")
  _, content = _list(
    celeba, root, partition=tmp_path / "people.txt", num_validation=0
  )
  # Officially 10, 31: train; 17, 38: validation; 24, 45: test.
  assert _splits(content) == {
    "10": "validation",
    "17": "validation",
    "24": "test",
    "31": "test",
    "38": "validation",
    "45": "test",
  }


# LFW.


def test_lfw(tmp_path):
  root = fake_sets.lfw(tmp_path)
  variant, content = _list(lfw, root)
  assert variant == "original" and content.alignment == "lfw_original"
  assert not content.problems.counts and not content.facts["missing"]
  assert _splits(content) == {
    "Ada_Lovelace": "train",
    "Mary": "train",
    "Grace_Hopper": "test",
    "Emmy": "test",
  }
  assert sorted(content.protocols) == ["view1_test", "view1_train", "view2"]
  view2 = content.protocols["view2"]
  assert view2.first[0] == "Ada_Lovelace/Ada_Lovelace_0001.jpg"
  assert view2.second[3] == "Emmy/Emmy_0001.jpg"
  assert content.facts["folds"] == [
    ["Ada_Lovelace", "Grace_Hopper"],
    ["Emmy", "Mary"],
  ]


@pytest.mark.parametrize(
  "tree_name, variant",
  [
    ("lfw_funneled", "funneled"),
    ("lfw-deepfunneled", "deepfunneled"),
    ("lfw-deepfunneled/lfw-deepfunneled", "deepfunneled"),
  ],
)
def test_lfw_variants(tmp_path, tree_name, variant):
  root = fake_sets.lfw(tmp_path, tree_name, lists={})
  assert _list(lfw, root)[0] == variant
  _, content = _list(lfw, root, variant=variant)
  assert set(_splits(content).values()) == {"test"}
  assert "pairs.txt" in content.facts["missing"] and not content.protocols
  fake_sets.lfw(tmp_path)
  with pytest.raises(errors.UserError, match="--variant"):
    _list(lfw, root)
  assert _list(lfw, root, variant="original")[0] == "original"


def test_lfw_counts_what_does_not_match(tmp_path):
  root = fake_sets.lfw(tmp_path)
  shutil.move(root / "lfw/Mary/Mary_0002.jpg", root / "lfw/Mary/Jane_0002.jpg")
  fake_sets.tree(root, {"lfw/Zoe/Zoe_0001.jpg": fake_sets.jpeg(5)})
  _, content = _list(lfw, root)
  assert content.problems.counts == {
    "images that are not named <Name>/<Name>_0001.jpg": 1,
    "people with other images than peopleDevTrain.txt counts": 1,
    "people who are in neither list of View 1": 1,
  }


@pytest.mark.parametrize(
  "file, text, match",
  [
    ("pairs.txt", "10 300\nAda 1 2\n", "pairs.txt"),
    ("people.txt", "10\n601\nAda 1\n", "people.txt"),
    (
      "peopleDevTest.txt",
      fake_sets.LFW_LISTS["peopleDevTrain.txt"],
      "nobody in common",
    ),
  ],
)
def test_lfw_lists_that_are_not_the_published_ones(tmp_path, file, text, match):
  root = fake_sets.lfw(tmp_path)
  (root / file).write_text(text)
  with pytest.raises(errors.UserError, match=match):
    _list(lfw, root)


@pytest.mark.parametrize(
  "module, match",
  [(lfw, "unpack LFW"), (cfp, "cfp-dataset"), (vggface2, "train and test")],
)
def test_a_folder_without_the_layout_is_refused(tmp_path, module, match):
  fake_sets.tree(tmp_path, {"a/1.jpg": b"x"})
  with pytest.raises(errors.UserError, match=match):
    _list(module, tmp_path)


# CFP and VGGFace2.


@pytest.mark.parametrize("kind", ["", "cfp-dataset", "zip"])
def test_cfp(tmp_path, kind):
  root = fake_sets.cfp(tmp_path / kind)
  if kind == "zip":
    shutil.make_archive(str(tmp_path / "cfp"), "zip", root)
    root = tmp_path / "cfp.zip"
  _, content = _list(cfp, root if kind != "cfp-dataset" else tmp_path)
  assert not content.problems.counts and not content.facts["missing"]
  assert {(i.identity, i.name, i.number) for i in content.items} == {
    (p, name, n)
    for p, name in ((1, "Ada Lovelace"), (2, "Grace Hopper"))
    for n in (1, 2, 101, 102)
  }
  assert set(_splits(content).values()) == {"test"}
  fp = content.protocols["FP"]
  assert len(fp.first) == 6 and len(content.protocols["FF"].first) == 4
  assert fp.first[1].endswith("Data/Images/002/frontal/02.jpg")
  assert fp.second[1].endswith("Data/Images/002/profile/01.jpg")
  assert fp.same == [True, True, False] * 2 and fp.fold == [0, 0, 0, 1, 1, 1]


def test_cfp_without_or_with_damaged_protocols(tmp_path):
  root = fake_sets.cfp(tmp_path)
  (root / "Protocol/Split/FP/02/diff.txt").unlink()
  with pytest.raises(errors.UserError, match="02/diff.txt"):
    _list(cfp, root)
  shutil.rmtree(root / "Protocol/Split/FP")
  assert _list(cfp, root)[1].facts["missing"] == ["FP"]
  (root / "Protocol/Split/FF/01/same.txt").write_text("1,99\n")
  with pytest.raises(errors.UserError, match="FF.*1,99"):
    _list(cfp, root)


def test_vggface2(tmp_path):
  root = fake_sets.vggface2(tmp_path)
  _, content = _list(vggface2, root)
  assert _splits(content) == {
    "n000001": "test",
    "n000002": "train",
    "n000003": "train",
  }
  assert {i.identity for i in content.items} == {1, 2, 3}
  fake_sets.tree(root, {"test/n000002/1.jpg": b"x"})
  with pytest.raises(errors.UserError, match="n000002 is in train and in test"):
    _list(vggface2, root)


# insightface's .bin.


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_insightface_bin(tmp_path, protocol):
  path = fake_sets.insightface_bin(tmp_path / "agedb_30.bin", 20, protocol)
  variant, content = _list(insightface_bin, path)
  assert variant == "agedb_30" and content.alignment == "arcface_112"
  assert [content.tree.read(i.file) for i in content.items] == [
    fake_sets.jpeg(n, (16, 16)) for n in range(40)
  ]
  found = content.protocols["pairs"]
  assert found.same == [True, False] * 10
  assert found.fold == [n // 2 for n in range(20)]


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b"hello",
    b"]q\x00.",
    b"(]]t.",
    b"(](I1\nI1\nI1\netI5\n.",
    b"cos\nsystem\n(S'true'\ntR.",
  ],
)
def test_other_bin_files_are_refused(tmp_path, content):
  (tmp_path / "x.bin").write_bytes(content)
  with pytest.raises(errors.UserError, match="x.bin is not one of") as caught:
    _list(insightface_bin, tmp_path / "x.bin")
  assert "\n" not in str(caught.value)
  with pytest.raises(errors.UserError, match="is no file"):
    _list(insightface_bin, tmp_path)


# Real files, where they are.


def test_celeba_manual_as_documented():
  _, content = _list(celeba, _shared("celeba_manual"))
  people = [i.identity for i in content.items]
  assert len(people) == 10_000 and set(_splits(content).values()) == {"train"}
  counts = np.unique(people, return_counts=True)[1]
  assert len(counts) == 5429 and np.sum(counts >= 2) == 2854
  assert content.problems.counts == {
    "rows of identity_CelebA.txt without an image": 192_599
  }


def test_no_validation_or_test_person_is_trained_on(tmp_path):
  """The documented split, in both files that have CelebA's people."""
  partition = _shared("celeba_manual") / "list_eval_partition.txt"
  _, wild = _list(
    folder,
    _shared("celeba_wild112.tar"),
    partition=partition,
    num_validation=40,
  )
  splits = _splits(wild)
  counts = np.unique(list(splits.values()), return_counts=True)
  people = {"train": 197, "validation": 40, "test": 58}
  assert dict(zip(*counts, strict=True)) == people
  images = np.unique([i.split for i in wild.items], return_counts=True)
  assert dict(zip(*images, strict=True))["test"] == 1246
  # By CelebA's own list, and not by what the code made of it.
  lists = [_shared("celeba_manual") / "identity_CelebA.txt", partition]
  identities, parts = (
    dict(line.split() for line in path.read_text().splitlines())
    for path in lists
  )
  for item in wild.items:
    image = item.file.split("/")[-1]
    assert int(identities[image]) == int(item.name)
    assert (parts[image] == "2") == (item.split == "test")
  (tmp_path / "people.txt").write_text(
    "".join(f"{name}\t{split}\n" for name, split in splits.items())
  )
  _, manual = _list(
    celeba,
    _shared("celeba_manual"),
    partition=tmp_path / "people.txt",
  )
  held_out = {int(n) for n, split in splits.items() if split != "train"}
  trained = {i.identity for i in manual.items if i.split == "train"}
  trained |= {int(n) for n, split in splits.items() if split == "train"}
  assert len(held_out) == 98 and not held_out & trained
  left = {i.identity for i in manual.items if i.split != "train"}
  assert left and left <= held_out


def test_pins_and_photos_as_documented():
  _, pins = _list(folder, _shared("pins112.tar"))
  names = [i.name for i in pins.items]
  counts = np.unique(names, return_counts=True)[1]
  assert len(counts) == 70 and set(counts) == {60}
  _, photos = _list(folder, _shared("photos.tar"))
  assert len(photos.items) == 100 and len(_splits(photos)) == 25
  assert photos.problems.counts == {
    "images that are not in <person>/<image>": 12
  }
