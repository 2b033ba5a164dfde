"""Tests of the service's endpoints, by HTTP without a socket."""

import json
import re
import shutil

import numpy as np
import PIL.Image
import prometheus_client.parser
import pytest

from facesiam_jax import errors
from facesiam_jax.cli import main
from facesiam_jax.gallery.gallery import Gallery
from facesiam_jax.gallery.store import Store
from facesiam_jax.serving import gate
from tests import shared_data
from tests.cli import pixel_bundle

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("httpx2", reason="the extra dev is not installed")

from fastapi import testclient  # noqa: E402

from facesiam_jax.serving import app  # noqa: E402

_KEY = "correct horse battery".replace(" ", "-")


def _client(service, **rules):
  whole = app.create(service, gate.Rules(**rules))
  return testclient.TestClient(whole, base_url="http://127.0.0.1:8000")


@pytest.fixture(name="client")
def _make_client(serve):
  return _client(serve())


def _file(path):
  return (str(path), path.read_bytes())


def _identify(client, path, **form):
  return client.post("/identify", files={"photo": _file(path)}, data=form)


def _enroll(client, name, *paths, **form):
  files = [("photos", _file(path)) for path in paths]
  data = {"name": name, "consent": "form 7"} | form
  return client.post("/enroll", files=files, data=data)


def _command(capsys, *argv, status=0):
  capsys.readouterr()
  assert main.main([str(word) for word in argv]) == status
  return json.loads(capsys.readouterr().out)


def test_answers_are_those_of_the_commands(client, made, gallery, capsys):
  flags = [f"--bundle={made.folder / 'bundle'}", "--json"]
  in_gallery = [*flags, f"--gallery={gallery}"]
  for path in (made.three, made.ada, made.stranger):
    want = _command(capsys, "identify", *in_gallery, path)
    assert _identify(client, path).json() == want
    want = _command(capsys, "identify", *in_gallery, "--k=1", path)
    assert _identify(client, path, k=1).json() == want
  want = _command(
    capsys, "identify", *in_gallery, made.none, made.ada, status=1
  )
  assert _identify(client, made.none).json() == want[:1]
  pair = {"photo": _file(made.two), "other": _file(made.ada)}
  want = _command(capsys, "verify", *flags, "--largest", made.two, made.ada)
  assert want["same"] is True
  got = client.post("/verify", files=pair, data={"largest": True})
  assert got.json() == want
  want = _command(capsys, "gallery", f"--gallery={gallery}", "list", "--json")
  assert client.get("/people").json()["people"] == want


def test_real_photos_are_answered_as_the_commands_do(
  client, made, gallery, capsys, tmp_path
):
  shutil.unpack_archive(shared_data.folder() / "photos.tar", tmp_path)
  alone = sorted((tmp_path / "photos").glob("*/*.jpg"))[:28:27]
  crowds = sorted((tmp_path / "photos_several_faces").glob("*.jpg"))[:1]
  argv = ["identify", f"--bundle={made.folder / 'bundle'}", "--json"]
  argv += [f"--gallery={gallery}", *alone, *crowds]
  # One of them is a profile, which the cascade does not see.
  want = _command(capsys, *argv, status=1)
  assert {face["face"] for face in want} == {None, 1}
  got = [_identify(client, path).json() for path in (*alone, *crowds)]
  assert sum(got, []) == want
  assert _enroll(client, "Cy", alone[0]).json()["photos"] == 1
  assert _identify(client, alone[0]).json()[0]["name"] == "Cy"


def test_somebody_is_enrolled_and_known_at_once(client, made, gallery):
  assert _identify(client, made.stranger).json()[0]["name"] is None
  terms = {"purpose": "door", "expires": "2031-05-01"}
  told = _enroll(client, " Cy ", made.stranger, **terms)
  assert told.status_code == 200
  assert told.json() == {"name": "Cy", "photos": 1, "already": [], "notes": []}
  assert _identify(client, made.stranger).json()[0]["name"] == "Cy"
  told = client.get("/people", params={"contains": "C"}).json()
  assert (told["total"], told["matching"]) == (3, 1)
  (person,) = told["people"]
  assert person["consent"] == "form 7" and person["expires"] == "2031-05-01"
  again = _enroll(client, "Cy", made.stranger).json()
  assert again["photos"] == 0 and again["already"] == [str(made.stranger)]
  with Store.open(gallery) as store:
    assert "Cy" in store.files().values()
  assert client.get("/people", params={"limit": 1}).json()["matching"] == 3


def test_who_is_enrolled_under_another_name_is_told_of(client, made):
  other = made.folder / "like.png"
  with PIL.Image.open(made.ada) as image:
    image.point(lambda value: value * 0.95).save(other)
  told = _enroll(client, "Eve", other)
  assert told.status_code == 409
  assert "already enrolled as Ada" in told.json()["detail"]
  assert client.get("/people").json()["total"] == 2
  assert _enroll(client, "Eve", other, allow_duplicate=True).status_code == 200
  # The very same picture cannot be two people's.
  told = _enroll(client, "Mallory", made.ada, allow_duplicate=True)
  assert told.status_code == 422 and "Ada" in told.json()["detail"]


def test_one_face_of_several_is_enrolled_by_its_number(client, made):
  faces = _identify(client, made.three).json()
  (number,) = [face["face"] for face in faces if face["name"] is None]
  told = _enroll(client, "Cy", made.three, face=number)
  assert told.status_code == 200, told.json()
  names = [face["name"] for face in _identify(client, made.three).json()]
  assert names[number - 1] == "Cy" and set(names) == {"Ada", "Bob", "Cy"}
  told = _enroll(client, "Dee", made.three, face=4)
  assert told.status_code == 422 and "shows 3 faces" in told.json()["detail"]


def test_poor_and_odd_photos_are_told_of(client, made, gallery, tmp_path):
  with PIL.Image.open(made.stranger) as image:
    small = image.resize((23, 28), PIL.Image.Resampling.BOX)
  poor = tmp_path / "poor.png"
  small.resize((460, 560), PIL.Image.Resampling.BILINEAR).save(poor)
  told = _enroll(client, "Cy", poor, refuse_poor=True)
  assert told.status_code == 422 and "not sharp" in told.json()["detail"]
  told = _enroll(client, "Cy", poor, pixel_bundle.photo(35, 1)).json()
  assert told["photos"] == 2
  assert any("not sharp" in note for note in told["notes"])
  assert any("unlike the other photos" in note for note in told["notes"])
  with Store.open(gallery) as store:
    *_, blurred, sharp = store.records().quality.tolist()
  assert 0 < blurred < 0.5 < sharp <= 1


def test_somebody_is_removed_and_erased(client, made, gallery):
  with Store.open(gallery) as store:
    row = store.records().embeddings[0].tobytes()
  assert row in gallery.read_bytes()
  told = client.post("/remove", json={"name": "Ada"})
  assert told.json() == {"name": "Ada", "photos": 1}
  assert row not in gallery.read_bytes() and b"Ada" not in gallery.read_bytes()
  assert _identify(client, made.ada).json()[0]["name"] is None
  told = client.post("/remove", json={"name": "Ada"})
  assert told.status_code == 404 and "'Ada'" in told.json()["detail"]


def _noise(path):
  rng = np.random.default_rng(0)
  PIL.Image.fromarray(rng.integers(0, 256, (90, 80), np.uint8)).save(path)
  return path.read_bytes()


@pytest.mark.parametrize(
  "data, wrong",
  [
    (b"", "is empty (0 bytes)"),
    (b"%PDF-1.7 no picture at all", "is not an image of a known format"),
    ("cut", "is damaged or cut short"),
    ("large", "too many pixels"),
  ],
)
def test_what_is_no_photo_is_refused(serve, data, wrong, tmp_path):
  client = _client(serve(max_pixels=80 * 89 if data == "large" else 10**6))
  whole = _noise(tmp_path / "a.png")
  data = {"cut": whole[: len(whole) // 2], "large": whole}.get(data, data)
  for path, field in (("/identify", "photo"), ("/enroll", "photos")):
    told = client.post(
      path,
      files={field: ("a.png", data)},
      data={"name": "Cy", "consent": "form 7"},
    )
    assert told.status_code == 422
    assert told.json()["detail"].startswith("a.png")
    assert wrong in told.json()["detail"]
  assert client.get("/people").json()["total"] == 2


def test_wrong_requests_are_told_in_a_sentence(client, made):
  ada = {"photo": _file(made.ada)}
  good = {"name": "Cy", "consent": "form 7"}
  photos = {"photos": _file(made.stranger)}
  as_json = {"content-type": "application/json"}
  for told, status, wrong in (
    (_enroll(client, "Cy", made.none), 422, "No face was found in"),
    (_enroll(client, "Cy", made.three), 422, "3 faces of like size"),
    (client.post("/enroll", files=photos, data={"name": "Cy"}), 422, "consent"),
    (client.post("/enroll", data=good), 422, "photos"),
    (_enroll(client, "Cy", *[made.stranger] * 21), 422, "at most 20"),
    (_enroll(client, " ", made.stranger), 422, "cannot be enrolled"),
    (_enroll(client, "Cy", made.stranger, expires="soon"), 422, "YYYY-MM-DD"),
    (client.post("/verify", files=ada), 422, "other"),
    (_identify(client, made.ada, k=0), 422, "k"),
    (client.post("/identify", content=b"x"), 422, "photo"),
    (client.post("/remove", content=b"{no", headers=as_json), 422, "JSON"),
    (client.post("/remove", content=b"{no"), 422, "body"),
    (client.post("/remove", json={}), 422, "name"),
    (client.post("/remove", json={"name": 7}), 422, "name"),
    (client.get("/remove"), 405, "Not Allowed"),
    (client.get("/nothing"), 404, "Not Found"),
  ):
    assert told.status_code == status, told.text
    detail = told.json()["detail"]
    assert wrong in detail and "--" not in detail
  assert client.get("/people").json()["total"] == 2


def test_a_key_is_asked_for_before_anything_is_read(serve, made):
  client = _client(serve(), key=_KEY)
  for path in ("/", "/health", "/openapi.json"):
    assert client.get(path).status_code == 200
  wrong = ("", "Bearer", "Bearer x", f"Basic {_KEY}", f"Bearer {_KEY}x", _KEY)
  for given in ({}, *({"authorization": text} for text in wrong)):
    for path in ("/people", "/metrics", "/nothing"):
      told = client.get(path, headers=given)
      assert told.status_code == 401 and "Bearer KEY" in told.json()["detail"]
    assert (
      client.post("/remove", content=b"{no", headers=given).status_code == 401
    )
  client.headers["authorization"] = f"Bearer {_KEY}"
  assert client.get("/people", headers={"host": "gate"}).json()["total"] == 2
  assert _identify(client, made.ada).json()[0]["name"] == "Ada"


def test_without_a_key_other_sites_are_refused(client):
  own = {"origin": "http://127.0.0.1:8000"}
  assert client.get("/people", headers=own).status_code == 200
  for host in ("localhost:1", "[::1]:8000", "127.0.0.1"):
    assert client.get("/people", headers={"host": host}).status_code == 200
  for headers in (
    {"host": "evil.example"},
    {"host": "127.0.0.1.evil.example:8000"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
  ):
    told = client.post("/remove", json={"name": "Ada"}, headers=headers)
    assert told.status_code == 403 and "--api_key_file" in told.json()["detail"]
  assert client.get("/people").json()["total"] == 2


def test_a_gallery_that_changes_is_read_again(client, made, gallery, capsys):
  argv = ["enroll", f"--bundle={made.folder / 'bundle'}"]
  argv += [f"--gallery={gallery}", "--name=Cy", str(made.stranger)]
  assert main.main(argv) == 0
  assert _identify(client, made.stranger).json()[0]["name"] == "Cy"


def test_a_gallery_that_is_gone_is_told_of(client, made, gallery, tmp_path):
  assert client.get("/health").json() == {"status": "ok"}
  aside = gallery.rename(tmp_path / "aside.db")
  told = client.get("/health")
  assert told.status_code == 503 and str(tmp_path) not in told.text
  answers = [
    client.get("/people"),
    _identify(client, made.ada),
    _enroll(client, "Cy", made.stranger),
    client.post("/remove", json={"name": "Ada"}),
  ]
  for told in answers:
    assert (
      told.status_code == 503 and "no such gallery" in told.json()["detail"]
    )
  # Nothing is made in its place, and what needs no gallery still works.
  assert not gallery.exists()
  pair = {"photo": _file(made.ada), "other": _file(made.ada)}
  assert client.post("/verify", files=pair).json()["same"] is True
  aside.rename(gallery)
  assert client.get("/health").status_code == 200
  assert _identify(client, made.ada).json()[0]["name"] == "Ada"


def test_a_gallery_of_another_bundle_is_told_of(client, made, gallery):
  gallery.unlink()
  Store.create(gallery, fingerprint="f" * 64, dim=4, metric="cosine").close()
  assert client.get("/health").status_code == 503
  for told in (client.get("/people"), _identify(client, made.ada)):
    assert told.status_code == 503
    assert "another bundle" in told.json()["detail"]


def test_an_encrypted_gallery_is_served_with_its_key(serve, made, tmp_path):
  pytest.importorskip("cryptography")
  path, key = tmp_path / "secret.db", tmp_path / "secret.key"
  Gallery.open(path, made.bundle, create=True, key_file=key).close()
  with pytest.raises(errors.UserError, match="encrypted"):
    serve(gallery=path)
  client = _client(serve(gallery=path, key_file=key))
  assert _enroll(client, "Cy", made.stranger).status_code == 200
  assert _identify(client, made.stranger).json()[0]["name"] == "Cy"
  assert b"Cy" not in path.read_bytes()


def test_metrics_are_prometheus(client, made):
  _identify(client, made.three)
  _identify(client, made.none)
  client.get("/nothing/1")
  client.get("/nothing/2")
  told = client.get("/metrics")
  assert told.headers["content-type"].startswith("text/plain; version=0.0.4")
  values = {
    (sample.name, *sorted(sample.labels.values())): sample.value
    for family in prometheus_client.parser.text_string_to_metric_families(
      told.text
    )
    for sample in family.samples
  }
  assert values["facesiam_requests_total", "/identify", "200"] == 2
  assert values["facesiam_requests_total", "404", "other"] == 2
  assert values["facesiam_request_seconds_count", "/identify"] == 2
  assert values[("facesiam_batch_faces_count",)] == 1
  assert values[("facesiam_batch_faces_sum",)] == 3
  assert values["facesiam_faces_total", "known"] == 2
  assert values["facesiam_faces_total", "unknown"] == 1
  assert values["facesiam_faces_total", "none"] == 1
  assert values[("process_resident_memory_bytes",)] > 0


def test_all_is_described(serve):
  described = _client(serve(), key=_KEY).get("/openapi.json").json()
  assert described["paths"].keys() == {
    *("/identify", "/verify", "/enroll", "/people", "/remove"),
    *("/health", "/metrics"),
  }
  face = described["components"]["schemas"]["Face"]["properties"]
  assert {"box", "name", "matches"} <= face.keys()
  assert "HTTPBearer" in described["components"]["securitySchemes"]
  for path in ("/docs", "/redoc"):
    assert _client(serve()).get(path).status_code == 404


def test_the_page_needs_nothing_from_elsewhere(client):
  told = client.get("/")
  assert "default-src 'none'" in told.headers["content-security-policy"]
  assert told.headers["cache-control"] == "no-store"
  assert "//" not in re.sub(r"// .*", "", told.text)
  assert set(re.findall(r"(?:src|href)=(\S*?)>", told.text)) == {'"data:,"'}
  assert "@import" not in told.text and "url(" not in told.text
  # The policy lets no attribute carry a script or a style.
  assert not re.findall(r"<[^>]*\s(?:style|on\w+)=", told.text)


def test_nobody_foresaw(serve, made, monkeypatch):
  service = serve()
  client = testclient.TestClient(
    app.create(service, gate.Rules()),
    base_url="http://127.0.0.1",
    raise_server_exceptions=False,
  )
  with monkeypatch.context() as patch:
    patch.setattr(type(made.bundle), "embed", lambda *unused: 1 / 0)
    told = _identify(client, made.ada)
  assert told.status_code == 500 and "its log" in told.json()["detail"]
  assert "zero" not in told.text
  assert _identify(client, made.ada).json()[0]["name"] == "Ada"


def test_photos_are_not_left_on_the_disk(serve, made, monkeypatch, tmp_path):
  client = _client(serve())
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
  big = made.ada.read_bytes() + bytes(3_000_000)
  told = client.post("/identify", files={"photo": ("a.pgm", big)})
  assert told.status_code == 200


def test_the_lifespan_closes_the_service(serve, gallery):
  service = serve()
  with _client(service) as client:
    assert client.get("/health").status_code == 200
  with pytest.raises(RuntimeError, match="shutdown"):
    service.start()
