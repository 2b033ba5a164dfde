"""Tests of facesiam_jax.gallery.filesystem."""

import pathlib

from facesiam_jax.gallery import filesystem

_MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local xfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
tmpfs /over tmpfs rw 0 0
host:/x /over fuse.sshfs rw 0 0
"""


def _type(path):
  return filesystem.network_type(pathlib.Path(path), _MOUNTS)


def test_the_deepest_mount_counts():
  assert _type("/var/g.db") is None
  assert _type("/home/ada/g.db") == "nfs4"
  assert _type("/home/local/g.db") is None
  assert _type("/homes/g.db") is None


def test_escaped_and_hidden_mounts():
  assert _type("/mnt/my share/g.db") == "cifs"
  assert _type("/mnt/g.db") is None
  assert _type("/over/g.db") == "fuse.sshfs"


def test_links_are_followed(tmp_path):
  link = tmp_path / "link"
  link.symlink_to("/home")
  assert _type(link / "g.db") == "nfs4"


def test_no_mount_table(monkeypatch):
  monkeypatch.setattr(filesystem, "_MOUNTS", pathlib.Path("/no/such/table"))
  assert filesystem.network_type(pathlib.Path("/home")) is None
