"""Files of a folder, a .tar or a .zip, read one by one and never unpacked.

All three look alike from outside: names relative to the top, with slashes.
Nothing is written anywhere, links of an archive are not followed, a folder is
entered once however many links lead to it, and no file may be larger than
`MAX_FILE_BYTES`, whatever an archive claims about it.
"""

import contextlib
import dataclasses
import os
import pathlib
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from facesiam_jax import errors

# A photo of 200 million pixels has less.
MAX_FILE_BYTES = 256 * 2**20


class Unreadable(Exception):
  """One file of a tree cannot be read; its message says why."""


@dataclasses.dataclass(frozen=True)
class Tree:
  """Files by name.

  Attributes:
    path: the folder or archive, for messages.
    files: name relative to the top -> what tells whether the file changed
      (size and time, or size and checksum), in sorted order of the names.
    skipped: name -> why it was passed over.
    read: returns a file's bytes; raises Unreadable.
  """

  path: pathlib.Path
  files: dict[str, str]
  skipped: dict[str, str]
  read: Callable[[str], bytes]


def hidden(name: str) -> bool:
  """Whether a file is the system's and not the user's (.x, __MACOSX/x)."""
  parts = name.split("/")
  return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


@contextlib.contextmanager
def open_tree(path: str | os.PathLike[str]) -> Iterator[Tree]:
  """Opens a folder, a .tar or a .zip for reading.

  Args:
    path: which it is follows from what is there, and for a file from its
      content.

  Yields:
    The tree; `read` works until the end of the `with`.

  Raises:
    UserError: if it is missing, unreadable, neither of the three, compressed
      as a whole (.tar.gz), damaged, or holds a member whose name leads out of
      the archive.
  """
  path = pathlib.Path(path)
  with contextlib.ExitStack() as stack:
    try:
      tree = _opener(path)(path, stack)
    except OSError as error:
      raise errors.UserError(
        f"{path} cannot be read ({error.strerror}): check the path and its"
        " permissions."
      ) from error
    yield tree


def _opener(
  path: pathlib.Path,
) -> Callable[[pathlib.Path, contextlib.ExitStack], Tree]:
  if path.is_dir():
    return _folder
  if not path.is_file():
    problem = "is no file" if path.exists() else "does not exist"
    raise errors.UserError(
      f"{path} {problem}: give a folder, a .tar or a .zip with --manual_dir."
    )
  with path.open("rb") as file:
    head = file.read(512)
  if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
    return _zip
  if head[257:262] == b"ustar":
    return _tar
  if head[:2] in (b"\x1f\x8b", b"BZ") or head[:6] == b"\xfd7zXZ\x00":
    raise errors.UserError(
      f"{path} is compressed as a whole, which cannot be read file by file:"
      " unpack it, and give the folder or the plain .tar."
    )
  raise errors.UserError(
    f"{path} is neither a folder nor a .tar nor a .zip: give one of these, or"
    " copy it again if it should be one."
  )


def _folder(path: pathlib.Path, stack: contextlib.ExitStack) -> Tree:
  del stack  # Nothing is held open.
  files: dict[str, str] = {}
  skipped: dict[str, str] = {}
  _walk(path, files, skipped)

  def read(name: str) -> bytes:
    try:
      with (path / name).open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
      raise Unreadable(error.strerror or str(error)) from error
    if len(data) > MAX_FILE_BYTES:
      raise Unreadable("larger than a photo can be")
    return data

  return Tree(path, dict(sorted(files.items())), skipped, read)


def _walk(
  top: pathlib.Path, files: dict[str, str], skipped: dict[str, str]
) -> None:
  """Fills files and skipped with what is in a folder and below."""
  seen: set[tuple[int, int]] = set()
  folders = [""]
  while folders:
    inner = folders.pop()
    try:
      info = os.stat(top / inner)
      entries = sorted(os.scandir(top / inner), key=lambda entry: entry.name)
    except OSError as error:
      if not inner:
        raise
      skipped[inner] = f"cannot be read ({error.strerror})"
      continue
    # Links can make a circle, or show one folder under many names.
    if (info.st_dev, info.st_ino) in seen:
      skipped[inner] = "is a folder that was read under another name"
      continue
    seen.add((info.st_dev, info.st_ino))
    for entry in entries:
      name = f"{inner}/{entry.name}" if inner else entry.name
      if hidden(entry.name):
        continue
      kind, why = _look(entry)
      if kind == "folder":
        folders.append(name)
      elif kind == "file":
        files[name] = why
      else:
        skipped[name] = why


def _look(entry: os.DirEntry[str]) -> tuple[str, str]:
  """Returns ("folder", ""), ("file", its stamp) or ("", why neither)."""
  try:
    info = entry.stat()
  except OSError as error:
    if entry.is_symlink():
      return "", "is a link that leads nowhere"
    return "", f"cannot be read ({error.strerror})"
  if stat.S_ISDIR(info.st_mode):
    return "folder", ""
  if stat.S_ISREG(info.st_mode):
    return "file", f"{info.st_size}/{info.st_mtime_ns}"
  # A pipe would wait for ever.
  return "", "is no regular file"


def _refuse_escape(path: pathlib.Path, name: str) -> None:
  parts = name.replace("\\", "/").split("/")
  if ".." in parts or parts[0] == "" or ":" in parts[0]:
    raise errors.UserError(
      f"{path} holds a file named {name!r}, which would be written outside the"
      " folder it is unpacked in: the archive is not to be trusted, get another"
      " copy."
    )


def _damaged(path: pathlib.Path, error: BaseException) -> errors.UserError:
  problem = " ".join(str(error).split()) or type(error).__name__
  return errors.UserError(
    f"{path} is damaged or cut short ({problem}): copy or download it again."
  )


def _add(tree: Tree, name: str, size: int, stamp: str, problem: str) -> bool:
  """Notes a member of an archive; returns whether it is to be read."""
  if not problem and size > MAX_FILE_BYTES:
    problem = "is larger than a photo can be"
  if not problem and name in tree.files:
    problem = "is in the archive twice; the first is taken"
  if problem:
    tree.skipped[name] = problem
    return False
  tree.files[name] = f"{size}/{stamp}"
  return True


def _tar(path: pathlib.Path, stack: contextlib.ExitStack) -> Tree:
  members: dict[str, tarfile.TarInfo] = {}
  tree = Tree(path, {}, {}, lambda name: _read_tar(archive, members[name]))
  try:
    archive = stack.enter_context(tarfile.open(path, "r:"))
    place = -1
    for member in archive:
      # A negative size would send the reader in a circle.
      if member.offset <= place or member.size < 0:
        raise tarfile.ReadError("a member lies before the one it follows")
      place = member.offset
      name = member.name.removeprefix("./")
      _refuse_escape(path, name)
      if member.isdir() or hidden(name):
        continue
      problem = "" if member.isreg() else "is a link or a device"
      if _add(tree, name, member.size, f"{member.mtime}", problem):
        members[name] = member
    # Cut between two members, an archive looks whole but for its end.
    with path.open("rb") as file:
      file.seek(archive.offset)
      if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it has no end")
  except errors.UserError:
    raise
  # tarfile meets damage in its own ways: ReadError, ValueError, OverflowError.
  except Exception as error:
    raise _damaged(path, error) from error
  return dataclasses.replace(tree, files=dict(sorted(tree.files.items())))


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
  try:
    file = archive.extractfile(member)
    data = file.read() if file else b""
  except Exception as error:
    raise Unreadable(str(error) or type(error).__name__) from error
  if len(data) != member.size:
    raise Unreadable("the archive is cut short")
  return data


def _zip(path: pathlib.Path, stack: contextlib.ExitStack) -> Tree:
  members: dict[str, zipfile.ZipInfo] = {}
  tree = Tree(path, {}, {}, lambda name: _read_zip(archive, members[name]))
  try:
    archive = stack.enter_context(zipfile.ZipFile(path))
    for member in archive.infolist():
      _refuse_escape(path, member.filename)
      if member.is_dir() or hidden(member.filename):
        continue
      problem = "is encrypted" if member.flag_bits & 1 else ""
      if stat.S_ISLNK(member.external_attr >> 16):
        problem = "is a link or a device"
      stamp = f"{member.CRC:08x}"
      if _add(tree, member.filename, member.file_size, stamp, problem):
        members[member.filename] = member
  except errors.UserError:
    raise
  # zipfile meets damage in its own ways: BadZipFile, struct.error, ValueError.
  except Exception as error:
    raise _damaged(path, error) from error
  return dataclasses.replace(tree, files=dict(sorted(tree.files.items())))


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
  try:
    with archive.open(member) as file:
      data = file.read(MAX_FILE_BYTES + 1)
  except Exception as error:
    raise Unreadable(str(error) or type(error).__name__) from error
  if len(data) != member.file_size:
    raise Unreadable("it is not as long as the archive says")
  return data
