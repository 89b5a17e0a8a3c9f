"""A small project with honest mistakes, on which capture.py runs real tools."""

from __future__ import annotations

PYTHON = {
    "inventory/__init__.py": '"""Stock of a shop."""\n',
    "inventory/store.py": '''\
"""Items and how many of them there are."""
import json
import os
from pathlib import Path


class OutOfStock(Exception):
    """Fewer items than were asked for."""


class Store:
    def __init__(self, items=None):
        self.items = dict(items or {})

    def take(self, name, count):
        if self.items[name] < count:
            raise OutOfStock(f"{name}: {self.items[name]} left, {count} asked for")
        self.items[name] -= count
        return self.items[name]

    def total(self):
        return sum(self.items.values())

    @classmethod
    def load(cls, path):
        return cls(json.loads(Path(path).read_text()))
''',
    "inventory/price.py": '''\
"""Prices in cents."""
from decimal import Decimal


def with_tax(cents: int, rate: str) -> int:
    return int(cents * (1 + Decimal(rate)))


def parse_price(text: str) -> int:
    euros, cents = text.split(".")
    return int(euros) * 100 + int(cents)


def discount(cents: int, percent: int) -> str:
    return cents - cents * percent // 100


def label(cents: int) -> str:
    unused = cents % 100
    return f"{cents / 100:.2f} {currency}"
''',
    "inventory/report.py": """\
import sys
from typing import List


def lines(items: List[str], width: int = 20) -> List[str]:
    out = []
    for number, item in enumerate(items):
        try:
            out.append(item.ljust(width))
        except:
            pass
    return out


def average(values: list[int]) -> int:
    return sum(values) / len(values)


def show(values: list[int]) -> None:
    print(average("12"), lines(values))
""",
    "tests/test_store.py": """\
import pytest
from inventory.store import OutOfStock, Store


def test_total():
    assert Store({"nail": 4, "screw": 6}).total() == 10


def test_take():
    assert Store({"nail": 4}).take("nail", 1) == 2


def test_take_too_many():
    with pytest.raises(OutOfStock):
        Store({"nail": 4}).take("nail", 5)


def test_unknown_item():
    Store({"nail": 4}).take("bolt", 1)
""",
    "tests/test_price.py": """\
import pytest
from inventory.price import label, parse_price, with_tax


@pytest.mark.parametrize("text, cents", [("1.50", 150), ("0.99", 99), ("12", 1200)])
def test_parse_price(text, cents):
    assert parse_price(text) == cents


def test_with_tax():
    assert with_tax(1000, "0.19") == 1190


@pytest.mark.skip(reason="no currency yet")
def test_label():
    assert label(199) == "1.99 EUR"
""",
    "tests/test_report.py": """\
from inventory.report import average, lines


def test_lines():
    assert lines(["nail"], 6) == ["nail  "]


def test_average():
    assert average([2, 4]) == 3


def test_average_of_nothing():
    assert average([]) == 0
""",
    "tests/test_import.py": "from inventory.shipping import Parcel\n",
    "tests/test_slow.py": """\
import time


def test_wait():
    time.sleep(0.05)


def test_compare():
    assert "in stock: 12" == "in stock: 21"
""",
    "checks/__init__.py": "",
    "checks/test_stock.py": """\
import unittest

from inventory.price import parse_price, with_tax
from inventory.store import Store


class StockTest(unittest.TestCase):
    def test_total(self):
        self.assertEqual(Store({"nail": 4}).total(), 5)

    def test_empty(self):
        self.assertEqual(Store().total(), 0)


class PriceTest(unittest.TestCase):
    def test_parse(self):
        self.assertEqual(parse_price("3.20"), 320)

    def test_no_cents(self):
        parse_price("3")

    @unittest.skip("rounding is open")
    def test_rounding(self):
        self.assertEqual(with_tax(999, "0.07"), 1069)
""",
}

# Programs that end with a traceback.
SNIPPETS = {
    "load_config": (
        "import json\n\ndef load(text):\n    return json.loads(text)\n\nload('{\"port\": }')\n"
    ),
    "read_settings": (
        "import tomllib\n\nwith open('settings.toml', 'rb') as file:\n    tomllib.load(file)\n"
    ),
    "parse_toml": "import tomllib\n\ntomllib.loads('port = ')\n",
    "count_words": "def count(text):\n    return len(text.words)\n\ncount('a b')\n",
    "mean": "import statistics\n\nstatistics.mean([])\n",
    "when": "from datetime import datetime\n\ndatetime.strptime('2024-13-01', '%Y-%m-%d')\n",
    "pattern": "import re\n\nre.compile('(stock')\n",
    "section": (
        "import configparser\n\nconfig = configparser.ConfigParser()\n"
        "config.get('server', 'port')\n"
    ),
    "archive": "import zipfile\n\nzipfile.ZipFile(__file__)\n",
    "unpack": "import struct\n\nstruct.unpack('<I', b'abc')\n",
    "decode": "b'caf\\xe9'.decode('utf-8')\n",
    "query": "import sqlite3\n\nsqlite3.connect(':memory:').execute('select * from stock')\n",
    "tree": "import xml.etree.ElementTree as ET\n\nET.fromstring('<a><b></a>')\n",
    "module": "import inventory.shipping\n",
    "name": "from inventory.price import label\n\nlabel(199)\n",
    "missing_key": "from inventory.store import Store\n\nStore({'nail': 4}).take('bolt', 1)\n",
    "out_of_stock": "from inventory.store import Store\n\nStore({'nail': 4}).take('nail', 9)\n",
    "divide": "from inventory.report import average\n\naverage([])\n",
    "address": "import ipaddress\n\nipaddress.ip_address('10.0.0.300')\n",
    "identifier": "import uuid\n\nuuid.UUID('not-a-uuid')\n",
    "number": "from decimal import Decimal\n\nDecimal('12,50')\n",
    "process": "import subprocess\n\nsubprocess.run(['false'], check=True)\n",
    "timeout": (
        "import asyncio\n\nasync def main():\n    async with asyncio.timeout(0.01):\n"
        "        await asyncio.sleep(1)\n\nasyncio.run(main())\n"
    ),
    "syntax": "def total(items)\n    return sum(items)\n",
    "indent": "def total(items):\nreturn sum(items)\n",
    "cause": (
        "def port(settings):\n    try:\n        return settings['port']\n"
        "    except KeyError as error:\n"
        "        raise ValueError('no port in the settings') from error\n\nport({})\n"
    ),
    "fields": (
        "from dataclasses import dataclass\n\n@dataclass\nclass Item:\n    name: str\n"
        "    count: int\n\nItem('nail')\n"
    ),
    "choice": "from enum import Enum\n\nclass Size(Enum):\n    SMALL = 1\n\nSize('large')\n",
    "encode": "import base64\n\nbase64.b64decode('abc')\n",
    "labels": "import importlib\n\nimportlib.import_module('inventory.labels')\n",
}

C = {
    "native/undeclared.c": (
        '#include <stdio.h>\n\nint main(void) {\n    printf("%d\\n", count);\n}\n'
    ),
    "native/types.c": (
        "struct item { int count; };\n\nint left(struct item *item) {\n    return item->size;\n}\n"
    ),
    "native/header.c": '#include "stock.h"\n\nint main(void) { return 0; }\n',
    "native/unused.c": (
        "static int total(int a, int b) {\n    int sum = a;\n    return a + b;\n}\n\n"
        "int twice(int a) { return total(a, a); }\n"
    ),
    "native/semicolon.c": "int next(int a) {\n    int b = a + 1\n    return b;\n}\n",
    "native/link.c": "int stock_level(int item);\n\nint main(void) { return stock_level(3); }\n",
    "native/arguments.c": (
        "int add(int a, int b) { return a + b; }\n\nint main(void) {\n    return add(1);\n}\n"
    ),
    "Makefile": (
        "all: native/types.o report\n\nnative/types.o: native/types.c\n"
        "\tgcc -Wall -c -o $@ $<\n\nreport:\n\t@exit 3\n\npackage: dist/stock.tar\n"
    ),
    "CMakeLists.txt": (
        "cmake_minimum_required(VERSION 3.20)\nproject(stock C)\nfind_package(Barcode REQUIRED)\n"
    ),
}

RUST = {
    "crate/Cargo.toml": '[package]\nname = "stock"\nversion = "0.3.1"\nedition = "2021"\n',
    "crate/src/lib.rs": (
        "pub fn total(items: &[u32]) -> u32 {\n    items.iter().sum()\n}\n\n"
        "pub fn largest(items: &[u32]) -> u32 {\n    let spare = 3;\n"
        "    *items.iter().max().unwrap()\n}\n\n#[cfg(test)]\nmod tests {\n"
        "    use super::*;\n\n    #[test]\n    fn adds() {\n"
        "        assert_eq!(total(&[1, 2]), 3);\n    }\n\n    #[test]\n"
        "    fn adds_wrongly() {\n        assert_eq!(total(&[2, 2]), 5);\n    }\n\n"
        "    #[test]\n    #[ignore]\n    fn largest_of_none() {\n        largest(&[]);\n"
        "    }\n}\n"
    ),
    "crate/src/bin/moved.rs": (
        "fn main() {\n    let names = vec![1];\n    let taken = names;\n"
        '    println!("{:?} {:?}", names, taken);\n}\n'
    ),
    "crate/src/bin/types.rs": (
        'fn main() {\n    let count: i32 = "four";\n    println!("{count}");\n}\n'
    ),
    "crate/src/bin/scope.rs": 'fn main() {\n    println!("{}", stock::average(&[1]));\n}\n',
}

NODE = {
    "web/package.json": (
        '{\n  "name": "stock-web",\n  "version": "2.4.0",\n  "private": true,\n'
        '  "scripts": {\n    "test": "node --test",\n    "lint": "node lint.js"\n  }\n}\n'
    ),
    "web/stock.test.js": (
        'const test = require("node:test");\nconst assert = require("node:assert");\n\n'
        'test("adds", () => assert.strictEqual(1 + 1, 2));\n'
        'test("subtracts", () => assert.strictEqual(3 - 1, 1));\n'
    ),
    "web/lint.js": "process.exit(4);\n",
}

SETTINGS = {
    "settings/app.toml": (
        '[server]\nhost = "stock.internal"\nport = 8443\nworkers = 6\n\n[cache]\n'
        'path = "/var/cache/stock"\nlimit = 2048\nenabled = true\n'
    ),
    "settings/app.yaml": (
        "server:\n  host: stock.internal\n  port: 8443\nlogging:\n  level: warning\n"
        "  file: /var/log/stock.log\nretries: 4\n"
    ),
    "settings/compose.yaml": (
        'services:\n  web:\n    image: stock/web:2.4.0\n    ports:\n      - "8080:80"\n'
        "    restart: always\n  queue:\n    image: redis:7.2.4\n"
    ),
    "settings/app.json": (
        '{\n  "server": {\n    "host": "stock.internal",\n    "port": 8443\n  },\n'
        '  "currency": "EUR",\n  "taxRate": 0.19,\n  "warehouses": ["north", "south"]\n'
        "}\n"
    ),
    "settings/app.env": (
        "STOCK_HOST=stock.internal\nSTOCK_PORT=8443\nLOG_LEVEL=warning\n"
        "CACHE_DIR=/var/cache/stock\nMAX_ITEMS=2048\n"
    ),
    "settings/reply.json": (
        '{"order": 4817, "status": "shipped", "carrier": "north-post", "parcels": 2}\n'
    ),
}

FILES = {
    **PYTHON,
    **{f"snippets/{name}.py": code for name, code in SNIPPETS.items()},
    **C,
    **RUST,
    **NODE,
    **SETTINGS,
}
"""The text of each file, by its path in the project."""
