"""Outputs of real tools, shortened, that the rules are tested on."""

PYTEST = """\
..F.s                                                                    [100%]
=================================== FAILURES ===================================
__________________________ test_parse_price[12-1200] ___________________________

>       assert parse_price(text) == cents

tests/test_price.py:7:
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _

>       euros, cents = text.split(".")
E       ValueError: not enough values to unpack (expected 2, got 1)

inventory/price.py:10: ValueError
=========================== short test summary info ============================
FAILED tests/test_price.py::test_parse_price[12-1200] - ValueError: not enough values to ...
1 failed, 3 passed, 1 skipped in 0.62s
"""
TRACEBACK = """\
Traceback (most recent call last):
  File "/project/load.py", line 6, in <module>
    load()
  File "/project/store.py", line 16, in take
    if self.items[name] < count:
       ~~~~~~~~~~^^^^^^
KeyError: 'bolt'
"""
CHAINED = """\
Traceback (most recent call last):
  File "/project/a.py", line 3, in port
    return settings['port']
KeyError: 'port'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/project/a.py", line 7, in <module>
    port({})
  File "/project/a.py", line 5, in port
    raise ValueError('no port') from error
ValueError: no port
"""
RUFF = """\
F401 [*] `os` imported but unused
 --> inventory/store.py:3:8
  |
3 | import os
  |        ^^
  |

Found 1 error.
[*] 1 fixable with the `--fix` option.
"""
MYPY = """\
price.py:15: error: Incompatible return value type (got "int", expected "str")  [return-value]
Found 1 error in 1 file (checked 3 source files)
"""
CARGO = """\
error[E0308]: mismatched types
 --> src/bin/types.rs:2:22
  |
2 |     let count: i32 = "four";
  |                ---   ^^^^^^ expected `i32`, found `&str`
  |                |
  |                expected due to this

error: could not compile `stock` (bin "types") due to 1 previous error
"""
GCC = """\
native/types.c: In function \u2018left\u2019:
native/types.c:4:16: error: \u2018struct item\u2019 has no member named \u2018size\u2019
native/types.c:5:1: warning: control reaches end of non-void function [-Wreturn-type]
make: *** [Makefile:4: native/types.o] Error 1
"""
UNITTEST = """\
FAIL: test_total (checks.test_stock.StockTest.test_total)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/project/checks/test_stock.py", line 9, in test_total
    self.assertEqual(Store({"nail": 4}).total(), 5)
AssertionError: 4 != 5

----------------------------------------------------------------------
Ran 3 tests in 0.001s

FAILED (failures=1, skipped=1)
"""
STATUS = """\
On branch main
Your branch is ahead of 'origin/main' by 2 commits.
  (use "git push" to publish your local commits)

Changes not staged for commit:
\tmodified:   settings/app.env

Untracked files:
\tnotes.md
"""
DIFF = """\
diff --git a/settings/app.env b/settings/app.env
index a818278..d227c88 100644
--- a/settings/app.env
+++ b/settings/app.env
@@ -1,5 +1,5 @@
 STOCK_HOST=stock.internal
-STOCK_PORT=8443
+STOCK_PORT=9443
 LOG_LEVEL=warning
"""
LOG = """\
commit 1ea647bb49a5d795353e7ad85e7be4346e633cc2 (HEAD -> main)
Author: Mira Osei <mira@example.org>
Date:   Sat Feb 14 21:26:30 2026 +0000

    Port stock counting to Rust

 crate/src/lib.rs | 12 ++++++++----
 1 file changed, 8 insertions(+), 4 deletions(-)
"""
GREP = """\
inventory/store.py:12:    def __init__(self, items=None):
inventory/price.py:5:def with_tax(cents: int, rate: str) -> int:
"""
LS = """\
total 44
-rw-r--r-- 1 root root   85 Nov 23 06:13 CMakeLists.txt
drwxr-xr-x 2 root root 4096 Nov 23 06:13 checks
"""
TREE = """\
stock
├── docs
│   └── intro.md
└── src
    ├── a.py
    └── b.py

2 directories, 3 files
"""
YAML = "server:\n  host: stock.internal\n  port: 8443 # TLS\nports:\n  - 3\nretries: 4\n"
TOML = """\
[server]
host = "stock.internal"
port = 8443
members = [
  "a = 1",
]
[cache]
port = 1
"""
HTTP = 'HTTP/1.0 404 Not Found\nContent-Length: 42\n\n{"error": "no such item", "id": 7}\n'
NPM = (
    "npm error code ERESOLVE\nnpm error A complete log of this run can be found in: /home/u/x.log\n"
)
GO = """\
--- FAIL: TestAdd (0.00s)
    add_test.go:10: got 3, want 4
FAIL
FAIL\texample.com/add\t0.003s
"""
PIP = "Package           Version\n----------------- ---------\nclick             8.5.1\n"
ENV = "STOCK_HOST=stock.internal\nSTOCK_PORT=8443\nexport LEVEL='debug'\nEMPTY=\n"
