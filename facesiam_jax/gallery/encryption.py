"""Encryption of a gallery's names and templates, by a key in a file.

Each row is sealed with AES-256-GCM under a nonce of its own; what is stored
of the row in the clear (its numbers, its times) is authenticated with it, so
that neither a flipped bit nor a row in another's place goes unseen. Names and
the digests of photos are looked up by a keyed hash (HMAC-SHA-256). Both keys
are derived from the key file's and the gallery's id (HKDF), so that one key
file may serve several galleries and tells nothing of who is in two of them.

In the clear remain: how many people and templates there are, who has how many,
when they were enrolled and when they expire, and of which templates a quality
is known.

References: NIST SP 800-38D (GCM: at most 2^32 random nonces a key; a gallery
has at most 2^31 templates); RFC 5869 (HKDF).
"""

import contextlib
import hmac
import json
import os
import pathlib
import stat
import struct
import tempfile
from collections.abc import Mapping

from facesiam_jax import errors
from facesiam_jax.gallery.codec import Clear, PersonRow, TemplateRow

# What a gallery's own record of itself says of its encryption.
KIND, PROOF = "encryption", "key_proof"
_NAME = "aes-256-gcm"
_KEY_BYTES, _NONCE_BYTES = 32, 12
_HEAD = "facesiam gallery key "
# Lengths of a template's digest, file hash and file name.
_LENGTHS = struct.Struct(">HHH")
# Stands in front where it is known, which older rows do not say.
_QUALITY = struct.Struct(">d")
_NONE = 0xFFFF


def make_key(path: str | os.PathLike[str]) -> None:
  """Writes a new key, readable by its owner only; an old one stays.

  Raises:
    UserError: if it cannot be written.
  """
  path = pathlib.Path(path)
  try:
    descriptor, temporary = tempfile.mkstemp(
      prefix=f".{path.name}.", dir=path.parent
    )
    try:
      with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{_HEAD}{os.urandom(_KEY_BYTES).hex()}\n")
        file.flush()
        os.fsync(file.fileno())
      # Unlike a rename, a link never replaces what another process has made.
      with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    finally:
      os.unlink(temporary)
  except OSError as error:
    raise errors.UserError(
      f"--key_file={path} cannot be written ({error.strerror}); make its "
      "folder, or give this user write permission on it."
    ) from error


def read_key(path: str | os.PathLike[str]) -> bytes:
  """Reads a key.

  Raises:
    UserError: if there is none, others may read it, or it is no key.
  """
  try:
    with open(path, encoding="ascii") as file:
      mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
      text = file.read(200)
  except OSError as error:
    raise errors.UserError(
      f"--key_file={path} cannot be read ({error.strerror}); without the key "
      "that the gallery was made with, nobody can read it."
    ) from error
  except UnicodeDecodeError:
    mode, text = 0, ""
  if mode & 0o077:
    raise errors.UserError(
      f"--key_file={path} can be read or changed by others (mode {mode:o}); "
      f"run chmod 600 {path}."
    )
  try:
    key = bytes.fromhex(text.removeprefix(_HEAD))
  except ValueError:
    key = b""
  if not text.startswith(_HEAD) or len(key) != _KEY_BYTES:
    raise errors.UserError(
      f"--key_file={path} holds no key; give the file that `facesiam enroll "
      "--key_file` made with the gallery."
    )
  return key


def new_meta(key_file: str | os.PathLike[str], gallery: str) -> dict[str, str]:
  """Returns what a new encrypted gallery records of its encryption.

  Args:
    key_file: of the key; made where there is none.
    gallery: id of the gallery.
  """
  if not os.path.lexists(key_file):
    make_key(key_file)
  sealed = Sealed(read_key(key_file), gallery, "")
  return {KIND: _NAME, PROOF: sealed.proof}


def codec_of(
  path: pathlib.Path,
  meta: Mapping[str, str],
  key_file: str | os.PathLike[str] | None,
) -> Clear:
  """Returns what reads and writes a gallery's rows.

  Args:
    path: of the gallery, for messages.
    meta: what it records of itself.
    key_file: of its key; None for a gallery in the clear.

  Raises:
    UserError: if the key is missing, wrong or not needed.
  """
  kind = meta.get(KIND)
  if kind is None:
    if key_file is not None:
      raise errors.UserError(
        f"{path} is not encrypted; leave out --key_file, or export it and "
        "import that into a new gallery with --key_file."
      )
    return Clear()
  if kind != _NAME:
    raise errors.UserError(
      f"{path} is encrypted by {kind}, which this program does not know; use "
      "the facesiam_jax that made it, or a newer one."
    )
  if key_file is None:
    raise errors.UserError(
      f"{path} is encrypted; give its key with --key_file=FILE."
    )
  sealed = Sealed(read_key(key_file), meta["id"], str(path))
  if not hmac.compare_digest(sealed.proof, meta.get(PROOF, "")):
    raise errors.UserError(
      f"--key_file={key_file} is not the key of {path}; give the one that it "
      "was made with."
    )
  return sealed


class Sealed(Clear):
  """Stores rows encrypted.

  Attributes:
    proof: tells the right key from others, without telling the key.
  """

  is_sealed = True

  def __init__(self, key: bytes, gallery: str, path: str):
    """Derives a gallery's own keys.

    Args:
      key: of the key file, 32 bytes.
      gallery: id of the gallery.
      path: of the gallery, for messages.

    Raises:
      UserError: if the package cryptography is missing.
    """
    try:
      from cryptography import exceptions
      from cryptography.hazmat.primitives import hashes
      from cryptography.hazmat.primitives.ciphers import aead
      from cryptography.hazmat.primitives.kdf import hkdf
    except ImportError as error:
      raise errors.UserError(
        "an encrypted gallery needs the package cryptography; install it with "
        "pip install 'facesiam_jax[encrypt]'."
      ) from error
    info = f"facesiam gallery {gallery}".encode()
    derive = hkdf.HKDF(hashes.SHA256(), 2 * _KEY_BYTES, salt=None, info=info)
    keys = derive.derive(key)
    self._cipher = aead.AESGCM(keys[:_KEY_BYTES])
    self._wrong = exceptions.InvalidTag
    self._hash_key = keys[_KEY_BYTES:]
    self._path = path
    self.proof = self._hash(b"proof").hex()

  def _hash(self, data: bytes) -> bytes:
    return hmac.digest(self._hash_key, data, "sha256")

  def _seal(self, data: bytes, beside: tuple[object, ...]) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + self._cipher.encrypt(nonce, data, repr(beside).encode())

  def _open(self, data: bytes | None, beside: tuple[object, ...]) -> bytes:
    try:
      nonce, rest = (data or b"")[:_NONCE_BYTES], (data or b"")[_NONCE_BYTES:]
      return self._cipher.decrypt(nonce, rest, repr(beside).encode())
    # A nonce or a tag that is cut short is a ValueError.
    except (self._wrong, ValueError) as error:
      raise errors.UserError(
        f"{self._path} is damaged: {beside[0]} {beside[1]} cannot be decrypted "
        "(it was changed, or stands in another's place); restore the gallery "
        "from a backup or enroll the people again."
      ) from error

  def index(self, name: str) -> str:
    """Returns what a name is looked up by."""
    return self._hash(b"name " + name.encode()).hex()

  def blind(self, digest: bytes) -> bytes:
    """Returns what a source's digest is looked up by."""
    return self._hash(b"digest " + digest)

  def seal_person(self, row: PersonRow) -> PersonRow:
    """Returns the row to store."""
    told = json.dumps([row.name, row.consent, row.purpose]).encode()
    stored = PersonRow(row.id, self.index(row.name), expires=row.expires)
    sealed = self._seal(told, ("person", *stored))
    return stored._replace(sealed=sealed)

  def open_person(self, row: PersonRow) -> PersonRow:
    """Returns the row that was stored; UserError if it is damaged."""
    beside = ("person", *row._replace(sealed=None))
    name, consent, purpose = json.loads(self._open(row.sealed, beside))
    return PersonRow(row.id, name, consent, purpose, row.expires)

  def seal_template(self, row: TemplateRow) -> TemplateRow:
    """Returns the row to store."""
    source = None if row.source is None else os.fsencode(row.source)
    parts = (row.digest, row.file_hash, source)
    lengths = [_NONE if part is None else len(part) for part in parts]
    facts = b"".join(part or b"" for part in parts)
    told = _LENGTHS.pack(*lengths) + facts + row.embedding
    stored = row._replace(
      digest=self.blind(row.digest), source=None, file_hash=None
    )
    if row.quality is not None:
      # Its digits would tell which photo it is.
      told = _QUALITY.pack(row.quality) + told
      stored = stored._replace(quality=1.0)
    return stored._replace(embedding=self._seal(told, _beside(stored)))

  def open_template(self, row: TemplateRow) -> TemplateRow:
    """Returns the row that was stored; UserError if it is damaged."""
    told = self._open(row.embedding, _beside(row))
    quality = None
    if row.quality is not None:
      (quality,) = _QUALITY.unpack_from(told)
      told = told[_QUALITY.size :]
    parts: list[bytes | None] = []
    place = _LENGTHS.size
    for length in _LENGTHS.unpack_from(told):
      taken = 0 if length == _NONE else length
      parts.append(None if length == _NONE else told[place : place + taken])
      place += taken
    digest, file_hash, source = parts
    return row._replace(
      digest=digest or b"",
      source=None if source is None else os.fsdecode(source),
      file_hash=file_hash,
      embedding=told[place:],
      quality=quality,
    )


def _beside(stored: TemplateRow) -> tuple[object, ...]:
  """Returns what is in the clear of a template."""
  beside = ("template", *stored._replace(embedding=b""))
  # Rows of before there was a quality were sealed without it.
  return beside[:-1] if stored.quality is None else beside
