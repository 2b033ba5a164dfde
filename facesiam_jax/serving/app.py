"""HTTP for a service: endpoints, their description, and the page."""

import base64
import contextlib
import hashlib
import json
import pathlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

import fastapi
import pydantic
from fastapi import File, Form, Query, UploadFile, exceptions, responses
from fastapi.security import HTTPBearer
from starlette.formparsers import MultiPartParser

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.gallery.records import Terms
from facesiam_jax.serving import gate, problems
from facesiam_jax.serving.service import Enrolment, Photo, Service

_PAGE = pathlib.Path(__file__).with_name("page.html")
_MOST = 100
# Each takes a while, for which all others wait.
_MOST_PHOTOS = 20
_ABOUT = """Who of a gallery do photos show? Photos are JPEG, PNG, WebP, BMP,
TIFF, GIF, PGM or PPM. What cannot be done is told as `{"detail": "..."}`."""

_OnePhoto = Annotated[UploadFile, File(description="A photo.")]
_Photos = Annotated[
  list[UploadFile],
  File(
    description="Photos of the person; each is to show one face.",
    max_length=_MOST_PHOTOS,
  ),
]
_Text = Annotated[str | None, Form()]


class Match(pydantic.BaseModel):
  """One person that a face may be; a distance where nothing is calibrated."""

  name: str
  logit: float | None = None
  probability: float | None = None
  probability_interval: list[float] | None = None
  distance: float | None = None
  accepted: bool


class Face(pydantic.BaseModel):
  """Who a face is; name is null for somebody unknown.

  Faces are numbered from 1, the largest; a photo without a face has one entry
  whose face is null. The box is left, top, width and height in pixels of the
  photo, turned upright. open_set tells how often strangers are accepted.
  """

  photo: str
  face: int | None
  box: list[float] | None
  name: str | None
  matches: list[Match]
  calibrated: bool
  note: str | None = None
  prior: float | None = None
  calibrated_on: dict[str, Any] | None = None
  open_set: dict[str, Any] | None


class Comparison(pydantic.BaseModel):
  """Whether two photos show one person; same is null without a threshold."""

  photos: list[str]
  same: bool | None
  calibrated: bool
  note: str | None = None
  prior: float | None = None
  calibrated_on: dict[str, Any] | None = None
  probability: float | None = None
  probability_interval: list[float] | None = None
  logit: float | None = None
  distance: float | None = None
  threshold: float | None


class Enrolled(pydantic.BaseModel):
  """How many photos are new, which were enrolled already, what is odd."""

  name: str
  photos: int
  already: list[str]
  notes: list[str]


class Person(pydantic.BaseModel):
  """Somebody who is enrolled; ages are of the oldest and newest photo."""

  name: str
  photos: int
  age_days: int | None
  newest_days: int | None
  consent: str | None
  purpose: str | None
  expires: str | None


class People(pydantic.BaseModel):
  """How many are enrolled, how many names match, and the first of these."""

  total: int
  matching: int
  people: list[Person]


class Name(pydantic.BaseModel):
  """Whom to remove."""

  name: str


class Removed(pydantic.BaseModel):
  """Who was removed, and how many photos of them were erased."""

  name: str
  photos: int


async def _photo(upload: UploadFile) -> Photo:
  return Photo(upload.filename or "photo", await upload.read())


def _page(rules: gate.Rules) -> tuple[str, str]:
  """Returns the page, and a policy that lets nothing but its own code run."""
  settings = {"key": rules.key is not None, "max_bytes": rules.max_bytes}
  page = _PAGE.read_text(encoding="utf-8")
  page = page.replace('"SETTINGS"', json.dumps(settings))
  allowed = {}
  for kind in ("script", "style"):
    (text,) = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    allowed[kind] = f"{kind}-src 'sha256-{digest}'"
  rest = "img-src 'self' blob: data:; media-src blob:; connect-src 'self'"
  shut = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
  policy = "; ".join(["default-src 'none'", *allowed.values(), rest, shut])
  return page, policy


def create(service: Service, rules: gate.Rules) -> fastapi.FastAPI:
  """Makes the ASGI application of a started service.

  Args:
    service: started; it is closed when the application is shut down.
    rules: what is let through.

  Returns:
    The application.
  """

  @contextlib.asynccontextmanager
  async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    yield
    service.close()

  # A photo stays in memory: faces are not left on a disk.
  MultiPartParser.spool_max_size = rules.max_bytes
  bearer = [fastapi.Security(HTTPBearer(auto_error=False))]
  app = fastapi.FastAPI(
    title="facesiam",
    version=facesiam_jax.__version__,
    description=_ABOUT,
    lifespan=lifespan,
    dependencies=bearer if rules.key is not None else [],
    # They load their scripts from other sites; openapi.json stays.
    docs_url=None,
    redoc_url=None,
  )
  app.add_middleware(gate.Gate, rules=rules, metrics=service.metrics)
  app.add_exception_handler(errors.UserError, _told)
  app.add_exception_handler(exceptions.RequestValidationError, _told)
  app.add_exception_handler(Exception, _failed)
  _add_recognising(app, service)
  _add_people(app, service)
  _add_looking(app, service, rules)
  return app


def _add_recognising(app: fastapi.FastAPI, service: Service) -> None:
  @app.post("/identify", response_model=list[Face])
  async def identify(
    photo: _OnePhoto,
    k: Annotated[
      int, Form(ge=1, le=_MOST, description="People to tell of for each face.")
    ] = 5,
  ) -> Any:
    """Says who each face of a photo is."""
    return responses.JSONResponse(
      await service.identify(await _photo(photo), k)
    )

  @app.post("/verify", response_model=Comparison)
  async def verify(
    photo: _OnePhoto,
    other: _OnePhoto,
    largest: Annotated[
      bool, Form(description="Of several faces take the largest.")
    ] = False,
  ) -> Any:
    """Says whether two photos show the same person."""
    photos = await _photo(photo), await _photo(other)
    return responses.JSONResponse(await service.verify(photos, largest=largest))


def _add_people(app: fastapi.FastAPI, service: Service) -> None:
  @app.post("/enroll", response_model=Enrolled)
  async def enroll(
    name: Annotated[str, Form(description="Who the photos show.")],
    consent: Annotated[
      str, Form(description="A reference to their consent, kept with the name.")
    ],
    photos: _Photos,
    purpose: _Text = None,
    expires: Annotated[
      str | None, Form(description="Until when, YYYY-MM-DD.")
    ] = None,
    face: Annotated[
      int | None,
      Form(ge=1, description="Which face is meant, as identify numbers them."),
    ] = None,
    allow_duplicate: Annotated[
      bool, Form(description="Also who looks like somebody enrolled.")
    ] = False,
    refuse_poor: Annotated[
      bool, Form(description="Refuse photos that are poor.")
    ] = False,
  ) -> Any:
    """Enrols a person, all of the photos or none, or adds to one enrolled."""
    asked = Enrolment(
      name=name,
      terms=Terms(consent, purpose, expires),
      face=face,
      allow_duplicate=allow_duplicate,
      refuse_poor=refuse_poor,
    )
    given = [await _photo(photo) for photo in photos]
    return responses.JSONResponse(await service.enroll(asked, given))

  @app.get("/people", response_model=People)
  async def people(
    contains: Annotated[
      str, Query(description="Only names with this text in them.")
    ] = "",
    limit: Annotated[int, Query(ge=0, le=1000)] = _MOST,
  ) -> Any:
    """Lists who is enrolled, by name."""
    return responses.JSONResponse(await service.people(contains, limit))

  @app.post("/remove", response_model=Removed)
  async def remove(whom: Name) -> Any:
    """Removes a person and erases what the gallery held of them."""
    return responses.JSONResponse(await service.remove(whom.name))


def _add_looking(
  app: fastapi.FastAPI, service: Service, rules: gate.Rules
) -> None:
  page, policy = _page(rules)

  @app.get("/health")
  async def health() -> dict[str, str]:
    """Says whether the gallery can be read: status 200, else 503."""
    try:
      await service.check()
    except errors.UserError as error:
      # Anybody may ask this, and is not told where the gallery lies.
      raise problems.Problem(
        "The gallery cannot be read; /people says why.", 503
      ) from error
    return {"status": "ok"}

  @app.get("/metrics", response_class=responses.PlainTextResponse)
  async def metrics() -> Any:
    """Counts requests, batches and faces, in Prometheus' text format."""
    text, kind = service.metrics.text()
    return responses.Response(text, media_type=kind)

  @app.get("/", include_in_schema=False)
  async def index() -> Any:
    return responses.HTMLResponse(
      page, headers={"content-security-policy": policy}
    )


async def _told(request: fastapi.Request, error: Exception) -> Any:
  """Answers with the one sentence of what is wrong."""
  status = 422
  if isinstance(error, errors.UserError):
    status = problems.status(error)
  return responses.JSONResponse({"detail": _sentence(error)}, status)


def _sentence(error: Exception) -> str:
  if isinstance(error, exceptions.RequestValidationError):
    # Where in the request, such as body, name; then what.
    first = error.errors()[0]
    place = " ".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}."
  return " ".join(str(error).split())


async def _failed(request: fastapi.Request, error: Exception) -> Any:
  """Answers what nobody foresaw; the server logs the traceback."""
  sentence = "The service failed to answer; its log says why."
  return responses.JSONResponse({"detail": sentence}, 500)
