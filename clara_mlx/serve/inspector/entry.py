"""Who may open the inspector's pages: a cookie that a browser gets once for a token.

A browser sends no Authorization header by itself. Whoever opens a page with ``?token=TOKEN``, or
writes the token into the form, gets a cookie that opens the same namespace, for these pages only:
no other path of the gateway looks at it.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.inspector.forms import read_form
from clara_mlx.serve.inspector.rendering import page_response

#: What all paths of the inspector but the first page begin with.
PREFIX = "/inspector/"

#: Where the token is sent by the form.
SIGN_IN = f"{PREFIX}sign-in"

#: Where the files of the pages are; they say nothing of anybody.
STATIC = f"{PREFIX}static/"

# Seconds for which a cookie opens the pages: a week.
_VALID_SECONDS = 7 * 86_400

# What browsers say of a request that a page of another site has started.
_FOREIGN = ("cross-site", "same-site")


def is_page(path: str) -> bool:
    """Whether a path is one of the inspector's."""
    return path == "/" or path.startswith(PREFIX)


def is_open(path: str) -> bool:
    """Whether a path of the inspector needs neither token nor cookie."""
    return path == SIGN_IN or path.startswith(STATIC)


class Entry:
    """Gives browsers their cookies, and reads them.

    Args:
        tokens: The tokens by namespace; empty if clients need none, and then all pages are open.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = {name: token.encode() for name, token in tokens.items()}
        # A cookie outlives a restart of the gateway, but not its token.
        self._keys = {
            name: sha256(b"clara-mlx inspector\0" + token).digest()
            for name, token in self._tokens.items()
        }
        self._open_key = secrets.token_bytes(32)

    def namespace_of(self, headers: Headers) -> str | None:
        """The namespace that a request's cookie opens; None if it opens none."""
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_cookie_name(headers))
        except CookieError:
            return None
        name, _, rest = (cookie.value if cookie else "").partition(".")
        expires, _, proof = rest.partition(".")
        if name not in self._keys or not (expires.isascii() and expires.isdigit()):
            return None
        right = hmac.compare_digest(proof.encode(), self._proof(name, expires).encode())
        return name if right and len(expires) < 16 and int(expires) > time.time() else None

    def opened_by(self, token: str) -> str | None:
        """The namespace that a token opens; None if it opens none."""
        offered = token.strip().encode("utf-8", "surrogateescape")
        # All are compared, so that the time tells nothing of which one is nearly right.
        opened = [name for name, own in self._tokens.items() if hmac.compare_digest(offered, own)]
        return opened[0] if opened else None

    def form_token(self, namespace: str) -> str:
        """What a form of a page must send back, which no page of another site can know."""
        key = self._keys.get(namespace, self._open_key)
        return hmac.new(key, b"form", sha256).hexdigest()

    def is_form_token(self, namespace: str, given: str) -> bool:
        """Whether a form of a page of ours has sent this."""
        return hmac.compare_digest(given.encode(), self.form_token(namespace).encode())

    def admit(self, request: Request) -> Response:
        """What a browser gets that no cookie lets in: a cookie if its URL has a token, or a form.

        The token does not stay in the address, where histories keep it.
        """
        token = request.query_params.get("token")
        foreign = request.headers.get("sec-fetch-site") in _FOREIGN
        namespace = None if token is None or foreign else self.opened_by(token)
        rest = [(k, v) for k, v in request.query_params.multi_items() if k != "token"]
        to = request.url.path + (f"?{urlencode(rest)}" if rest else "")
        if namespace is not None:
            return self._let_in(namespace, _way_back(to), request.headers)
        return self._form(_way_back(to), wrong=token is not None)

    async def sign_in(self, request: Request) -> Response:
        """The form in which a token is written, and what it sends."""
        if request.method != "POST":
            return self._form(_way_back(request.query_params.get("next", "/")), wrong=False)
        try:
            given = await read_form(request)
        except ApiError:
            return self._form("/", wrong=True)
        namespace = self.opened_by(given.get("token", ""))
        to = _way_back(given.get("next", "/"))
        if namespace is None:
            return self._form(to, wrong=True)
        return self._let_in(namespace, to, request.headers)

    def _form(self, to: str, *, wrong: bool) -> Response:
        return page_response("sign_in", {"next": to, "wrong": wrong, "action": SIGN_IN}, status=401)

    def _let_in(self, namespace: str, to: str, headers: Headers) -> Response:
        expires = str(int(time.time()) + _VALID_SECONDS)
        response = RedirectResponse(to, 303)
        response.set_cookie(
            _cookie_name(headers),
            f"{namespace}.{expires}.{self._proof(namespace, expires)}",
            max_age=_VALID_SECONDS,
            httponly=True,
            samesite="strict",
        )
        response.headers["referrer-policy"] = "no-referrer"
        response.headers["cache-control"] = "no-store"
        return response

    def _proof(self, namespace: str, expires: str) -> str:
        said = f"cookie {namespace} {expires}".encode()
        return hmac.new(self._keys[namespace], said, sha256).hexdigest()


def _cookie_name(headers: Headers) -> str:
    """The cookie's name; it has the port, because browsers send a host's cookies to all ports."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"clara-inspector-{port if port.isascii() and port.isdigit() else 80}"


def _way_back(path: str) -> str:
    """A path of the inspector, whatever was asked for: a form must not lead elsewhere."""
    parts = urlsplit(path)
    ours = not parts.scheme and not parts.netloc and is_page(parts.path) and "\\" not in path
    if not ours or is_open(parts.path):
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")
