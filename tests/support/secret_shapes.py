"""Texts with secrets, and texts that only look as if: the shapes in which tools print them.

The secrets are drawn from a seed when the tests run, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SHAPES = Path(__file__).parents[1] / "tool_outputs" / "shapes"
WORD = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
URL = WORD + "-_"


class Shape(NamedTuple):
    """A text with a secret in it."""

    kind: str
    text: str
    secret: str


class _Draw:
    """Draws secrets; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def of(self, alphabet: str, length: int) -> str:
        """Characters of an alphabet, with one letter and one digit at least, if it has both."""
        drawn = self._random.choices(alphabet, k=length)
        for some in (string.ascii_letters, string.digits):
            if common := [each for each in alphabet if each in some]:
                drawn[self._random.randrange(1, length)] = self._random.choice(common)
        return "".join(drawn)

    def word(self, length: int = 40) -> str:
        return self.of(WORD, length)

    def password(self) -> str:
        """What a person would choose, and some that a generator would."""
        words = ("winter", "Hunter", "Dragon", "tulip", "Orbit", "maple")
        marks = self._random.choice(("!", "#9", "_42", "@1", "-7x", "+Q3", "%5z"))
        made = f"{self._random.choice(words)}{self._random.randrange(10, 9999)}{marks}"
        return self._random.choice((made, self.of(WORD, 12), self.of(WORD + "!#+=_", 16)))

    def uuid(self) -> str:
        return "-".join(self.of(HEX, length) for length in (8, 4, 4, 4, 12))

    def pem_lines(self, lines: int = 6) -> list[str]:
        return [self.of(WORD + "+/", 64) for _ in range(lines)] + [self.of(WORD, 22) + "=="]


def _joined(*parts: str) -> str:
    """Parts of a prefix that would be found in this file if it stood here as a whole."""
    return "".join(parts)


#: Prefixes that vendors document, and what follows: alphabet and length.
VENDORS: dict[str, tuple[str, str, int]] = {
    "anthropic": (_joined("sk-", "ant-api03-"), URL, 95),
    "openai project": (_joined("sk-", "proj-"), WORD, 120),
    "openai": (_joined("sk", "-"), WORD, 48),
    "openrouter": (_joined("sk-", "or-v1-"), HEX, 64),
    "gemini": (_joined("AI", "za"), WORD, 35),
    "gemini new": (_joined("AQ", ".Ab8RN6"), URL, 40),
    "google client": (_joined("GOC", "SPX-"), URL, 28),
    "groq": (_joined("gs", "k_"), WORD, 52),
    "hugging face": (_joined("h", "f_"), string.ascii_letters, 34),
    "replicate": (_joined("r", "8_"), WORD, 37),
    "perplexity": (_joined("pp", "lx-"), WORD, 48),
    "nvidia": (_joined("nv", "api-"), URL, 64),
    "aws": (_joined("AK", "IA"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
    "aws temporary": (_joined("AS", "IA"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16),
    "github": (_joined("gh", "p_"), WORD, 36),
    "github app": (_joined("gh", "s_"), WORD, 36),
    "github fine": (_joined("github", "_pat_"), WORD, 82),
    "gitlab": (_joined("gl", "pat-"), URL, 20),
    "gitlab runner": (_joined("gl", "rt-"), URL, 20),
    "atlassian": (_joined("AT", "ATT3xFfGF0"), URL, 180),
    "bitbucket": (_joined("AT", "BB"), WORD, 32),
    "slack bot": (_joined("xo", "xb-1234567890-1234567890-"), WORD, 24),
    "slack app": (_joined("xa", "pp-1-A012-345-"), HEX, 64),
    "docker": (_joined("dc", "kr_pat_"), URL, 27),
    "npm": (_joined("np", "m_"), WORD, 36),
    "pypi": (_joined("py", "pi-AgEIcHlwaS5vcmc"), URL, 150),
    "rubygems": (_joined("ruby", "gems_"), HEX, 48),
    "crates.io": (_joined("ci", "o"), WORD, 32),
    "nuget": (_joined("o", "y2"), string.ascii_lowercase + string.digits, 43),
    "tailscale": (_joined("ts", "key-auth-kAbCd1CNTRL-"), WORD, 32),
    "sentry user": (_joined("sn", "tryu_"), HEX, 64),
    "sentry org": (_joined("sn", "trys_eyJpYXQi"), WORD, 80),
    "supabase": (_joined("sb", "p_"), HEX, 40),
    "supabase secret": (_joined("sb_", "secret_"), URL, 31),
    "pulumi": (_joined("pu", "l-"), HEX, 40),
    "postman": (_joined("PM", "AK-0123456789abcdef01234567-"), HEX, 34),
    "1password": (_joined("op", "s_eyJ"), WORD, 200),
    "facebook": (_joined("EA", "A"), WORD, 120),
    "square": (_joined("EA", "AA"), URL, 60),
    "square app": (_joined("sq", "0csp-"), URL, 43),
    "stripe": (_joined("sk", "_live_"), WORD, 24),
    "stripe restricted": (_joined("rk", "_test_"), WORD, 24),
    "stripe webhook": (_joined("wh", "sec_"), WORD, 32),
    "sendgrid": (_joined("S", "G.abcdefghijkLMNOPQRSTu1."), URL, 43),
    "twilio": (_joined("S", "K"), HEX, 32),
    "mailgun": (_joined("ke", "y-"), HEX, 32),
    "brevo": (_joined("xkey", "sib-" + "0123456789abcdef" * 4 + "-"), WORD, 16),
    "digitalocean": (_joined("do", "p_v1_"), HEX, 64),
    "databricks": (_joined("da", "pi"), HEX, 32),
    "grafana": (_joined("gl", "sa_"), WORD, 32),
    "shopify": (_joined("sh", "pat_"), HEX, 32),
    "linear": (_joined("lin", "_api_"), WORD, 40),
    "notion": (_joined("nt", "n_"), WORD, 46),
    "figma": (_joined("fi", "gd_"), URL, 40),
    "vault": (_joined("hv", "s."), URL, 24),
    "doppler": (_joined("dp", ".pt."), WORD, 43),
    "planetscale": (_joined("psc", "ale_tkn_"), URL, 43),
    "netlify": (_joined("nf", "p_"), WORD, 40),
    "new relic": (_joined("NR", "AK-"), UPPER, 27),
    "openshift": (_joined("sha", "256~"), URL, 43),
    "circleci": (_joined("CC", "IPAT_abcdefghijklmnopqrst12_"), HEX, 40),
    "sonar": (_joined("sq", "p_"), HEX, 40),
    "resend": (_joined("r", "e_AbCdEf12_"), WORD, 24),
    "age": (_joined("AGE-", "SECRET-KEY-1"), UPPER, 58),
}


def _vendors(draw: _Draw) -> list[Shape]:
    around = ["{}", 'key: "{}"', "using {} for this", "?k={}&x=1", "Tok({})", "x\\n{}\\n"]
    shapes = []
    for number, (vendor, (prefix, alphabet, length)) in enumerate(VENDORS.items()):
        token = prefix + draw.of(alphabet, length)
        shapes.append(Shape(f"vendor: {vendor}", around[number % len(around)].format(token), token))
    terraform = draw.word(14) + ".atlas" + "v1." + draw.of(URL, 67)
    discord = "M" + draw.word(25) + "." + draw.of(URL, 6) + "." + draw.of(URL, 38)
    telegram = draw.of(string.digits, 10) + ":A" + "A" + draw.of(URL, 33)
    azure = draw.word(3) + "8Q" + "~" + draw.word(34)
    jwt = "ey" + "J" + draw.word(33) + ".ey" + "J" + draw.word(60) + "." + draw.of(URL, 43)
    shapes += [
        Shape("vendor: terraform", f'token = "{terraform}"', terraform),
        Shape("vendor: discord", f"client.run('{discord}')", discord),
        Shape("vendor: telegram", f"https://api.telegram.org/bot{telegram}/getMe", telegram),
        Shape("vendor: azure", f"secret value {azure} copied", azure),
        Shape("vendor: jwt", f"cookie jar holds {jwt}", jwt),
    ]
    return shapes


def _keys(draw: _Draw) -> list[Shape]:
    shapes = []
    prefixes: dict[str, Callable[[int], str]] = {
        "bare": lambda number: "",
        "cat -n": lambda number: f"{number:6}\t",
        "grep -n": lambda number: f"{number}:",
        "grep -n of files": lambda number: f"etc/key.pem:{number}:",
        "grep -A": lambda number: f"{number}{':' if number == 1 else '-'}",
        "compose": lambda number: "web-1  | ",
        "time": lambda number: "2026-11-30T02:00:00Z ",
        "arrow": lambda number: f"{number:5}→",
        "diff": lambda number: "+",
        "indented": lambda number: "    ",
    }
    for name, prefix in prefixes.items():
        for has_end in (True, False):
            body = draw.pem_lines()
            lines = ["-----BEGIN RSA " + "PRIVATE KEY-----", *body]
            if has_end:
                lines.append("-----END RSA " + "PRIVATE KEY-----")
            text = "\n".join(prefix(number) + line for number, line in enumerate(lines, 1))
            kind = f"key: {name}, {'with' if has_end else 'without'} its end"
            shapes += [Shape(kind, text, line) for line in (body[0], body[3], body[-1])]
    body = draw.pem_lines()
    block = "\n".join(["-----BEGIN " + "PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----"])
    shapes += [Shape("key: in JSON", json.dumps({"private_key": block}), line) for line in body[:2]]
    encoded = base64.b64encode(block.encode()).decode()
    shapes.append(Shape("key: in Base64", f"tls.key: {encoded}", encoded))
    tail = "\n".join([*body, "-----END " + "PRIVATE KEY-----"])
    shapes.append(Shape("key: its end only", tail, body[2]))
    return shapes


def _dressed(draw: _Draw) -> list[Shape]:
    """Secrets between the codes of a terminal, and behind prefixes of lines."""
    password, token = draw.word(14), draw.word(40)
    github = _joined("gh", "p_") + draw.word(36)
    dressed = f"\x1b[32m{github[:9]}\x1b[1m{github[9:]}\x1b[0m"
    return [
        Shape("dressed", f"\x1b[1mpassword\x1b[0m: \x1b[32m{password}\x1b[0m", password),
        Shape("dressed", f"TOKEN=\x1b[33m{token}\x1b[0m", token),
        Shape("dressed", f"token \x1b[32m{github}\x1b[0m", github),
        Shape("dressed in the middle", dressed, github[9:]),
        Shape("dressed", f"  12\tdb_password: {password}", password),
        Shape("dressed", f"web-1  | DB_PASSWORD={password}", password),
        Shape("dressed", f"web-1  | db.example.com:5432:app:bob:{password}", password),
    ]


def _files(draw: _Draw) -> Iterator[Shape]:
    """The lines of a file, each with a secret of its own."""
    draws: dict[str, Callable[[], str]] = {
        "token": draw.word,
        "middle": lambda: draw.word(24),
        "short": lambda: draw.word(12),
        "password": draw.password,
        "hex": lambda: draw.of(HEX, 32),
        "dots": lambda: f"abcd.{draw.word(16)}.{draw.word(8)}",
    }
    kind, how = "", ""
    for line in _lines("secrets.txt"):
        if line.startswith("## "):
            kind, _, how = line[3:].partition(": ")
        else:
            secret = draws[how]()
            yield Shape(kind, line.replace("@@", secret), secret)


def _lines(name: str) -> Iterator[str]:
    for line in (SHAPES / name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            yield line.replace("⏎", "\n").replace("⇥", "\t")


def secret_shapes(seed: int) -> list[Shape]:
    """Texts with a secret each, over all kinds."""
    draw = _Draw(seed)
    login = base64.b64encode(f"bob:{draw.word(14)}".encode()).decode()
    basic = (f"Basic {login}", f'{{"auths": {{"https://x": {{"auth": "{login}"}}}}}}')
    return [
        *_vendors(draw),
        *_keys(draw),
        *_dressed(draw),
        *_files(draw),
        *(Shape("a login in Base64", text, login) for text in basic),
    ]


def harmless_texts(seed: int) -> list[str]:
    """Texts that hold no secret."""
    draw = _Draw(seed)
    base = base64.b64encode(bytes(range(200))).decode()
    certificate = "\n".join(
        ["-----BEGIN CERTIFICATE-----", *draw.pem_lines(), "-----END CERTIFICATE-----"]
    )
    return [
        *_lines("harmless.txt"),
        f"commit {draw.of(HEX, 40)}",
        f"sha256:{draw.of(HEX, 64)}",
        f'"integrity": "sha512-{draw.of(WORD, 86)}=="',
        f"image@sha256:{draw.of(HEX, 64)}",
        f"id: {draw.uuid()}",
        f"request_id={draw.uuid()}",
        f'etag: "{draw.of(HEX, 32)}"',
        f"md5 {draw.of(HEX, 32)}  file.tar",
        certificate,
        f"certificate-authority-data: {base64.b64encode(certificate.encode()).decode()}",
        f"-----BEGIN PUBLIC KEY-----\n{draw.of(WORD, 64)}\n-----END PUBLIC KEY-----",
        f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5{draw.word(40)} bob@host",
        f'<img src="data:image/png;base64,{base}">',
        f"cache_key: {draw.of(HEX, 64)}",
        f"public_key: {draw.word(44)}",
    ]
