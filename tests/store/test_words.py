"""Words of any script and in any form are found, and no query fails."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sizes import sized

from clara_mlx.store import asked, forms, fulltext, terms, words
from clara_mlx.store.seen import seen
from clara_mlx.store.store import Store

# What SQLite's tokenizer does not know: letters of two scripts, newer than its Unicode.
UNKNOWN = {*range(0x19B0, 0x19CA), 0x1CF2, 0x1CF3}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "m.db")


def remember(store: Store, text: str, **about: object) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return store.remember(data, text, [(0, len(text), None)] if text else [], **about)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("数据库迁移在第三步失败", "迁移"),
        ("数据库迁移在第三步失败", "步"),
        ("数据库迁移在第三步失败", "数据库在哪里失败?"),
        ("設定ファイルが見つかりません", "ファイル"),
        ("おはようございます", "ござい"),
        ("설정파일은 서버에서 읽는다", "설정파일"),
        ("설정파일은 서버에서 읽는다", "서버"),
        ("โปรดตรวจสอบไฟล์บันทึก", "ไฟล์"),
        ("ແຟ້ມບັນທຶກ", "ບັນທຶກ"),
        ("वर्शन पुराना है", "वर्शन"),
        ("تعذر فتح الملف", "ملف"),
        ("تعذر فتح ملف", "الملف"),
        ("не найдена конфигурация сервера", "конфигурации"),
        ("перезапуск серверов", "сервер"),
        ("Ёлка стоит", "елка"),
        ("ＦＡＴＡＬ: ｄｉｓｋ", "fatal disk"),
        ("𝐅𝐚𝐭𝐚𝐥 𝑒𝑟𝑟𝑜𝑟", "fatal error"),
        ("open ﬁle: ﬂush", "file flush"),
        ("Große Straße", "strasse"),
        ("GROSSE STRASSE", "straße"),
        ("naïve café", "NAIVE cafe"),
        ("nai\u0308ve", "naïve"),
        ("deploy 🚀 done", "🚀"),
        ("step ✗ lint", "✗"),
        ("\U00020bb7野家", "\U00020bb7"),
        ("\U00020bb7野家", "野家"),
        ("pass\u200bword wrong", "password"),
        ("password wrong", "pass\u00adword"),
        ("\x1b[31mfai\x1b[0mled\x1b[0m", "failed"),
        ('{"returncode": 1, "output": "one\\nnever two"}', "never"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
    ],
)
def test_it_is_found(store: Store, text: str, query: str) -> None:
    remember(store, "something else altogether")
    wanted = remember(store, text)
    (id, score), *_ = fulltext.search(store, query, 5)
    chunk = store.chunks_by_id([id])[id]
    assert store.text(chunk.content_id) == store.original(wanted)[0].decode()
    assert 0.2 < score < 1


@pytest.mark.parametrize(
    ("word", "others"),
    [
        ("restarted", "restart restarts restarting"),
        ("stopped", "stop stops stopping"),
        ("entries", "entry"),
        ("panicked", "panic panics"),
        ("deprecated", "deprecation deprecate"),
        ("definition", "defined defines define"),
        ("failure", "fail failed failing fails failures"),
        ("classes", "class"),
        ("blocked", "block blocks blocking"),
        ("files", "file"),
    ],
)
def test_forms_of_a_word(word: str, others: str) -> None:
    for other in others.split():
        assert terms.word(other) in [*forms.patterns(word)]
        assert terms.word(word) in [*forms.patterns(other)]


@pytest.mark.parametrize(
    ("word", "other"), [("class", "clas"), ("status", "statu"), ("port", "sport"), ("bus", "bu")]
)
def test_no_forms_of_a_word(word: str, other: str) -> None:
    assert terms.word(other) not in [*forms.patterns(word)]
    assert terms.word(word) not in [*forms.patterns(other)]


def test_parts_of_names() -> None:
    _, parts = words.columns("getUserName load_index HTTPServer2 x plain")
    assert parts == "get User Name load index HTTP Server 2"
    assert dict(words.words_with_parts("ÜberNameLesen"))["ubernamelesen"] == (
        *("uber", "name", "lesen"),
    )


def test_small_words_of_a_question_are_left_out_unless_there_is_nothing_else() -> None:
    assert [word.text for word in asked.read("Which of the tests didn't pass?").words] == [
        *("tests", "pass")
    ]
    assert [word.text for word in asked.read("what is it").words] == ["what", "is", "it"]
    assert asked.read("¿?").words == ()


@settings(
    max_examples=sized(60, 1_000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(min_size=1, max_size=60))
def test_any_query_is_answered_and_a_rare_word_finds_its_text(store: Store, text: str) -> None:
    if not store.figures()["memories"]:
        remember(store, "the log of a build that has no such word")
    remember(store, text)
    fulltext.search(store, text, 3)
    own = [word for word, _ in words.words_with_parts(seen(text, 0, len(text)))]
    if own and not any(ord(c) in UNKNOWN for c in unicodedata.normalize("NFKD", text)):
        rare = max(own, key=len)
        ids = [id for id, _ in fulltext.search(store, rare, sys.maxsize >> 40)]
        texts = [store.text(chunk.content_id) for chunk in store.chunks_by_id(ids).values()]
        assert text in texts
