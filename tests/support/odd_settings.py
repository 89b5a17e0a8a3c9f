"""Settings files as people write them: odd spacing, comments, line ends, nesting."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

_NAMES = st.sampled_from(
    ["env", "model", "theme", "mcpServers", "provider", "a b", "ключ", "hooks", "x", "GOOSE_MODEL"]
)
_TEXTS = st.sampled_from(
    ["", "plain", 'quo"te', "# no comment", "// nor this", "{", "é", "a: b", "x" * 90, "-", "null"]
)
_PLAIN = st.one_of(_TEXTS, st.integers(-9, 99), st.booleans(), st.sampled_from([1.5, 1e30]))

#: Data of a settings file: objects, lists and plain values.
DATA = st.dictionaries(
    _NAMES,
    st.recursive(
        _PLAIN,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)

_GAPS = st.sampled_from(
    ["", "", "", " ", "\n", "\n\n  ", "\t", " /* a { */ ", " // b }\n", "\n  // c\n  ", " /*\n*/"]
)


@st.composite
def odd_json(draw: Any) -> str:
    """JSON with comments, trailing commas and any layout, or as a program writes it."""
    data = draw(DATA)
    layout = draw(st.sampled_from(["odd", 2, 4, "\t", None]))
    if layout == "odd":
        text = draw(_GAPS) + _write(draw, data) + draw(_GAPS)
    else:
        text = json.dumps(data, indent=layout, ensure_ascii=draw(st.booleans()))
    return _ends(draw, text)


def _write(draw: Any, value: Any) -> str:
    if isinstance(value, dict):
        parts = [
            f"{draw(_GAPS)}{json.dumps(key)}{draw(_GAPS)}:{draw(_GAPS)}{_write(draw, each)}"
            for key, each in value.items()
        ]
        return "{" + _join(draw, parts) + "}"
    if isinstance(value, list):
        return "[" + _join(draw, [draw(_GAPS) + _write(draw, each) for each in value]) + "]"
    return json.dumps(value)


def _join(draw: Any, parts: list[str]) -> str:
    text = ",".join(part + draw(_GAPS) for part in parts)
    return text + ("," if parts and draw(st.booleans()) else "") + draw(_GAPS)


def _ends(draw: Any, text: str) -> str:
    """With or without a line end at the end; all line ends of one kind."""
    text = text.rstrip("\n") + ("\n" if draw(st.booleans()) else "")
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@st.composite
def odd_yaml(draw: Any) -> str:
    """YAML in lines and in braces, with comments and blank lines."""
    import yaml

    text = draw(st.sampled_from(["", "---\n", "# about this\n", "\n", "# a\n---\n# b\n"]))
    for key, value in draw(DATA).items():
        flow = draw(st.booleans())
        part = yaml.safe_dump({key: value}, default_flow_style=False, allow_unicode=True)
        if flow:
            part = f"{json.dumps(key)}: {json.dumps(value)}\n"
        text += draw(st.sampled_from(["", "", "\n", "# a comment: [\n", "  # indented\n"])) + part
    return _ends(draw, text)


@st.composite
def odd_toml(draw: Any) -> str:
    """TOML with comments, tables, texts and lists over several lines."""
    tops = draw(
        st.lists(
            st.sampled_from(
                [
                    'model = "gpt-5"  # mine',
                    "'model_provider' = 'openai'",
                    'notes = """\n[not.a.table]\nmodel = 1\n"""',
                    "list = [\n  1, # one\n  2,\n]",
                    "# a comment = 1",
                    "",
                    "day = 2026-01-01",
                    "tui.theme = 'dark'",
                    "model_context_window=1",
                ]
            ),
            unique=True,
            max_size=6,
        )
    )
    tables = draw(
        st.lists(
            st.sampled_from(
                [
                    "[model_providers.other]\nname = 'x'",
                    '[projects."/a/b"]\ntrust_level = "trusted"\n',
                    "[[items]]\nmodel = 'inner'",
                    "[mcp_servers]\n\n[mcp_servers.z] # z\ncommand = 'z'\nargs = [\n]",
                    "# the end",
                ]
            ),
            unique=True,
            max_size=4,
        )
    )
    return _ends(draw, "\n".join([*tops, *tables]))


@st.composite
def odd_env(draw: Any) -> str:
    """A .env file."""
    lines = draw(
        st.lists(
            st.sampled_from(
                ["LLM_MODEL=a", "export LLM_BASE_URL='b c'", "# c", "", "X=1 # y", "not a setting"]
            ),
            unique=True,
            max_size=6,
        )
    )
    return _ends(draw, "\n".join(lines))
