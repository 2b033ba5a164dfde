"""Protocols of LFW, CFP and the .bin sets: text in, rows out."""

import numpy as np
import pytest

from facesiam_jax.data import pairs
from tests.data import fake_sets

VIEW2 = fake_sets.LFW_LISTS["pairs.txt"]
VIEW1 = fake_sets.LFW_LISTS["pairsDevTrain.txt"]
PEOPLE = fake_sets.LFW_LISTS["people.txt"]


def test_lfw_view_2():
  got = pairs.parse_lfw_pairs(VIEW2)
  assert list(zip(*got, strict=True)) == [
    ("Ada_Lovelace/1", "Ada_Lovelace/3", True, 0),
    ("Ada_Lovelace/2", "Grace_Hopper/1", False, 0),
    ("Mary/1", "Mary/2", True, 1),
    ("Mary/1", "Emmy/1", False, 1),
  ]


def test_lfw_of_the_published_size():
  """Ten folds of 300 and 300, as a loop over the lines would have them."""
  lines, want = ["10\t300"], []
  for fold in range(10):
    for i in range(300):
      lines.append(f"A{i}\t{fold + 1}\t{fold + 2}")
      want.append((f"A{i}/{fold + 1}", f"A{i}/{fold + 2}", True, fold))
    for i in range(300):
      lines.append(f"B{i}\t{i + 1}\tC{i}\t{fold + 1}")
      want.append((f"B{i}/{i + 1}", f"C{i}/{fold + 1}", False, fold))
  got = pairs.parse_lfw_pairs("\r\n".join(lines) + "\r\n")
  assert list(zip(*got, strict=True)) == want


def test_lfw_view_1_is_one_fold():
  got = pairs.parse_lfw_pairs(VIEW1)
  assert got.fold == [0, 0] and got.same == [True, False]
  assert got.second == ["Ada_Lovelace/2", "Mary/2"]


@pytest.mark.parametrize(
  "text, match",
  [
    ("", "line 1"),
    ("ten 300\n", "line 1"),
    ("0 3\n", "line 1"),
    ("1 2 3\n", "line 1"),
    (VIEW2 + "Mary\t1\t2\n", "5 follow"),
    (VIEW2.rsplit("\n", 2)[0], "3 follow"),
    (VIEW2.replace("Mary\t1\t2", "Mary\t1"), "line 4"),
    (VIEW2.replace("Mary\t1\t2", "Mary\tone\t2"), "line 4"),
    (VIEW2.replace("Mary\t1\t2", "Mary\t-1\t2"), "line 4"),
    (VIEW2.replace("Mary\t1\t2", "Mary\t1\tAda\t2"), "line 4"),
    (VIEW2.replace("Emmy\t1", "Mary\t2"), "line 5"),
    ("99999999 99999999\n", "0 follow"),
    ("1\nA\t1\t" + "9" * 5000 + "\nA\t1\tB\t1\n", "line 2"),
  ],
)
def test_other_pair_files_are_refused(text, match):
  with pytest.raises(pairs.BadProtocol, match=match):
    pairs.parse_lfw_pairs(text)


def test_lfw_people():
  assert pairs.parse_lfw_people(PEOPLE) == [
    {"Ada_Lovelace": 3, "Grace_Hopper": 2},
    {"Mary": 2, "Emmy": 1},
  ]
  one = fake_sets.LFW_LISTS["peopleDevTest.txt"]
  assert pairs.parse_lfw_people(one) == [{"Grace_Hopper": 2, "Emmy": 1}]


@pytest.mark.parametrize(
  "text",
  [
    "",
    "2\nAda\t1\n",
    "1\nAda\t1\nMary\t2\n",
    "2\nAda\t1\nAda\t1\n",
    "2\n1\nAda\t1\n1\nAda\t1\n",
    "999999999\n999999999\n",
    "1\nAda\tone\n",
    "Ada\t1\n",
    PEOPLE + "1\nAda\t1\n",
  ],
)
def test_other_people_files_are_refused(text):
  with pytest.raises(pairs.BadProtocol, match="line"):
    pairs.parse_lfw_people(text)


FRONTAL = (
  "1 ../Data/Images/001/frontal/01.jpg\n2 ../Data/Images/001/frontal/02.jpg"
)
PROFILE = (
  "1 ../Data/Images/001/profile/01.jpg\n2 ../Data/Images/002/profile/01.jpg"
)


def test_cfp():
  folds = [("1,2\n", ""), ("2,1\n1,1\n", "1,2\n")]
  got = pairs.cfp_protocol(folds, FRONTAL, PROFILE)
  assert list(zip(*got, strict=True)) == [
    ("001/frontal/01", "002/profile/01", True, 0),
    ("001/frontal/02", "001/profile/01", True, 1),
    ("001/frontal/01", "001/profile/01", True, 1),
    ("001/frontal/01", "002/profile/01", False, 1),
  ]


@pytest.mark.parametrize(
  "folds, first",
  [
    ([("1,3\n", "")], FRONTAL),
    ([("0,1\n", "")], FRONTAL),
    ([("1 2\n", "")], FRONTAL),
    ([("1,2,1\n", "")], FRONTAL),
    ([("1,2\n", "")], FRONTAL.replace("2 ", "1 ")),
    ([("1,2\n", "")], "1 01.jpg\n2 02.jpg"),
    ([("1,2\n", "")], "x y\n"),
  ],
)
def test_other_cfp_files_are_refused(folds, first):
  with pytest.raises(pairs.BadProtocol):
    pairs.cfp_protocol(folds, first, PROFILE)


@pytest.mark.parametrize("count", [10, 6000, 7000, 23, 3])
def test_bin_pairs_follow_each_other_in_stretches(count):
  same = np.arange(count) % 3 == 0
  got, missing = pairs.to_rows(
    pairs.in_folds(same), {str(i): i for i in range(2 * count)}
  )
  assert not missing
  np.testing.assert_array_equal(got.first, 2 * np.arange(count))
  np.testing.assert_array_equal(got.second, 2 * np.arange(count) + 1)
  np.testing.assert_array_equal(got.same, same)
  want, place = [], 0
  for fold in range(10):
    length = count // 10 + (fold < count % 10)
    want += [fold] * length
    place += length
  assert place == count and got.fold.tolist() == want


def test_rows_leave_out_what_is_not_there():
  key_pairs = pairs.KeyPairs(
    ["a", "b", "c"], ["b", "x", "a"], [True, False, True], [0, 0, 1]
  )
  got, missing = pairs.to_rows(key_pairs, {"a": 7, "b": 3, "c": 5})
  assert missing == ["x"]
  np.testing.assert_array_equal(got.first, [7, 5])
  np.testing.assert_array_equal(got.second, [3, 7])
  np.testing.assert_array_equal(got.fold, [0, 1])
  assert got.first.dtype == got.second.dtype == got.fold.dtype == np.int32
  assert got.same.dtype == np.bool_
  empty, missing = pairs.to_rows(key_pairs, {})
  assert len(empty.first) == 0 and missing == ["a", "b", "c", "x"]


def test_blanks_of_any_kind_around_a_number():
  """strip() takes what int() does not: the information separators."""
  assert pairs.parse_cfp_pairs("1\x1c,2 \n\x1f3,\t4\n") == [(1, 2), (3, 4)]
