"""Who gets to see the inspector's pages: cookies, tokens, hosts, origins, forms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from gateway import Gateway, Upstream, gateway, says
from inspected import TOKEN, Site

from clara_mlx.serve.inspector import entry as entry_file

RED = "the-token-of-team-red"
PAGES = ["/", "/inspector/savings", "/inspector/conversations", "/inspector/memory?handle=x"]
HTML = {"accept": "text/html"}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of two namespaces, in which memories may be deleted."""
    upstream = Upstream(says("ok"))
    path = tmp_path_factory.mktemp("gate")
    with (
        upstream.running() as url,
        gateway(path, url, token=TOKEN, namespaces={"red": RED}, edit=True) as made,
    ):
        made.memory.remember("a treasure of all", source="tool")
        yield made


@contextmanager
def browser(gate: Gateway, token: str | None = None) -> Iterator[httpx2.Client]:
    """A client that keeps cookies and has signed in with a token."""
    with httpx2.Client(base_url=gate.url, trust_env=False, headers=HTML) as client:
        if token:
            answer = client.get(f"/?token={token}&q=words")
            assert answer.status_code == 303 and answer.headers["location"] == "/?q=words"
        yield client


def cookie_name(gate: Gateway) -> str:
    return f"clara-inspector-{gate.url.rpartition(':')[2]}"


@pytest.mark.parametrize("path", PAGES)
def test_without_a_token_there_is_only_a_form(gate: Gateway, path: str) -> None:
    with browser(gate) as client:
        answer = client.get(path)
        assert answer.status_code == 401 and "password" in answer.text
        assert "treasure" not in answer.text and "agent.db" not in answer.text
        # A program is told in its own words, as it is everywhere else.
        program = client.get(path, headers={"accept": "application/json"})
        assert program.status_code == 401 and program.json()["error"]["code"] == "invalid_api_key"
        assert client.get(path, headers={"x-api-key": TOKEN}).status_code in (200, 404)


def test_a_cookie_opens_the_pages_and_nothing_else(gate: Gateway) -> None:
    with browser(gate, TOKEN) as client:
        assert "treasure" in client.get("/").text
        for path in ("/v1/memory/status", "/metrics", "/v1/models"):
            assert client.get(path).status_code == 401
        body = {"where": {"source": "tool"}}
        assert client.post("/v1/memory/forget", json=body).status_code == 401


def test_a_cookie_is_of_one_namespace(gate: Gateway) -> None:
    with browser(gate, RED) as client:
        page = client.get("/").text
        assert "agent.red.db" in page and "treasure" not in page
        assert client.get("/?q=treasure").text.count("treasure of all") == 0
        name, value = cookie_name(gate), client.cookies[cookie_name(gate)]
        assert value.startswith("red.")
        assert client.get("/", headers={"cookie": f"{name}={value[3:]}"}).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-1] + ("0" if value[-1] != "0" else "1"),
        lambda value: value.replace(".", ".9", 1),
        lambda value: value.rpartition(".")[0] + ".",
        lambda value: ".." + value,
        lambda value: "\u00fc.1.2",
        lambda value: "x" * 4000,
    ],
)
def test_a_changed_cookie_opens_nothing(gate: Gateway, change: object) -> None:
    with browser(gate, TOKEN) as client:
        value = change(client.cookies[cookie_name(gate)])  # type: ignore[operator]
    header = f"{cookie_name(gate)}={value}".encode()
    with browser(gate) as client:
        assert client.get("/", headers={"cookie": header}).status_code == 401


def test_a_cookie_lapses(gate: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_file, "_VALID_SECONDS", 0)
    with browser(gate, TOKEN) as client:
        header = f"{cookie_name(gate)}=.{1}.x"
        assert client.get("/", headers={"cookie": header}).status_code == 401
        assert client.get("/").status_code == 401


def test_a_link_of_another_site_does_not_sign_anybody_in(gate: Gateway) -> None:
    with browser(gate) as client:
        answer = client.get(f"/?token={RED}", headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 401 and not client.cookies


@pytest.mark.parametrize(
    "to", ["//evil.example/", "https://evil.example/", "/\\evil.example", "/v1/models", "x", ""]
)
def test_signing_in_leads_to_a_page_of_ours(gate: Gateway, to: str) -> None:
    with browser(gate) as client:
        sent = {"token": TOKEN, "next": to}
        answer = client.post("/inspector/sign-in", data=sent)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        wrong = client.post("/inspector/sign-in", data={"token": "no", "next": to})
        assert wrong.status_code == 401 and 'value="/"' in wrong.text
        assert client.post("/inspector/sign-in", json=sent).status_code == 401


@pytest.mark.parametrize("path", [*PAGES, "/inspector/static/inspector.js", "/inspector/nowhere"])
def test_every_page_is_fenced_in(gate: Gateway, path: str) -> None:
    with browser(gate, TOKEN) as client:
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert client.get(path, headers={"host": "evil.example"}).status_code == 421
        assert client.get(path, headers={"origin": "http://evil.example"}).status_code == 403


def test_an_original_is_never_a_page(gate: Gateway) -> None:
    handle = gate.memory.remember("<script>alert(1)</script>")
    with browser(gate, TOKEN) as client:
        answer = client.get(f"/inspector/original?handle={handle}")
        assert answer.content == b"<script>alert(1)</script>"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["content-security-policy"].startswith("sandbox")


def test_only_a_form_of_ours_deletes(gate: Gateway) -> None:
    handle = gate.memory.remember("about to go")
    with browser(gate, TOKEN) as client, browser(gate, RED) as other:
        page = client.get(f"/inspector/forget?handle={handle}").text
        form = page.partition('name="form" value="')[2].partition('"')[0]
        theirs = other.get("/inspector/forget").text
        assert form and form not in theirs
        right = {"form": form, "number": "1", "handle": handle}
        null = {"origin": "null"}
        refused = [
            client.post("/inspector/forget", data=right | {"form": "x" * 64}),
            client.post("/inspector/forget", data=right | {"form": ""}),
            other.post("/inspector/forget", data=right),
            client.post("/inspector/forget", data=right, headers={"origin": "http://evil.example"}),
            client.post("/inspector/forget", data=right, headers=null),
            client.post(
                "/inspector/forget", data=right, headers=null | {"sec-fetch-site": "cross-site"}
            ),
        ]
        assert [answer.status_code for answer in refused] == [403] * 6
        assert client.post("/inspector/forget", json=right).status_code == 415
        assert client.post("/inspector/forget", data=right | {"number": "x"}).status_code == 400
        large = right | {"handle": "x" * 300_000}
        assert client.post("/inspector/forget", data=large).status_code == 413
        assert gate.memory.has(handle)
        done = client.post(
            "/inspector/forget", data=right, headers=null | {"sec-fetch-site": "same-origin"}
        )
        assert done.status_code == 303 and not gate.memory.has(handle)


@pytest.mark.parametrize("chosen", ["", "q=treasure", "page=2"])
def test_nothing_is_deleted_by_no_condition(gate: Gateway, chosen: str) -> None:
    with browser(gate, TOKEN) as client:
        page = client.get(f"/inspector/forget?{chosen}")
        assert "Nothing is chosen" in page.text and 'name="form"' not in page.text


def test_without_edit_it_only_reads(site: Site) -> None:
    handle = next(site.memory.list()).handle
    with httpx2.Client(base_url=site.url, trust_env=False, headers=HTML) as client:
        client.get(f"/?token={TOKEN}")
        for page in ("/?source=mypy", f"/inspector/memory?handle={handle}"):
            assert "/inspector/forget" not in client.get(page).text
        assert client.get(f"/inspector/forget?handle={handle}").status_code == 403
        sent = {"form": "x", "number": "1", "handle": handle}
        assert client.post("/inspector/forget", data=sent).status_code == 403
    assert site.memory.has(handle)


def test_a_gateway_without_tokens_shows_its_pages_to_all(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url) as made:
        made.memory.remember("in the open")
        answer = made.http.get("/", headers=HTML)
        assert answer.status_code == 200 and "in the open" in answer.text
        assert made.http.get("/", headers={"host": "evil.example"}).status_code == 421
        assert 'route="/inspector"' in made.http.get("/metrics").text
