"""Configuration files as ``cat`` prints them: TOML, YAML, JSON and environment files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from clara_mlx.evaluate.corpus.page import Layout, Marked, Page, mark

# The usual keys of settings, by the kind of their value.
_USUAL = {
    "count": ("timeout", "retries", "port", "workers", "limit", "size", "batch_size", "max_tokens"),
    "decimal": ("threshold", "interval", "rate"),
    "choice": ("level", "mode", "log_level"),
    "path": ("path", "cache_dir"),
    "host": ("host",),
    "name": ("name", "region", "model"),
    "flag": ("enabled", "verbose"),
    "version": ("version",),
}
_SETTINGS = tuple((key, kind) for kind, keys in _USUAL.items() for key in keys)
_CHOICES = ("debug", "info", "warning", "error", "strict", "auto", "none", "default", "off", "fast")
_KINDS = ("count", "count", "decimal", "flag", "choice", "name", "name", "path", "host", "version")


def _setting(page: Page) -> tuple[str, str]:
    """Draw a setting's name, often a usual one, and the kind of its value."""
    names, rng = page.names, page.rng
    draw = rng.random()
    if draw < 0.4:
        return rng.choice(_SETTINGS)
    if draw < 0.6:
        usual, kind = rng.choice(_SETTINGS)
        return f"{names.word()}_{usual}", kind
    return names.snake(), rng.choice(_KINDS)


def _value(page: Page, kind: str) -> tuple[str, str]:
    """Draw a value of a kind, and the quotation mark that some formats write on either side."""
    names, rng = page.names, page.rng
    if kind == "count":
        return str(names.count(100_000)), ""
    if kind == "decimal":
        return names.decimal(0, 10, rng.choice((1, 2, 3))), ""
    if kind == "flag":
        return rng.choice(("true", "false")), ""
    if kind == "choice":
        return rng.choice(_CHOICES), '"'
    if kind == "name":
        return names.kebab(), '"'
    if kind == "path":
        top = rng.choice(("var", "etc", "opt", "srv", "tmp"))
        return f"/{top}/{names.word()}/{names.kebab()}", '"'
    if kind == "host":
        end = rng.choice(("com", "io", "net", "local"))
        return f"{names.kebab()}.{names.word()}.{end}", '"'
    return names.version(), '"'


def _write_entries(
    page: Page,
    section: str | None,
    write: Callable[[str, Marked, str], object],
    counts: tuple[int, int],
    share: float = 1.0,
) -> None:
    """Write distinct keys with values; questions name the key, and the section if there is one."""
    used: set[str] = set()

    def entry() -> None:
        key, kind = _setting(page)
        while key in used:
            key, kind = page.names.snake(2, 2), "name"
        used.add(key)
        value, quote = _value(page, kind)
        marked = mark("value", value, key=key)
        if section is not None:
            marked = mark("value_in", marked, key=key, section=section)
        write(key, marked, quote)

    page.fill(entry, *counts, share)


def _separators(comma: str) -> Iterator[str]:
    """Yield what is written before each item of a list: nothing before the first item."""
    yield ""
    while True:
        yield comma


def _toml_tables(page: Page) -> None:
    names, rng = page.names, page.rng

    def table() -> None:
        section = names.kebab() if rng.random() < 0.7 else f"{names.word()}.{names.word()}"
        page.line(f"[{section}]")

        def write(key: str, value: Marked, quote: str) -> None:
            page.line(f"{key} = ", quote, value, quote)

        _write_entries(page, section, write, (2, 3), 0.0)
        page.line()

    page.fill(table, 2, 2)


def _toml_project(page: Page) -> None:
    names, rng = page.names, page.rng
    page.line("[project]")
    page.line('name = "', mark("package", names.kebab()), '"')
    page.line('version = "', mark("value", names.version(), key="version"), '"')
    if rng.random() < 0.5:
        page.line('requires-python = ">=3.', mark("python", rng.randint(8, 13)), '"')
    page.line("dependencies = [")

    def dependency() -> None:
        package = names.kebab()
        page.line(f'    "{package}>=', mark("version", names.version(), name=package), '",')

    page.fill(dependency, 2, 3)
    page.line("]")


def _toml_cargo(page: Page) -> None:
    """The dependencies of a Cargo.toml, often with its package."""
    names, rng = page.names, page.rng
    whole = rng.random() < 0.6
    if whole:
        page.line("[package]")
        page.line('name = "', mark("package", names.kebab()), '"')
        page.line('version = "', mark("value", names.version(), key="version"), '"')
        page.line()
    page.line("[dependencies]")

    def dependency() -> None:
        crate = names.kebab()
        version = mark("version", names.version(), name=crate)
        if whole or rng.random() < 0.7:
            page.line(f'{crate} = "', version, '"')
        else:
            page.line(f'{crate} = {{ version = "', version, f'", features = ["{names.kebab()}"] }}')

    page.fill(dependency, 3, 4)


def _yaml_sections(page: Page) -> None:
    names = page.names

    def section() -> None:
        name = names.snake()
        page.line(f"{name}:")
        _write_entries(
            page, name, lambda key, value, _: page.line(f"  {key}: ", value), (2, 3), 0.0
        )

    page.fill(section, 2, 2)


def _yaml_compose(page: Page) -> None:
    """A docker-compose file."""
    names, rng = page.names, page.rng
    page.line("services:")

    def service() -> None:
        name = names.kebab()
        page.line(f"  {name}:")
        image = f"{names.kebab()}:{names.version()}"
        page.line("    image: ", mark("value_in", image, key="image", section=name))
        if rng.random() < 0.7:
            page.line("    ports:")
            page.line('      - "', mark("port_of", names.number(1024, 65000), name=name), ':80"')
        if rng.random() < 0.5:
            policy = rng.choice(("always", "no", "unless-stopped"))
            page.line("    restart: ", mark("value_in", policy, key="restart", section=name))

    page.fill(service, 2, 2)


def _yaml_flat(page: Page) -> None:
    _write_entries(page, None, lambda key, value, _: page.line(f"{key}: ", value), (4, 6))


def _write_pairs(
    page: Page, section: str | None, separator: str, counts: tuple[int, int], share: float = 1.0
) -> None:
    """Write pairs of JSON; the separator is a comma with what is between it and the next key."""
    comma = _separators(separator)

    def write(key: str, value: Marked, quote: str) -> None:
        page.put(next(comma), f'"{key}": ', quote, value, quote)

    _write_entries(page, section, write, counts, share)


def _json_flat(page: Page) -> None:
    page.put("{\n  ")
    _write_pairs(page, None, ",\n  ", (4, 5))
    page.line("\n}")


def _json_nested(page: Page) -> None:
    """Objects with two keys or more, each in an object by its name."""
    comma = _separators(",\n")

    def section() -> None:
        name = page.names.mixed(1, 2)
        page.put(next(comma), f'  "{name}": {{\n    ')
        _write_pairs(page, name, ",\n    ", (2, 2), 0.0)
        page.put("\n  }")

    page.line("{")
    page.fill(section, 2, 2)
    page.line("\n}")


def _json_line(page: Page) -> None:
    """Compact JSON on one line, as in an API's answer or a log."""
    page.put("{")
    _write_pairs(page, None, ", ", (4, 6))
    page.put("}")


def _json_package(page: Page) -> None:
    """A package.json: name, version and dependencies."""
    names, rng = page.names, page.rng
    comma = _separators(",\n")

    def dependency() -> None:
        package = f"@{names.word()}/{names.kebab()}" if rng.random() < 0.2 else names.kebab()
        page.put(next(comma), f'    "{package}": "^')
        page.put(mark("version", names.version(), name=package), '"')

    page.line("{")
    page.line('  "name": "', mark("package", names.kebab()), '",')
    page.line('  "version": "', mark("value", names.version(), key="version"), '",')
    if rng.random() < 0.4:
        page.line('  "main": "', mark("value", names.path("js"), key="main"), '",')
    page.line('  "dependencies": {')
    page.fill(dependency, 2, 3)
    page.line("\n  }")
    page.line("}")


def _env_file(page: Page) -> None:
    """Variables of an environment file, sometimes exported."""
    names, rng = page.names, page.rng
    used: set[str] = set()

    def variable() -> None:
        key = names.constant()
        while key in used:
            key = names.constant(2, 2)
        used.add(key)
        value, _ = _value(page, rng.choice(_KINDS))
        page.line("export " if exported else "", f"{key}=", mark("value", value, key=key))

    exported = rng.random() < 0.2
    if rng.random() < 0.3:
        page.line(f"# {names.word()} {names.word()}")
    page.fill(variable, 4, 6)


def _env_services(page: Page) -> None:
    """Where services are: hosts, ports and URLs."""
    names, rng = page.names, page.rng

    def service() -> None:
        prefix = names.word().upper()
        if rng.random() < 0.5:
            host, port = f"{names.kebab()}.{names.word()}.io", names.number(1024, 65000)
            page.line(f"{prefix}_HOST=", mark("value", host, key=f"{prefix}_HOST"))
            page.line(f"{prefix}_PORT=", mark("value", port, key=f"{prefix}_PORT"))
        else:
            host = f"{names.word()}@{names.kebab()}:{names.number(1024, 65000)}"
            url = f"postgres://{host}/{names.word()}"
            page.line(f"{prefix}_URL=", mark("value", url, key=f"{prefix}_URL"))

    page.fill(service, 3, 3)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "toml": (_toml_tables, _toml_project, _toml_cargo),
    "yaml": (_yaml_sections, _yaml_compose, _yaml_flat),
    "json": (_json_flat, _json_nested, _json_line, _json_package),
    "env": (_env_file, _env_file, _env_services),
}
