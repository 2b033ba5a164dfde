"""`facesiam serve`: a gallery for other programs and a web page, by HTTP."""

import importlib.util
import ipaddress
import pathlib
import signal
import socket
import types
from typing import TYPE_CHECKING

from absl import flags

from facesiam_jax import errors
from facesiam_jax.cli import common, photos

if TYPE_CHECKING:
  import uvicorn

  from facesiam_jax.bundle import Bundle
  from facesiam_jax.serving.service import Service

HELP = "Answer for a gallery by HTTP, with a web page."
USAGE = "facesiam serve --bundle=DIR --gallery=FILE [flags]"

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_SHORTEST_KEY = 16


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  common.define_bundle(flag_values)
  common.define_gallery(flag_values)
  photos.define_flags(flag_values, largest=False)
  photos.define_limits(flag_values)
  flags.DEFINE_bool(
    "create",
    False,
    "Make an empty gallery where there is none.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "host",
    "127.0.0.1",
    "The address to listen on; other machines reach 0.0.0.0, which needs "
    "--api_key_file.",
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "port",
    8000,
    "The port to listen on; 0 takes a free one.",
    lower_bound=0,
    upper_bound=65535,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "api_key_file",
    None,
    f"A file with a key, of at least {_SHORTEST_KEY} characters, that requests "
    "are to carry. Without it only this machine is answered.",
    flag_values=flag_values,
  )
  _define_sizes(flag_values)


def _define_sizes(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_float(
    "max_megabytes",
    16.0,
    "Requests that are longer are refused.",
    lower_bound=0.001,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    "max_megapixels",
    50.0,
    "Photos of more pixels, in millions, are refused.",
    lower_bound=0.001,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "max_requests",
    64,
    "While so many photos are being looked at, others are told to come again.",
    lower_bound=1,
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    "batch_delay_ms",
    4.0,
    "How long a face waits for others, in milliseconds, so that the device is "
    "called once for all.",
    lower_bound=0.0,
    flag_values=flag_values,
  )


def _check_installed() -> None:
  missing = [
    name for name in _PACKAGES if importlib.util.find_spec(name) is None
  ]
  if missing:
    raise errors.UserError(
      f"serve needs {', '.join(missing)}; install what it needs with `pip "
      'install "facesiam_jax[serve]"`.'
    )


def _key(path: str | None) -> str | None:
  if path is None:
    return None
  try:
    key = pathlib.Path(path).read_text(encoding="ascii").strip()
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or "it is no plain text"
    raise errors.UserError(
      f"--api_key_file={path} cannot be read ({reason}); name a file that "
      "holds the key alone."
    ) from error
  if len(key) < _SHORTEST_KEY or not key.isprintable() or " " in key:
    raise errors.UserError(
      f"--api_key_file={path} must hold one word of at least {_SHORTEST_KEY} "
      'characters; make one with `python3 -c "import secrets; '
      f'print(secrets.token_urlsafe())" > {path}`.'
    )
  return key


def _listen(host: str, port: int, key: str | None) -> socket.socket:
  """Returns a socket that listens; without a key on this machine alone."""
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    if key is None and not _is_local(str(address[0])):
      raise errors.UserError(
        f"--host={host} can be reached from other machines, which needs "
        "--api_key_file; or leave --host away."
      )
    return socket.create_server(address, family=family, backlog=256)
  except OSError as error:
    raise errors.UserError(
      f"--host={host} --port={port} cannot be listened on ({error.strerror}); "
      "give others."
    ) from error


def _url(listening: socket.socket) -> str:
  host, port = listening.getsockname()[:2]
  return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Serves until it is told to end, and finishes what it accepted."""
  if args:
    raise common.UsageError(f"serve takes flags only, got {args[0]!r}.")
  _check_installed()
  key = _key(flag_values.api_key_file)
  # Before the work of loading, which a port in use would waste.
  with _listen(flag_values.host, flag_values.port, key) as listening:
    _serve(flag_values, key, listening)
  print("Stopped.")
  return 0


def _service(flag_values: flags.FlagValues, bundle: "Bundle") -> "Service":
  """Returns a service of the gallery, which is made if that was asked for."""
  from facesiam_jax.gallery.gallery import Gallery
  from facesiam_jax.serving import service

  path, key_file = pathlib.Path(flag_values.gallery), flag_values.key_file
  reader = photos.reader(flag_values, bundle)
  if not path.exists():
    if not flag_values.create:
      raise errors.UserError(
        f"{path}: no such gallery; `facesiam enroll` makes one, and --create "
        "an empty one."
      )
    Gallery.open(path, bundle, create=True, key_file=key_file).close()
  settings = service.Settings(
    gallery=path,
    max_pixels=int(flag_values.max_megapixels * 1e6),
    delay_s=flag_values.batch_delay_ms / 1e3,
    limits=photos.limits(flag_values),
    key_file=key_file,
  )
  return service.Service(bundle, reader, settings)


def _serve(
  flag_values: flags.FlagValues, key: str | None, listening: socket.socket
) -> None:
  import uvicorn

  from facesiam_jax import bundle as bundle_lib
  from facesiam_jax.serving import app, gate

  bundle = bundle_lib.load(flag_values.bundle)
  serving = _service(flag_values, bundle)
  people = serving.start()
  rules = gate.Rules(
    key=key,
    max_bytes=int(flag_values.max_megabytes * 1e6),
    max_requests=flag_values.max_requests,
  )
  server = uvicorn.Server(
    uvicorn.Config(
      app.create(serving, rules),
      log_config=None,
      access_log=False,
      server_header=False,
    )
  )
  _print(flag_values, bundle, people, listening)
  _end_well(server)
  server.run(sockets=[listening])


def _end_well(server: "uvicorn.Server") -> None:
  """Has SIGTERM and SIGINT end the server, and the process with status 0.

  uvicorn takes both while it runs, and raises them once more when it is done.
  """

  def stop(number: int, frame: types.FrameType | None) -> None:
    server.should_exit = True

  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)


def _print(
  flag_values: flags.FlagValues,
  bundle: "Bundle",
  people: dict[str, int],
  listening: socket.socket,
) -> None:
  from facesiam_jax.gallery import telling

  print(
    f"Serving {flag_values.gallery} ({sum(people.values())} photos of "
    f"{len(people)} people) with {flag_values.bundle} on {_url(listening)}"
  )
  if flag_values.api_key_file is None:
    print(
      "No API key: listening on this machine only, and answering its own "
      "programs and pages (--api_key_file=FILE, --host=0.0.0.0 for others)."
    )
  else:
    print(f"Requests need the API key in {flag_values.api_key_file}.")
  if not _is_local(listening.getsockname()[0]):
    print("Nothing is encrypted: let others in through a proxy with TLS.")
  if not bundle.calibrated:
    print(telling.uncalibrated_note(bundle))
  print(
    "/ is a page to use it, /openapi.json describes it; SIGTERM or Ctrl-C "
    "ends it.",
    flush=True,
  )


def _is_local(address: str) -> bool:
  return ipaddress.ip_address(address.split("%")[0]).is_loopback
