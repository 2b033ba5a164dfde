"""Tests of `facesiam serve` as a process, and of the page in a browser."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

import PIL.Image
import pytest

from facesiam_jax.cli import main, serve
from facesiam_jax.serving import gate
from tests import shared_data
from tests.serving import chromium

pytest.importorskip("fastapi", reason="the extra serve is not installed")
uvicorn = pytest.importorskip(
  "uvicorn", reason="the extra serve is not installed"
)

from facesiam_jax.serving import app  # noqa: E402

_ROOT = pathlib.Path(__file__).parents[2]
_WAIT_S = 120


@contextlib.contextmanager
def _process(made, gallery, *more):
  """Yields a served process, its port and its first lines."""
  argv = [sys.executable, "-m", "facesiam_jax.cli.main", "serve", "--port=0"]
  argv += [f"--bundle={made.folder / 'bundle'}", f"--gallery={gallery}", *more]
  with subprocess.Popen(
    argv,
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=os.environ | {"PYTHONPATH": str(_ROOT)},
  ) as process:
    try:
      said = []
      while not said or "SIGTERM" not in said[-1]:
        line = process.stdout.readline()
        assert line, "".join(said)
        said.append(line)
      url = urllib.parse.urlsplit(said[0].split()[-1])
      yield process, url.port, "".join(said)
    finally:
      process.kill()


def _form(path, **fields):
  """Returns the content type and the body of a form with one photo."""
  parts = [
    f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
    for name, text in fields.items()
  ]
  head = 'name="photo"; filename="a.pgm"'
  parts.append(f"--x\r\nContent-Disposition: form-data; {head}\r\n\r\n")
  body = "".join(parts).encode() + path.read_bytes() + b"\r\n--x--\r\n"
  return {"Content-Type": "multipart/form-data; boundary=x"}, body


def _connect(closing, port):
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_S)
  return closing.enter_context(contextlib.closing(connection))


def _head(closing, port, length, headers):
  """Returns a connection that has sent the head of a request for /identify."""
  connection = _connect(closing, port)
  connection.putrequest("POST", "/identify")
  for name, value in (headers | {"Content-Length": length}).items():
    connection.putheader(name, value)
  connection.endheaders()
  return connection


def _answer(connection):
  told = connection.getresponse()
  return told.status, json.loads(told.read())


def _does_not_listen(port):
  try:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
  except OSError:
    return True
  return False


def test_a_process_serves_refuses_200_mb_and_finishes_what_it_accepted(
  made, gallery
):
  with (
    _process(made, gallery) as (process, port, said),
    contextlib.ExitStack() as closing,
  ):
    assert f"Serving {gallery} (2 photos of 2 people) with" in said
    assert "No API key: listening on this machine only" in said
    connection = _head(
      closing, port, 200_000_000, {"Content-Type": "image/png"}
    )
    for _ in range(200):
      connection.send(bytes(1_000_000))
    status, told = _answer(connection)
    assert status == 413 and "16 MB" in told["detail"]
    headers, body = _form(made.ada, k=1)
    begun = [_head(closing, port, len(body), headers) for _ in range(3)]
    for connection in begun:
      connection.send(body[:1000])
    # Whoever is answered now came after those.
    last = _connect(closing, port)
    last.request("GET", "/health")
    assert _answer(last) == (200, {"status": "ok"})
    process.send_signal(signal.SIGTERM)
    while not _does_not_listen(port):
      time.sleep(0.01)
    for connection in begun:
      connection.send(body[1000:])
    for connection in begun:
      status, (face,) = _answer(connection)
      assert status == 200 and face["name"] == "Ada"
    assert process.wait(_WAIT_S) == 0
    assert process.stdout.read() == "Stopped.\n"


def _refused(capsys, *argv, status=1):
  capsys.readouterr()
  assert main.main(["serve", *map(str, argv)]) == status
  err = capsys.readouterr().err
  assert err.count("\n") == 1
  return err


def test_what_cannot_be_served(made, gallery, tmp_path, capsys, monkeypatch):
  argv = [f"--bundle={made.folder / 'bundle'}", f"--gallery={gallery}"]
  err = _refused(capsys, *argv, "--port=0", "--host=0.0.0.0")
  assert "needs --api_key_file" in err
  key = tmp_path / "key"
  err = _refused(capsys, *argv, f"--api_key_file={key}")
  assert f"{key} cannot be read" in err
  for text in ("short", "", "two words, however long they are"):
    key.write_text(text)
    err = _refused(capsys, *argv, f"--api_key_file={key}")
    assert "one word of at least 16" in err
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    err = _refused(capsys, *argv, f"--port={port}")
    assert f"--port={port} cannot be listened on" in err
  err = _refused(capsys, *argv, "--port=0", "--host=nowhere.invalid")
  assert "--host=nowhere.invalid" in err
  missing = f"--gallery={tmp_path / 'missing.db'}"
  err = _refused(capsys, argv[0], missing, "--port=0")
  assert "no such gallery" in err and "--create" in err
  assert "flags only" in _refused(capsys, *argv, "photo.jpg", status=2)
  monkeypatch.setattr(
    serve.importlib.util,
    "find_spec",
    lambda name: None if name == "uvicorn" else object(),
  )
  err = _refused(capsys, *argv)
  assert "uvicorn" in err and "facesiam_jax[serve]" in err


@pytest.fixture(name="live")
def _live(serve, gallery):
  """The address of a service that listens."""
  service = serve()
  server = uvicorn.Server(
    uvicorn.Config(
      app.create(service, gate.Rules()), log_config=None, access_log=False
    )
  )
  with socket.create_server(("127.0.0.1", 0)) as listening:
    thread = threading.Thread(
      target=server.run, kwargs={"sockets": [listening]}
    )
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    server.should_exit = True
    thread.join()


def _names(page):
  """Returns what stands at the boxes, and at the answers beside them."""
  boxes = "[...document.querySelectorAll('.box')].map((b) => b.innerText)"
  faces = "[...document.querySelectorAll('.face h3')].map((b) => b.innerText)"
  return page.js(boxes), page.js(faces)


def _wait_for(page, *names):
  wanted = json.dumps([f"{n}. {name}" for n, name in enumerate(names, 1)])
  page.until(
    "JSON.stringify([...document.querySelectorAll('.face h3')]"
    f".map((b) => b.innerText)) === JSON.stringify({wanted})"
  )


def _enrol(page, name):
  """Fills in the form that is open, by the keyboard alone."""
  page.until("document.querySelector('#enroll').open")
  assert page.js("document.activeElement.name") == "name"
  page.write(name)
  page.press("Tab")
  page.write("form 9")
  page.press("Enter")
  page.until("!document.querySelector('#enroll').open")


def test_the_page_shows_who_a_photo_shows(live, made, tmp_path):
  with chromium.page(tmp_path / "profile") as page:
    page.open(live)
    page.until("document.querySelectorAll('#people li').length === 2")
    page.drop(made.three, "#drop")
    _wait_for(page, "Bob", "Ada", "Unknown")
    assert _names(page)[0] == ["1 Bob", "2 Ada", "3 unknown"]
    # A box lies where its person stands: 300 of 900 pixels each.
    across = page.js(
      "[...document.querySelectorAll('.box')].map((b) => {"
      "const own = b.getBoundingClientRect();"
      "const all = document.querySelector('#image').getBoundingClientRect();"
      "return (own.x + own.width / 2 - all.x) / all.width; })"
    )
    assert [int(3 * place) for place in across] == [0, 1, 2]
    text = page.js("document.querySelector('#faces').innerText")
    assert "99.2 %" in text and "✓" in text
    page.js("document.querySelectorAll('.face button')[2].focus()")
    page.press("Enter")
    _enrol(page, "Cy")
    _wait_for(page, "Bob", "Ada", "Cy")
    assert "3 people enrolled" in page.js("document.body.innerText")
    page.js("[...document.querySelectorAll('#people button')][2].click()")
    page.until("document.querySelector('#remove').open")
    assert page.js("document.querySelector('#whom').innerText") == "Cy"
    page.js("document.querySelector('#remove .main').click()")
    _wait_for(page, "Bob", "Ada", "Unknown")
    assert page.errors == []


def test_the_page_on_a_phone(live, made, tmp_path):
  with chromium.page(tmp_path / "profile") as page:
    page.open(live, width=360, height=740, phone=True)
    page.choose(made.three, "#file")
    _wait_for(page, "Bob", "Ada", "Unknown")
    # Nothing is to be scrolled to the side, and all can be touched.
    assert page.js("document.documentElement.scrollWidth") <= 360
    heights = page.js(
      "[...document.querySelectorAll('button, .button')]"
      ".map((b) => b.getBoundingClientRect().height).filter((h) => h > 0)"
    )
    assert len(heights) >= 5 and min(heights) >= 44
    page.choose(made.none, "#file")
    page.until("document.querySelector('#said').innerText.includes('No face')")
    wrong = tmp_path / "wrong.jpg"
    wrong.write_bytes(b"no photo")
    page.choose(wrong, "#file")
    page.until("document.querySelector('#said').innerText.includes('no')")
    page.until(
      "document.querySelector('#said.wrong')"
      "?.innerText.includes('is not an image')"
    )


def test_the_page_with_a_real_photo(live, tmp_path):
  shutil.unpack_archive(shared_data.folder() / "photos.tar", tmp_path)
  photo = sorted((tmp_path / "photos").glob("*/*.jpg"))[0]
  turned = tmp_path / "turned.jpg"
  with PIL.Image.open(photo) as image:
    exif = image.getexif()
    # What a phone held on its side writes: to be turned by 90 degrees.
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(turned, exif=exif, quality=95)
  with chromium.page(tmp_path / "profile") as page:
    page.open(live)
    page.drop(photo, "#drop")
    _wait_for(page, "Unknown")
    size = "(({naturalWidth: w, naturalHeight: h}) => `${w}x${h}`)"
    size += "(document.querySelector('#image'))"
    before = page.js(size)
    page.js("document.querySelector('.face button').click()")
    _enrol(page, "Dee")
    _wait_for(page, "Dee")
    page.choose(turned, "#file")
    page.until("document.querySelector('#faces').innerText === '…'")
    _wait_for(page, "Dee")
    assert page.js(size) == before
    assert page.errors == []
