"""Identifiers in the notations of many tools, a small input for each."""

from __future__ import annotations

import pytest

from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.paths import without_place


def found(text: str, kind: str) -> list[str]:
    return [one.text for one in identifiers(text) if one.kind == kind]


PATHS = {
    "[ERROR] /srv/shop/Till.java:[38,9] cannot find symbol": "/srv/shop/Till.java:[38,9]",
    "e: /srv/shop/Till.kt: (214, 35): Unresolved reference": "/srv/shop/Till.kt: (214, 35)",
    "e: file:///srv/shop/Till.kt:214:35 Unresolved": "file:///srv/shop/Till.kt:214:35",
    "    at file:///srv/shop/till.mjs:3:36": "file:///srv/shop/till.mjs:3:36",
    "a.cs(10,5): error CS1002: ; expected": "a.cs(10,5)",
    r"C:\Program Files\App\a.cs(10,5): error CS1002": r"C:\Program Files\App\a.cs(10,5)",
    r"C:\my shop\tills\a.cs(10,5): error CS1002": r"C:\my shop\tills\a.cs(10,5)",
    r"in C:\Program Files (x86)\Shop\till.dll now": r"C:\Program Files (x86)\Shop\till.dll",
    r"run 'C:\my shop\till.exe' failed": r"C:\my shop\till.exe",
    r"   at Shop.Till.Open() in C:\shop\Till.cs:line 42": r"C:\shop\Till.cs:line 42",
    r"   at Shop.Till.Open() in /srv/shop/Till.cs:line 42": "/srv/shop/Till.cs:line 42",
    r"copied to \\srv\share\a.txt today": r"\\srv\share\a.txt",
    r"open \\build-01\drop$\till.log": r"\\build-01\drop$\till.log",
    "/srv/my shop/till.swift:3:5: error: no": "/srv/my shop/till.swift:3:5",
    '  File "/opt/my app/load.py", line 42, in load': "/opt/my app/load.py",
    "till.rb:12:in 'open'": "till.rb:12",
    "    at openTill (/srv/shop/till.js:12:34)": "/srv/shop/till.js:12:34",
    "\tat org.shop.Till.open(Till.java:12)": "Till.java:12",
    "\t/srv/shop/till.go:12 +0x1d": "/srv/shop/till.go:12",
    "  at ./src/till.rs:12:34": "./src/till.rs:12:34",
    "#0 /srv/shop/till.php(12): open()": "/srv/shop/till.php(12)",
    "src/Till.hs:(12,5)-(14,2): error:": "src/Till.hs:(12,5)-(14,2)",
    "Till.fs(5,9,5,20): error FS0039": "Till.fs(5,9,5,20)",
}
TESTS = {
    "[  FAILED  ] TillTest.Opens (0 ms)": "TillTest.Opens",
    "[ RUN      ] Keys/TillTest.Opens/3": "Keys/TillTest.Opens/3",
    "  ● Till \u203a opens with a key": "Till \u203a opens with a key",
    "  ● Till \u203a drawer \u203a opens (12 ms)": "Till \u203a drawer \u203a opens",
    "    ✕ opens with a key (3 ms)": "opens with a key",
    "    ✓ closes by itself": "closes by itself",
    " FAIL  till.test.ts > opens > with a key": "till.test.ts > opens > with a key",
    "   \u00d7 till.test.ts > opens 12ms": "till.test.ts > opens",
    "✖ opens with a key (1.25ms)": "opens with a key",
    "  3 passing (9ms)\n  1 failing\n\n  1) opens with a key:\n": "opens with a key",
    " 3/12 Test  #3: till_open ...........***Failed": "till_open",
    "\t  3 - till_open (Failed)": "till_open",
    "  Failed Shop.Tests.TillTest.Opens [12 ms]": "Shop.Tests.TillTest.Opens",
    '  Passed Opens(key: "a") [< 1 ms]': 'Opens(key: "a")',
    "1) Failed : Shop.Tests.TillTest.Opens": "Shop.Tests.TillTest.Opens",
    "1) Shop\\Tests\\TillTest::testOpen": "Shop\\Tests\\TillTest::testOpen",
    '1) TillTest::testOpen with data set "no key" (1)': 'TillTest::testOpen with data set "no key"',
    "[ERROR] opens(org.shop.TillTest)  Time elapsed: 0.1 s  <<< FAILURE!": (
        "opens(org.shop.TillTest)"
    ),
    "[ERROR] org.shop.TillTest.opens -- Time elapsed: 0.1 s <<< ERROR!": "org.shop.TillTest.opens",
    "[ERROR]   TillTest.opens:12 expected:<1> but was:<2>": "TillTest.opens",
    "TillTest > opensWithAKey() FAILED": "TillTest > opensWithAKey()",
    "rspec ./spec/till_spec.rb:12 # Till opens with a key": "Till opens with a key",
    "--- FAIL: TestOpen/with_key (0.00s)": "TestOpen/with_key",
    '{"Action":"fail","Test":"TestOpen/with_key"}': "TestOpen/with_key",
    "test till::tests::opens ... FAILED": "till::tests::opens",
    "        FAIL [   0.004s] shop::till opens::with_key": "shop::till opens::with_key",
    "not ok 3 - opens with a key # TODO": "opens with a key",
    "not ok 3 opens with a key": "opens with a key",
    "Test Case '-[TillTests testOpen]' failed (0.1 seconds).": "-[TillTests testOpen]",
    "  1) test opens with a key (Shop.TillTest)": "opens with a key (Shop.TillTest)",
    "TillTest#test_opens [till_test.rb:12]:": "TillTest#test_opens",
    "FAILED tests/test_till.py::TestTill::test_open[a b] - x": (
        "tests/test_till.py::TestTill::test_open[a b]"
    ),
}
OTHERS = {
    "resource": {
        "  # aws_instance.till will be created": "aws_instance.till",
        '  # module.shop["a"].aws_instance.till[0] must be replaced': (
            'module.shop["a"].aws_instance.till[0]'
        ),
        "aws_s3_bucket.till_logs: Creating...": "aws_s3_bucket.till_logs",
        "data.aws_ami.ubuntu: Reading...": "data.aws_ami.ubuntu",
        "│   with aws_instance.till,": "aws_instance.till",
        "till-7d4b9c6f5-x2x8q   0/1   Error": "till-7d4b9c6f5-x2x8q",
        "deployment.apps/till configured": "deployment.apps/till",
        'Error from server: pods "till-0" not found': "till-0",
    },
    "target": {
        "ERROR: //shop/till:till_test failed": "//shop/till:till_test",
        "rule '//till:all' depends on": "//till:all",
        "in @maven//:com_google_guava": "@maven//:com_google_guava",
        "> Task :app:compileJava FAILED": ":app:compileJava",
        "Execution failed for task ':app:test'.": ":app:test",
    },
    "package": {
        "Found: react@17.0.1": "react@17.0.1",
        "peer @types/node@^18.0.0 from": "@types/node@^18.0.0",
        'rsuite@"^4.0.4" from the root project': 'rsuite@"^4.0.4"',
        "go: golang.org/x/net@v0.17.0: not found": "golang.org/x/net@v0.17.0",
        "org.apache.commons:commons-lang3:jar:3.12.0:compile": (
            "org.apache.commons:commons-lang3:jar:3.12.0:compile"
        ),
        "Could not find org.shop:till:1.2.": "org.shop:till:1.2",
        "--- maven-compiler-plugin:3.8.0:compile (default) @ till ---": (
            "maven-compiler-plugin:3.8.0:compile"
        ),
        "    Image:          nginx:1.25-alpine": "nginx:1.25-alpine",
        "FROM registry.example.com:5000/shop/till:2.4.0 AS build": (
            "registry.example.com:5000/shop/till:2.4.0"
        ),
        "pushed ghcr.io/shop/till:2.4.0": "ghcr.io/shop/till:2.4.0",
    },
    "address": {
        "listening on 0.0.0.0:8080": "0.0.0.0:8080",
        "dial tcp 10.0.0.12:5432: refused": "10.0.0.12:5432",
        "lease of 10.0.2.15 obtained": "10.0.2.15",
        "route 10.0.0.0/8 via eth0": "10.0.0.0/8",
        "connect localhost:5432": "localhost:5432",
        "connect db.shop.example.com:5432 failed": "db.shop.example.com:5432",
        "bind [::1]:8080": "[::1]:8080",
        "inet6 fe80::1ff:fe23:4567 scope link": "fe80::1ff:fe23:4567",
        "ether 0a:1b:2c:3d:4e:5f": "0a:1b:2c:3d:4e:5f",
    },
    "code": {
        "found CVE-2021-44228 in log4j": "CVE-2021-44228",
        "GHSA-jfh8-c2jp-5v3q high": "GHSA-jfh8-c2jp-5v3q",
        "ORA-00942: table or view does not exist": "ORA-00942",
        "SQLSTATE[42S02]: Base table": "SQLSTATE[42S02]",
        "ERROR 1064 (42000): You have": "ERROR 1064 (42000)",
        "< HTTP/1.1 404 Not Found": "404 Not Found",
        "status code: 503": "503",
        "server said 502 Bad Gateway": "502 Bad Gateway",
        "ERROR: AddressSanitizer: heap-buffer-overflow on address": "heap-buffer-overflow",
        "BUG: KASAN: slab-out-of-bounds in f": "slab-out-of-bounds",
        "SUMMARY: data race in f": "data race",
        "ERR_MODULE_NOT_FOUND": "ERR_MODULE_NOT_FOUND",
        "Permission denied (os error 13)": "os error 13",
        "      Exit Code:    137": "Exit Code:    137",
        "Reason: OOMKilled": "OOMKilled",
        "error NETSDK1045: The current": "NETSDK1045",
        "#[warn(clippy::needless_borrow)]": "clippy::needless_borrow",
        "till.rb:3:5: C: Style/StringLiterals: Prefer": "Style/StringLiterals",
        "Till.java:[12,5] [AvoidObjects] say": "AvoidObjects",
        "  6:18  error  Missing semicolon   semi": "semi",
        "  6:18  error  'a' is unused  @typescript-eslint/no-unused-vars": (
            "@typescript-eslint/no-unused-vars"
        ),
        "a.py:1:0: C0114: Missing docstring (missing-module-docstring)": "missing-module-docstring",
        "killed by SIGSEGV": "SIGSEGV",
        "HRESULT: 0x80070005": "0x80070005",
    },
    "exception": {"ExceptionGroup: two (2 sub-exceptions)": "ExceptionGroup"},
    "line": {
        "/srv/till.js\n  6:18  error  Missing semicolon": "6:18",
        "/srv/till.css\n 152:3  ✖  Unexpected value": "152:3",
        "on line 12, column 5 of it": "line 12, column 5",
    },
}  # fmt: skip
CASES = [
    *(("path", text, expected) for text, expected in PATHS.items()),
    *(("test", text, expected) for text, expected in TESTS.items()),
    *((kind, text, expected) for kind, of in OTHERS.items() for text, expected in of.items()),
]


@pytest.mark.parametrize(("kind", "text", "expected"), CASES)
def test_what_is_found(kind: str, text: str, expected: str) -> None:
    assert expected in found(text, kind)
    assert expected in found(f"begin\n{text}\nend", kind)


@pytest.mark.parametrize(
    "text",
    [
        "read and/or write, I/O, n/a, 3/4, km/h, his/hers",
        "at 12:30, 12:30:45 and 2024-01-02T03:04:05, ratio 16:9",
        "00000000: 7f45 4c46 0201 0100 0000 0000 0000 0000  .ELF............",
        "7f 45 4c 46 02 01 01 00 00 00 00 00 00 00 00 00",
        "it took 0.05s, 12.5 % of 3.14, 1,000 of 2,000.5",
        "netmask 255.255.255.0, from 127.0.0.1 to 0.0.0.0",
        "//go:build linux\n//nolint:errcheck\n// todo:later",
        "a key: value, a: b, x:y, foo:bar:baz",
        "self.price_of and obj.total_sum are attributes",
        "write to me@example or @someone",
        "1) do this\n2) do that\n",
        "the class of things in brackets (not-that) goes on",
        "10:15  meeting with the shop\n",
        "std::vector<int>, Foo::bar, a->b",
        "\\d+\\s*\\w and \\\\n",
        "the stack overflow of the year and a double espresso",
        "sha256: none, image: none",
        "Task force, project: shop",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert [(one.kind, one.text) for one in identifiers(text)] == []


@pytest.mark.parametrize(
    "path", ["a.py:3", "a.ts(3,4)", "a.java:[3,4]", "a.kt: (3, 4)", "a.cs:line 3", "a.py"]
)
def test_a_path_without_its_place(path: str) -> None:
    assert without_place(path) == path[: path.index(".") + 3 + ("java" in path) * 2]
