"""Tests of facesiam_jax.gallery.store and sqlite_file."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.gallery import filesystem, sqlite_file
from facesiam_jax.gallery.records import Templates, clean_name
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import DIM, create, templates


def test_what_is_added_is_read_back(tmp_path):
  ada, bob = templates(3, 1), templates(2, 2)
  with create(tmp_path / "g.db") as store:
    assert store.add({"Bob": bob, "Ada": ada}) == (5, [])
    assert store.version() == store.version()
  with Store.open(tmp_path / "g.db") as store:
    assert store.people() == {"Ada": 3, "Bob": 2}
    records = store.records()
    assert store.meta["fingerprint"] == "f" * 64 and store.dim == DIM
    assert store.check() == []
  assert records.template_ids.tolist() == [1, 2, 3, 4, 5]
  assert records.embeddings.dtype == np.float32
  np.testing.assert_array_equal(
    records.embeddings, np.concatenate([bob.embeddings, ada.embeddings])
  )
  names = [records.names[i] for i in records.person_ids.tolist()]
  assert names == ["Bob"] * 2 + ["Ada"] * 3


def test_the_file_is_its_owners_alone(store):
  assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
  assert [p.name for p in store.path.parent.iterdir() if p.name[0] == "."] == []


def test_a_known_name_gets_moretemplates(store):
  store.add({"Ada": templates(2, 1)})
  store.add({" Ada ": templates(1, 2)})
  assert store.people() == {"Ada": 3}


def test_the_same_photo_is_kept_once(store):
  first = templates(2, 1)
  store.add({"Ada": first})
  more = templates(1, 2)
  again = Templates(
    np.concatenate([first.embeddings, more.embeddings]),
    [*first.digests, *more.digests],
    [*first.labels, *more.labels],
  )
  added = store.add({"Ada": again})
  assert added == (1, ["1-0.jpg", "1-1.jpg"])
  assert store.people() == {"Ada": 3}


def test_the_same_photo_under_two_names_is_refused_whole(store):
  store.add({"Ada": templates(2, 1)})
  with pytest.raises(errors.UserError, match="1-0.jpg.*enrolled as 'Ada'"):
    store.add({"Bob": templates(1, 5), "Eve": templates(2, 1)})
  assert store.people() == {"Ada": 2}


def test_template_ids_are_never_used_again(store):
  store.add({"Ada": templates(2, 1), "Bob": templates(2, 2)})
  store.remove("Bob")
  store.add({"Eve": templates(1, 3)})
  assert store.records().template_ids.tolist() == [1, 2, 5]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201, "\udcff", "\0"])
def test_bad_names(store, name):
  with pytest.raises(errors.UserError, match="cannot be enrolled"):
    store.add({"Ada": templates(1, 1), name: templates(1, 2)})
  assert store.people() == {}


def test_accents_have_one_spelling(store):
  store.add({"Zoe\u0308": templates(1, 1), "Zo\u00eb": templates(1, 2)})
  assert store.people() == {"Zo\u00eb": 2}
  assert clean_name("Zoe\u0308") == "Zo\u00eb"
  assert store.remove("Zoe\u0308") == 2


def test_bad_embeddings(store):
  bad = templates(2, 1)
  bad.embeddings[1, 3] = np.nan
  with pytest.raises(errors.UserError, match="1-1.jpg.*not finite"):
    store.add({"Bob": templates(1, 2), "Ada": bad})
  with pytest.raises(ValueError, match="shape"):
    store.add({"Ada": templates(2, 1, dim=5)})
  with pytest.raises(ValueError, match="shape"):
    store.add({"Ada": templates(0, 1)})
  double = templates(1, 1)._replace(embeddings=np.zeros((1, DIM)))
  with pytest.raises(ValueError, match="float32"):
    store.add({"Ada": double})
  assert store.people() == {}


def test_another_bundle_is_refused(store):
  store.check_bundle("f" * 64)
  with pytest.raises(errors.UserError, match="another bundle.*ffffffffffff"):
    store.check_bundle("e" * 64)


def test_removing_somebody_unknown(store):
  store.add({"Annabel": templates(1, 1)})
  with pytest.raises(errors.UserError, match="did you mean 'Annabel'"):
    store.remove("Anabel")
  with pytest.raises(errors.UserError, match="list shows"):
    store.remove("xyz")


def test_versions_tell_changes_by_anybody(store):
  before = store.version()
  store.add({"Ada": templates(1, 1)})
  own = store.version()
  with Store.open(store.path) as other:
    other.add({"Bob": templates(1, 2)})
  assert len({before, own, store.version()}) == 3


def test_another_writer_is_reported(store):
  with contextlib.closing(
    sqlite3.connect(store.path, isolation_level=None)
  ) as writer:
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(errors.UserError, match="another program"):
      store.add({"Ada": templates(1, 1)})
    writer.execute("ROLLBACK")
  store.add({"Ada": templates(1, 1)})


def test_a_full_disk_leaves_the_gallery_as_it_was(store):
  store.add({"Ada": templates(2, 1)})
  (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
  store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
  many = {f"P{i}": templates(50, 10 + i) for i in range(9)}
  with pytest.raises(errors.UserError, match="no space left"):
    store.add(many)
  assert store.people() == {"Ada": 2}
  assert store.check() == []
  store._connection.execute("PRAGMA max_page_count = 100000")
  assert store.add(many).templates == 450


# Stands for a full disk: no file may grow beyond a limit.
_LIMITED = """
import numpy, resource, signal, sys
from facesiam_jax import errors
from facesiam_jax.gallery.records import Templates
from facesiam_jax.gallery.store import Store
from tests.gallery.stores import DIM, create, templates
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
rows = numpy.ones((3000, 6), numpy.float32)
digests = [b"%d" % i for i in range(3000)]
try:
  store = Store.create(
    sys.argv[1], fingerprint="f" * 64, dim=6, metric="cosine")
  store.add({"Ada": Templates(rows, digests, digests)})
except errors.UserError as error:
  print(error)
"""


@pytest.mark.parametrize("limit", [3000, 150_000])
def test_a_file_that_cannot_grow_leaves_nothing_half_written(tmp_path, limit):
  path = tmp_path / "g.db"
  result = subprocess.run(
    [sys.executable, "-c", _LIMITED, str(path), str(limit)],
    capture_output=True,
    text=True,
    check=True,
  )
  assert "g.db" in result.stdout and "device" in result.stdout
  if limit == 3000:
    assert list(tmp_path.iterdir()) == []
  else:
    with Store.open(path) as store:
      assert store.people() == {} and store.check() == []


def test_a_file_that_cannot_be_written(store, monkeypatch):
  def read_only(path, timeout_s):
    del timeout_s
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)

  monkeypatch.setattr(sqlite_file, "_connect", read_only)
  with (
    Store.open(store.path) as other,
    pytest.raises(errors.UserError, match="write permission"),
  ):
    other.add({"Ada": templates(1, 1)})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(errors.UserError, match="permission"):
    create(tmp_path / "g.db")
  tmp_path.chmod(0o700)


@pytest.mark.parametrize(
  "content, message",
  [
    (None, "no such gallery"),
    (b"", "is not a gallery"),
    (b"my shopping list, long enough for a header " * 9, "is not a gallery"),
  ],
)
def test_what_is_no_gallery(tmp_path, content, message):
  path = tmp_path / "g.db"
  if content is not None:
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=message):
      create(path)
  with pytest.raises(errors.UserError, match=message):
    Store.open(path)
  assert not path.exists() if content is None else path.read_bytes() == content


def test_other_databases_and_versions(tmp_path):
  path = tmp_path / "other.db"
  with contextlib.closing(sqlite3.connect(path)) as other:
    other.execute("CREATE TABLE meta(key, value)")
  before = path.read_bytes()
  with pytest.raises(errors.UserError, match="is not a gallery"):
    Store.open(path)
  assert path.read_bytes() == before
  with create(tmp_path / "g.db") as store:
    store._connection.execute("PRAGMA user_version = 7")
  with pytest.raises(errors.UserError, match="version 7"):
    Store.open(tmp_path / "g.db")


def test_places_that_are_refused(tmp_path, monkeypatch):
  with pytest.raises(errors.UserError, match="is a folder"):
    Store.open(tmp_path)
  with pytest.raises(errors.UserError, match="not a local path"):
    create("gs://bucket/g.db")
  with pytest.raises(errors.UserError, match="does not exist"):
    create(tmp_path / "none" / "g.db")
  monkeypatch.setattr(filesystem, "network_type", lambda path: "nfs4")
  with pytest.raises(errors.UserError, match="network file system .nfs4"):
    create(tmp_path / "g.db")
  assert list(tmp_path.iterdir()) == []


def test_odd_characters_in_the_path(tmp_path):
  path = tmp_path / "a b?#%20\u00e9.db"
  with create(path) as store:
    store.add({"Ada": templates(1, 1)})
  with Store.open(path) as store:
    assert store.people() == {"Ada": 1}
  assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_second_name_left_by_a_kill_is_dropped(tmp_path):
  with create(tmp_path / "g.db"):
    pass
  os.link(tmp_path / "g.db", tmp_path / ".g.db.abc123")
  (tmp_path / ".g.db.other").write_text("not the same file")
  with Store.open(tmp_path / "g.db"):
    pass
  left = sorted(p.name for p in tmp_path.iterdir())
  assert left == [".g.db.other", "g.db"]
