"""Outputs of npm, HTTP clients and HTTP servers."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import MESSAGES, compose
from clara_mlx.evaluate.corpus.names import MONTHS
from clara_mlx.evaluate.corpus.page import Layout, Page, mark

_METHODS = ("GET", "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD")
_MEDIA = ("application/json", "text/html; charset=utf-8", "text/plain", "application/octet-stream")
_SCRIPTS = ("build", "test", "lint", "start", "dev", "typecheck")


def _write_deprecation(page: Page) -> None:
    names = page.names
    package, version = names.kebab(), names.version()
    page.line(
        *(f"npm warn deprecated {package}@", mark("version", version, name=package), ": "),
        mark("deprecation", compose(names, "use <kebab> instead"), name=package),
    )


def _npm_install(page: Page) -> None:
    """Counts of installed and audited packages, after deprecation warnings."""
    names, rng = page.names, page.rng
    page.fill(lambda: _write_deprecation(page), 0, 1, 0.9)
    added = names.number(2, 1500)
    page.line(
        *("added ", mark("added_packages", added), " packages, and audited "),
        *(mark("audited_packages", names.number(added + 1, 1900)), " packages in "),
        mark("duration", f"{names.count(90)}s"),
    )
    page.line()
    if rng.random() < 0.4:
        page.line(mark("funding", names.number(2, 300)), " packages are looking for funding")
        page.line("  run `npm fund` for details")
        page.line()
    if rng.random() < 0.5:
        page.line("found ", mark("vulnerabilities", 0), " vulnerabilities")
    else:
        level = rng.choice(("low", "moderate", "high"))
        page.line(mark("vulnerabilities", rng.randint(2, 19)), f" {level} severity vulnerabilities")


def _npm_missing(page: Page) -> None:
    """A package that does not exist, or a dependency that can't be resolved."""
    names = page.names
    page.fill(lambda: _write_deprecation(page), 0, 0, 0.9)
    package = names.kebab()
    if page.rng.random() < 0.5:
        page.line("npm error code ", mark("error_code", "E404"))
        page.line(
            "npm error 404 Not Found - GET https://registry.npmjs.org/",
            *(mark("missing_module", package), " - Not found"),
        )
    else:
        other, version = names.kebab(), names.version()
        page.line("npm error code ", mark("error_code", "ERESOLVE"))
        page.line("npm error Could not resolve dependency:")
        page.line(
            *("npm error peer ", mark("peer", package), '@"^'),
            *(mark("version", names.version(), name=package), f'" from {other}@'),
            mark("version", version, name=other),
        )
    if page.rng.random() < 0.8:
        page.line(
            "npm error A complete log of this run can be found in: ",
            mark("log_file", f"/home/{names.user()}/.npm/_logs/{names.hex(6)}.log"),
        )


def _npm_script(page: Page) -> None:
    names, rng = page.names, page.rng
    package, script = names.kebab(), rng.choice(_SCRIPTS)
    page.line(f"> {package}@", mark("version", names.version(), name=package), f" {script}")
    page.line("> ", mark("command", f"{names.kebab()} --{names.kebab()}"))
    page.line()
    page.fill(lambda: page.line(f"built {names.path('js', ('dist',))}"), 0, 0, 0.9)
    page.line("npm error Lifecycle script `", mark("script", script), "` failed with error:")
    page.line("npm error code ", mark("exit_status", rng.randint(1, 9)))
    page.line("npm error path ", mark("directory", f"/home/{names.user()}/{names.kebab()}"))


def _npm_typescript(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_deprecation(page), 0, 0, 0.9)
    code, message = rng.choice(MESSAGES["typescript_errors"])
    path = f"src/{names.mixed(1, 2)}.{rng.choice(('ts', 'tsx'))}"
    page.line(
        *(mark("error_file", path), "(", mark("error_line", names.line()), ","),
        *(mark("error_column", rng.randint(1, 19)), "): error ", mark("error_code", code)),
        *(": ", mark("error_message", compose(names, message))),
    )
    if rng.random() < 0.4:
        page.line("npm error Lifecycle script `", mark("script", rng.choice(_SCRIPTS)), "` failed")


def _npm_jest(page: Page) -> None:
    """A jest run started by npm test."""
    names = page.names
    files = page.fill(
        lambda: page.line(f"PASS src/{names.mixed(1, 2)}.test.ts"), 0, 1, 0.9, most=18
    )
    page.line("FAIL ", mark("test_file", f"src/{names.mixed(1, 2)}.test.ts"))
    page.line("  ● ", mark("failed_test", f"{names.word()} {names.word()} {names.word()}"))
    page.line("    Expected: ", mark("expected", names.number(0, 999)))
    page.line("    Received: ", mark("actual", names.number(0, 999)))
    passed_files = f" {files} passed," if files else ""
    page.line(f"Test Suites: 1 failed,{passed_files} {files + 1} total")
    passed = names.at_least(max(files, 1), int(400 ** page.rng.random()), 1)
    page.line(
        *("Tests:       ", mark("failed", 1), " failed, ", mark("passed", passed)),
        *(" passed, ", mark("ran", passed + 1), " total"),
    )


def _write_header(page: Page, key: str, value: str) -> None:
    page.line(f"{key}: ", mark("value", value, key=key))


def _write_headers(page: Page, status: int, low: int, high: int) -> None:
    """Write headers that go with the status, and others while there is room."""
    names, rng = page.names, page.rng
    drawn = [
        ("content-type", rng.choice(_MEDIA)),
        ("content-length", str(names.count(90_000))),
        ("server", names.word()),
        ("etag", f'"{names.hex(8)}"'),
        ("x-request-id", names.hex(12)),
        ("cache-control", f"max-age={names.count(9000)}"),
        ("x-ratelimit-remaining", str(names.count(5000))),
    ]
    drawn = rng.sample(drawn, rng.randint(low, high))
    if status in (201, 301, 302):
        drawn.append(("location", f"/{names.word()}/{names.kebab()}"))
    if status in (429, 503):
        drawn.append(("retry-after", str(names.count(600))))
    for key, value in drawn:
        _write_header(page, key, value)
    page.fill(lambda: _write_header(page, f"x-{names.kebab(2, 2)}", names.kebab()), 0, 0)


def _url_path(page: Page) -> str:
    names, rng = page.names, page.rng
    top = rng.choice(("/api/", "/v1/", "/v2/", "/"))
    tail = f"/{names.number(1, 99999)}" if rng.random() < 0.3 else ""
    return top + "/".join(names.parts(1, 2)) + tail


def _host(page: Page) -> str:
    names, rng = page.names, page.rng
    return f"{names.kebab()}.{rng.choice(('com', 'org', 'io', 'dev', 'net'))}"


def _http_response(page: Page) -> None:
    """``curl -i``."""
    names, rng = page.names, page.rng
    status, reason = rng.choice(MESSAGES["http_statuses"])
    if rng.random() < 0.3:
        page.line("HTTP/2 ", mark("http_status", status))
    else:
        page.line("HTTP/1.1 ", mark("http_status", status), " ", mark("http_reason", reason))
    _write_headers(page, status, 2, 4)
    if status in (204, 304) or rng.random() < 0.4:
        return
    page.line()
    if status >= 400:
        said = compose(names, rng.choice(MESSAGES["api_errors"]))
        page.line('{"error": "', mark("error_message", said), '"}')
    else:
        page.line('{"id": ', mark("value", names.count(99_999), key="id"), "}")


def _http_verbose(page: Page) -> None:
    """``curl -v``."""
    names, rng = page.names, page.rng
    status, reason = rng.choice(MESSAGES["http_statuses"])
    page.line(
        *("> ", mark("http_method", rng.choice(_METHODS)), " ", mark("url_path", _url_path(page))),
        " HTTP/1.1",
    )
    page.line("> Host: ", mark("host", _host(page)))
    page.line(">")
    page.line("< HTTP/1.1 ", mark("http_status", status), " ", mark("http_reason", reason))
    page.line("< Server: ", mark("value", names.kebab(), key="Server"))
    page.fill(lambda: page.line(f"< X-{names.camel()}: {names.kebab()}"), 0, 0)


def _http_access(page: Page) -> None:
    """A server's access log; questions name the path of a request."""
    names, rng = page.names, page.rng
    uvicorn = rng.random() < 0.5

    def request() -> None:
        path, (status, reason) = _url_path(page), rng.choice(MESSAGES["http_statuses"])
        method = mark("method_of", rng.choice(_METHODS), path=path)
        if uvicorn:
            page.put(f'INFO:     127.0.0.1:{names.number(1024, 65000)} - "', method)
            page.line(f' {path} HTTP/1.1" ', mark("status_of", status, path=path), f" {reason}")
        else:
            day = f"{rng.randint(1, 19)}/{rng.choice(MONTHS)}/{rng.randint(2023, 2026)}"
            page.put(f'127.0.0.1 - - [{day}:{names.clock()} +0000] "', method)
            page.line(
                *(f' {path} HTTP/1.1" ', mark("status_of", status, path=path), " "),
                mark("bytes_of", names.count(90_000), path=path),
            )

    page.fill(request, 2, 3)


def _http_refused(page: Page) -> None:
    names = page.names
    page.fill(lambda: page.line(f"* Trying {_host(page)}..."), 0, 0, 0.9)
    host, port = _host(page), names.number(1024, 65000)
    page.line(
        *("curl: (", mark("exit_status", 7), ") Failed to connect to ", mark("host", host)),
        *(" port ", mark("port", port), " after ", mark("duration", f"{names.count(9000)} ms")),
        ": Couldn't connect to server",
    )


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "npm": (_npm_install, _npm_missing, _npm_script, _npm_typescript, _npm_jest),
    "http": (_http_response, _http_response, _http_verbose, _http_access, _http_refused),
}
