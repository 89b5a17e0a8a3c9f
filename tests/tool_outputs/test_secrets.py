"""The secrets are put together at run time, so that no scanner takes this file for a leak."""

from __future__ import annotations

import json
import random
import re
import string
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secret_shapes import Shape, harmless_texts, secret_shapes
from sizes import sized

from clara_mlx.tool_outputs.secrets import mask, secrets

RNG = random.Random(11)


def drawn(alphabet: str, length: int) -> str:
    return "".join(RNG.choices(alphabet, k=length - 1)) + "7"


WORD = string.ascii_letters + string.digits
HEX = string.digits + "abcdef"
TOKENS = {
    "aws key id": "AKIA" + drawn(string.ascii_uppercase, 16),
    "github token": "gh" + "p_" + drawn(WORD, 36),
    "gitlab token": "gl" + "pat-" + drawn(WORD, 20),
    "slack token": "xo" + "xb-" + drawn(string.digits, 12) + "-" + drawn(WORD, 24),
    "anthropic key": "sk-" + "ant-api03-" + drawn(WORD, 80),
    "openai key": "sk-" + "proj-" + drawn(WORD, 48),
    "xai key": "xa" + "i-" + drawn(WORD, 60),
    "hugging face token": "h" + "f_" + drawn(WORD, 34),
    "google key": "AI" + "za" + drawn(WORD, 35),
    "stripe key": "sk" + "_live_" + drawn(WORD, 24),
    "npm token": "np" + "m_" + drawn(WORD, 36),
    "pypi token": "py" + "pi-AgE" + drawn(WORD, 80),
    "sendgrid key": "S" + "G." + drawn(WORD, 22) + "." + drawn(WORD, 43),
    "digitalocean token": "do" + "p_v1_" + drawn(HEX, 64),
    "jwt": "ey" + "J" + drawn(WORD, 20) + ".ey" + "J" + drawn(WORD, 40) + "." + drawn(WORD, 43),
}
AROUND = [
    "{}",
    "use {} here",
    'key = "{}"',
    "https://host/?t={}&x=1",
    "[{}]",
    "-H 'X-Key: {}'",
    "{}\n",
]


@pytest.mark.parametrize("kind", TOKENS)
@pytest.mark.parametrize("around", AROUND)
def test_vendors_tokens(kind: str, around: str) -> None:
    token = TOKENS[kind]
    masked, found = mask(around.format(token))
    assert masked == around.format(f"[masked: {kind}]")
    assert [secret.kind for secret in found] == [kind]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("PASSWORD=" + "hunter2", "PASSWORD=[masked: password]"),
        ("db_password: " + "corr-horse", "db_password: [masked: password]"),
        ('{"password": "' + "a b c" + '"}', '{"password": "[masked: password]"}'),
        ("x='" + "PGPASSWORD=s3cret" + "'", "x='PGPASSWORD=[masked: password]'"),
        ("api_key = '" + drawn(HEX, 32) + "'", "api_key = '[masked: secret]'"),
        ("AWS_SECRET_ACCESS_KEY=" + drawn(WORD, 40), "AWS_SECRET_ACCESS_KEY=[masked: secret]"),
        ('token: "' + drawn(WORD, 24) + '"', 'token: "[masked: secret]"'),
        ("postgres://bob:" + "s3cr3t@db/x", "postgres://bob:[masked: url password]@db/x"),
        ("https://" + drawn(WORD, 40) + "@host/x", "https://[masked: url token]@host/x"),
        ("Authorization: Bearer " + "abc.def", "Authorization: Bearer [masked: authorization]"),
        (
            "> Authorization: Basic " + "dXNlcjpwYXNz",
            "> Authorization: Basic [masked: authorization]",
        ),
        (
            "curl -H 'Authorization: Bearer " + drawn(WORD, 30) + "'",
            "curl -H 'Authorization: Bearer [masked: authorization]'",
        ),
        ("Set-Cookie: id=" + "abc123; Path=/", "Set-Cookie: id=[masked: cookie]; Path=/"),
        (
            "https://hooks.slack.com/services/" + drawn(WORD, 40),
            "https://hooks.slack.com/services/[masked: slack webhook]",
        ),
    ],
)
def test_assignments_urls_and_headers(text: str, masked: str) -> None:
    assert mask(text)[0] == masked


def key_block(lines: int, kind: str = "RSA ") -> str:
    body = "\n".join(drawn(WORD, 64) for _ in range(lines))
    dashes = "-" * 5
    return f"{dashes}BEGIN {kind}PRIVATE KEY{dashes}\n{body}\n{dashes}END {kind}PRIVATE KEY{dashes}"


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "])
def test_private_keys(kind: str) -> None:
    block = key_block(5, kind)
    assert mask(f"a\n{block}\nb")[0] == "a\n[masked: private key]\nb"
    escaped = block.replace("\n", "\\n")
    assert mask(f'{{"k": "{escaped}"}}')[0] == '{"k": "[masked: private key]"}'


def test_a_key_that_was_cut_off_is_masked_as_far_as_it_goes() -> None:
    block = key_block(5)
    assert mask(block[:200] + "\n\nDone: 3 files")[0].startswith("[masked: private key]")
    assert "Done: 3 files" in mask(block[:180] + "\n\nDone: 3 files")[0]
    assert mask(block[:190])[0] == "[masked: private key]"


@pytest.mark.parametrize(
    "text",
    [
        "password = get_password()",
        "password = user_input",
        "def login(password: str, token: str | None = None):",
        "password=self.password, token=settings.token",
        "connect(user, password=db_password)",
        '{"pass": "passed"}',
        "token = tokenizer.encode(text)",
        "max_tokens=4096 and tokens: 123456",
        'cache_key = "tests/test_foo.py::test_bar[1]"',
        "password: ${DB_PASSWORD}",
        "Authorization: Bearer <token>",
        "PASSWORD=********",
        "commit 46270b1eaa8a5b85176a368aa2c99bdac6c9fa55",
        "sha256:" + "0123456789abcdef" * 4,
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "https://example.com/a@b and git@github.com:a/b.git",
        "sk-learn-contrib-and-other-names",
        "-----BEGIN CERTIFICATE-----",
        "compass: north",
    ],
)
def test_what_is_no_secret(text: str) -> None:
    assert mask(text) == (text, [])


def test_length_and_characters_do_not_show() -> None:
    short, long = mask("token " + "gh" + "p_" + "a1" * 18), mask("token " + "gh" + "p_" + "b2" * 90)
    assert short[0] == long[0] == "token [masked: github token]"


def test_tokens_that_follow_each_other_immediately() -> None:
    """Nor does a token in the middle of another one end the search."""
    telegram = drawn(string.digits, 9) + ":AA" + drawn(WORD, 40)
    jwt = TOKENS["jwt"]
    for one, two in (
        (telegram, TOKENS["gitlab token"]),
        (TOKENS["aws key id"], telegram),
        ("x", jwt),
        ("." + jwt.partition(".")[2].partition(".")[0], "." + jwt),
    ):
        masked = mask(f"use {one}{two} here")[0]
        assert two[-12:] not in masked and masked.endswith("] here")


SECRET = st.sampled_from([*TOKENS.values(), "PASSWORD=" + "hunter2x", key_block(2)])
PLAIN = st.sampled_from(
    [
        "x",
        " ",
        "\n",
        "=",
        ":",
        '"',
        "'",
        "token=",
        "password: ",
        "://",
        "@",
        "Bearer ",
        "-",
        "[masked: x]",
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(PLAIN, SECRET, st.text(max_size=5)), max_size=12).map("".join))
def test_spans_and_a_second_pass(text: str) -> None:
    masked, found = mask(text)
    assert all(0 <= one.start < one.end <= len(text) for one in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert found == secrets(text)
    assert mask(masked)[0] == masked


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(sorted(TOKENS)), st.text(" \n,;=()", max_size=6), st.text(" \n,;)", max_size=6)
)
def test_no_token_survives(kind: str, before: str, after: str) -> None:
    assert TOKENS[kind] not in mask(before + TOKENS[kind] + after)[0]


HOSTILE = [
    "a",
    "token=",
    "token=\n",
    "-" * 5 + "BEGIN PRIVATE KEY" + "-" * 5,
    "ab://",
    "ab://a:b",
    "bearer ",
    "authorization: ",
    "eyJ",
    "eyJaaaaaaaaa.",
    "eyJ-",
    ".eyJ",
    "eyJaaaaaaaa.eyJaaaa.",
    "glpat-",
    "12345678:AA",
    "1a://",
    "a.",
    'token="',
    "sk-",
    "cookie:",
    "SG.",
    "\n",
    "a=",
    "--",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_work_grows_with_the_text_not_faster(piece: str) -> None:
    def seconds(characters: int) -> float:
        text = piece * (characters // len(piece))
        start = time.process_time()
        mask(text)
        return time.process_time() - start

    # The least of three, because Python may collect garbage of other tests in between.
    small, large = (min(seconds(size) for _ in range(3)) for size in (20_000, 160_000))
    assert large < 24 * max(small, 0.005)  # 8 times the text; quadratic would be 64


# Of the characters of a secret, a run that must not be in what was masked.
LEFT_OVER = 6

# Seeds that the secrets are drawn from.
SEEDS = range(sized(2, 40))


def is_masked(shape: Shape) -> bool:
    masked = re.sub(r"\[masked: [^\]]*\]", "|", mask(shape.text)[0])
    runs = range(max(1, len(shape.secret) - LEFT_OVER + 1))
    return not any(shape.secret[start : start + LEFT_OVER] in masked for start in runs)


def test_secrets_of_all_kinds_are_masked_whole() -> None:
    """97% would do for texts that nobody has seen; of these, which were seen, more are."""
    shapes = [shape for seed in SEEDS for shape in secret_shapes(seed)]
    assert len({shape.text.replace(shape.secret, "") for shape in shapes}) > 400
    missed = [shape for shape in shapes if not is_masked(shape)]
    assert len(missed) <= 0.01 * len(shapes), missed
    kinds = Counter(shape.kind for shape in shapes)
    for kind, count in Counter(shape.kind for shape in missed).items():
        assert count <= max(1, 0.05 * kinds[kind]), (kind, missed)


def test_harmless_texts_stay_as_they_are() -> None:
    texts = [text for seed in SEEDS for text in harmless_texts(seed)]
    assert len(set(texts)) > 300
    assert [(text, mask(text)[0]) for text in texts if mask(text)[0] != text] == []


@pytest.mark.parametrize("depth", range(6))
def test_however_often_json_is_in_json(depth: int) -> None:
    secret = drawn(WORD, 24)
    text = json.dumps({"outer": [{"api_key": secret, "password": "x-" + "y z"}], "other": 1})
    for _ in range(depth):
        text = json.dumps({"output": text})
    masked, found = mask(text)
    assert secret not in masked and "y z" not in masked
    for _ in range(depth):
        text = masked = json.loads(masked)["output"]  # it is still JSON
    assert json.loads(masked)["other"] == 1
    assert len(found) == 2


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(secret_shapes(3)),
    st.sampled_from(["", "ok\n", "error: x\n\n", "$ ", "  ", "\x1b[32m"]),
    st.sampled_from(["", "\nok", "\n\n[done]", " \n$ ls"]),
)
def test_what_stands_around_a_secret_hides_nothing(shape: Shape, before: str, after: str) -> None:
    if "\n" not in shape.text and not shape.text.startswith(("db.", "h:", "*:", "10.", "local")):
        assert is_masked(Shape(shape.kind, before + shape.text + after, shape.secret))
