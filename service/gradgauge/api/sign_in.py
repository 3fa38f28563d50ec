"""How a browser shows a key: a page that puts it into a cookie no script and no other site sees."""

from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from gradgauge.api.json_body import read_body
from gradgauge.api.page_headers import HEADERS
from gradgauge.store import keys

router = APIRouter(include_in_schema=False)

COOKIE = "gradgauge_key"
_FORM_BYTES = 1000
_NEAR = frozenset({"localhost", "127.0.0.1", "::1"})
_environment = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    *, status: int = 200, refused: bool = False, headers: dict[str, str] | None = None
) -> HTMLResponse:
    """The form that asks for a key."""
    content = _environment.get_template("sign_in.html").render(refused=refused)
    return HTMLResponse(content, status_code=status, headers=HEADERS | (headers or {}))


@router.get("/sign-in")
async def ask() -> HTMLResponse:
    """The form."""
    return page()


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Keep the key in the browser until it is closed; whether it opens anything, the pages tell."""
    form = parse_qs((await read_body(request, _FORM_BYTES)).decode("ascii", "replace"))
    text = form.get("key", [""])[0].strip()
    if keys.id_of(text) is None:
        return page(status=422, refused=True)
    answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        COOKIE,
        text,
        httponly=True,
        samesite="strict",
        # Browsers send no Secure cookie back over plain HTTP, which a loopback address may use.
        secure=request.url.hostname not in _NEAR,
    )
    return answer


@router.post("/sign-out")
async def sign_out() -> Response:
    """Forget the key."""
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer
