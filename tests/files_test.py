"""Tests of facesiam_jax.files: whole or not at all."""

import os
import stat

import pytest

from facesiam_jax import files


def test_text_and_bytes_replace_what_was_there(tmp_path):
  path = tmp_path / "a.txt"
  files.write(path, "old")
  files.write(path, "größer\n")
  assert path.read_text(encoding="utf-8") == "größer\n"
  files.write(path, b"\x00\xff")
  assert path.read_bytes() == b"\x00\xff"
  assert list(tmp_path.iterdir()) == [path]


def test_the_name_changes_only_at_the_end(tmp_path):
  path = tmp_path / "a.bin"
  files.write(path, "old")
  with files.replacing(path) as file:
    file.write(b"new")
    file.flush()
    assert path.read_text() == "old"
  assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
  path = tmp_path / "a.bin"
  files.write(path, "old")
  with pytest.raises(type(error)), files.replacing(path) as file:
    file.write(b"half of")
    raise error
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_at_the_last_moment(tmp_path, monkeypatch):
  path = tmp_path / "a.bin"
  files.write(path, "old")

  def full(descriptor):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space left"):
    files.write(path, "new")
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_any_other(tmp_path):
  files.write(tmp_path / "ours", "")
  (tmp_path / "any").touch()
  mode = lambda name: stat.S_IMODE((tmp_path / name).stat().st_mode)
  assert mode("ours") == mode("any")


def test_missing_folders_are_not_made(tmp_path):
  with pytest.raises(FileNotFoundError):
    files.write(tmp_path / "none" / "a.txt", "x")
