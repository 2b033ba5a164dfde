"""Which file system a file lies on (WAL needs a local one); who has it open."""

import os
import pathlib
import re

# WAL keeps its index in shared memory, which no network file system offers.
_NETWORK_TYPES = frozenset(
  {
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fuse.ceph-fuse",
    "fuse.gcsfuse",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "orangefs",
    "smb2",
    "smb3",
    "smbfs",
  }
)
_MOUNTS = pathlib.Path("/proc/self/mounts")


def _unescape(field: str) -> str:
  """Returns a field of /proc/self/mounts with \\040 and the like decoded."""
  return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), field)


def network_type(path: pathlib.Path, mounts: str | None = None) -> str | None:
  """Returns the type of the network file system that holds a path.

  Args:
    path: a file or folder; it need not exist.
    mounts: text in the format of /proc/self/mounts; None reads that file.

  Returns:
    The type, such as "nfs4", or None for a local file system.

  Degenerate input: where there is no /proc/self/mounts (macOS, Windows), the
  answer is None.
  """
  if mounts is None:
    try:
      mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
      return None
  path = path.resolve()
  best, best_type = -1, ""
  for line in mounts.splitlines():
    fields = line.split(" ")
    if len(fields) < 3:
      continue
    mount_point = pathlib.Path(_unescape(fields[1]))
    depth = len(mount_point.parts)
    # A later mount on the same point hides the earlier one, hence >=.
    if path.is_relative_to(mount_point) and depth >= best:
      best, best_type = depth, fields[2]
  return best_type if best_type in _NETWORK_TYPES else None


def _command(process: pathlib.Path) -> str:
  words = (process / "cmdline").read_bytes().split(b"\0")
  text = b" ".join(words).decode("utf-8", "replace").strip()
  return text if len(text) <= 60 else f"{text[:57]}..."


def openers(path: pathlib.Path) -> list[str]:
  """Returns what programs have a file open, for a message.

  Args:
    path: the file.

  Returns:
    One phrase a process, such as "process 12 (facesiam enroll)", without this
    one; only processes that this user may look at.

  Degenerate input: where there is no /proc (macOS, Windows), none.
  """
  try:
    wanted = path.stat()
    processes = sorted(pathlib.Path("/proc").glob("[0-9]*"))
  except OSError:
    return []
  found = []
  for process in processes:
    if process.name == str(os.getpid()):
      continue
    try:
      opened = [entry.stat() for entry in (process / "fd").iterdir()]
      if any(os.path.samestat(wanted, entry) for entry in opened):
        found.append(f"process {process.name} ({_command(process)})")
    # It ended meanwhile, or is another user's.
    except OSError:
      continue
  return found
