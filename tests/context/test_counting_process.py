"""Counting in another process: the same numbers, and an end to every template."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from counting_folders import ENDLESS, TOOLS, tokenizer_folder, with_template
from gateway import wait_until
from processes import children, is_alive
from trajectories import report, start, step, trajectory

from clara_mlx.context import Budget, ChatTemplate, Context, Estimate
from clara_mlx.context.counting import count_prompt
from clara_mlx.context.counting_process import CountingProcess
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

#: Seconds for a count; enough for two busy cores.
SECONDS = 1.5

LONG = [message for added in trajectory(4) for message in added]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tokenizer_folder(tmp_path_factory.mktemp("reasoner"))


@pytest.fixture(scope="module")
def counter(folder: Path) -> Iterator[CountingProcess]:
    with CountingProcess(folder) as counter:
        yield counter


@pytest.fixture(scope="module")
def endless(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its template never ends for conversations of more than five messages."""
    return with_template(folder, tmp_path_factory.mktemp("endless") / "reasoner", ENDLESS)


def counting(parent: int | None = None) -> set[int]:
    """The counting processes of a process, by default of this one."""
    return children(parent, "counting_child")


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_it_counts_as_in_this_process(
    folder: Path, counter: CountingProcess, tools: object
) -> None:
    here = ChatTemplate(folder)
    odd = [
        *start(),
        *step(0, [report(0, 5), "\ud800 lone\u2028\x00"]),
        {"role": "user", "content": "é"},
    ]
    for messages in (start(), LONG, odd[:2], odd[-1:]):
        assert counter.prompt(messages, tools) == here.prompt(messages, tools)
    for text in ("", report(1, 3), "\ud800 lone", "<|begin|>"):
        assert counter.text(text) == counter.text(text) == here.text(text)
    assert counter.exact
    assert counter.takes_late_system_message == here.takes_late_system_message
    with pytest.raises(ClaraError, match="no such role"):
        counter.prompt([{"role": "refused", "content": "x"}])
    with pytest.raises(ClaraError):
        counter.prompt([{"role": "user", "content": object()}])


def test_what_is_long_is_counted_in_parts(folder: Path, counter: CountingProcess) -> None:
    text = "x y\n" * 130_000
    assert abs(counter.text(text) - ChatTemplate(folder).text(text)) <= 3
    asked = {"role": "user", "content": text}
    tokens, exact, _ = count_prompt(counter, [asked, asked], None)
    assert not exact and 0 <= tokens - 2 * counter.text(text) < 100
    assert counter.prompt(start()) > 0  # the process has not been asked, and not been ended


def test_a_prompt_is_counted_once(
    counter: CountingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request counts the same prompt several times; each rendering takes tens of milliseconds."""
    asked: list[str] = []
    ask = counter._ask

    def ask_it(kind: str, written: str) -> int:
        asked.append(kind)
        return ask(kind, written)

    monkeypatch.setattr(counter, "_ask", ask_it)
    messages = [*LONG, {"role": "user", "content": "And this one?"}]
    assert counter.prompt(messages) == counter.prompt(json.loads(json.dumps(messages)))
    assert counter.prompt(messages, TOOLS) > counter.prompt(messages)
    assert asked == ["prompt", "prompt"]


def test_threads_share_it(counter: CountingProcess) -> None:
    expected, found = counter.prompt(LONG), []

    def count(number: int) -> None:
        for i in range(10):
            found.append(counter.prompt(LONG) + 0 * counter.text(f"{number} {i}"))

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 40


def test_the_same_errors_at_the_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ClaraError, match=r"nowhere: no usable tokenizer"):
        CountingProcess(tmp_path / "nowhere")
    plain = with_template(folder, tmp_path / "plain", None)
    before = counting()
    with pytest.raises(ClaraError, match="no chat template"):
        CountingProcess(plain)
    assert counting() == before


@pytest.mark.alone
@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}x"
        "{% endfor %}{% endfor %}{% endfor %}",
        "{{ 'a' * 10**10 }}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
        "{% endfor %}",
    ],
)
def test_a_template_that_never_ends_is_an_error_at_the_start(
    folder: Path, tmp_path: Path, template: str
) -> None:
    before = counting()
    bad = with_template(folder, tmp_path / "bad", template)
    began = time.monotonic()
    try:
        CountingProcess(bad, seconds=SECONDS).close()  # with too little memory it may just fail
    except ClaraError as error:
        assert str(error).startswith(f"{bad}: the chat template was not rendered within 1.5 s")
    assert time.monotonic() - began < 60 and counting() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's memory")
def test_a_template_that_takes_memory_is_only_refused(folder: Path, tmp_path: Path) -> None:
    big = "{% if messages | length > 5 %}{{ messages[0].content * 10**10 }}{% endif %}x"
    with CountingProcess(with_template(folder, tmp_path / "big", big)) as counter:
        before = counting()
        with pytest.raises(ClaraError, match="rejects these messages"):
            counter.prompt(LONG)
        assert counter.prompt(start()) > 0 and counting() == before


@pytest.mark.alone
def test_an_endless_template_costs_one_wait(endless: Path, tmp_path: Path) -> None:
    before = counting()
    with CountingProcess(endless, seconds=SECONDS) as counter, Memory.open(tmp_path / "m.db") as m:
        first = counting()
        assert count_prompt(counter, start(), None).exact
        began = time.monotonic()
        tokens, exact, _ = count_prompt(counter, LONG, None)
        assert not exact and time.monotonic() - began < 3 * SECONDS
        # The next ones don't wait, and a conversation is compacted by the estimate.
        began = time.monotonic()
        context = Context(m, counter, Budget(window=4_000, reserve=500, keep=2))
        prepared = context.prepare([message for n in trajectory(12, 40) for message in n])
        assert prepared.exchange and not prepared.exact and prepared.tokens <= 3_500
        assert time.monotonic() - began < SECONDS
        # Another process counts the texts.
        here = ChatTemplate(endless)
        wait_until(lambda: counter.text(f"x {time.monotonic()}") and counting() - first, 60)
        wait_until(lambda: counter.text("flush " * 9) == here.text("flush " * 9), 60)
        assert 0 < tokens < 2 * here.text(json.dumps(LONG))
    assert counting() == before


@pytest.mark.alone
def test_a_process_that_is_killed_is_replaced(folder: Path) -> None:
    before = counting()
    with CountingProcess(folder, seconds=SECONDS) as counter:
        (pid,) = counting() - before
        exact = counter.prompt(LONG)
        os.kill(pid, signal.SIGKILL)
        assert counter.text("never seen before") == Estimate().text("never seen before")
        wait_until(lambda: counting() - before, 60)

        def counts() -> bool:
            try:
                return counter.prompt(LONG) == exact
            except ClaraError:
                return False

        wait_until(counts, 60)
    wait_until(lambda: counting() == before)


PARENT = """
import sys, threading, time
from clara_mlx.context.counting_process import CountingProcess
counter = CountingProcess(sys.argv[1], seconds=float(sys.argv[2]))
print("started", flush=True)
if sys.argv[3] == "busy":
    counter.prompt([{"role": "user", "content": "x"}] * 9)
time.sleep(60)
"""


@pytest.mark.alone
@pytest.mark.parametrize("state", ["idle", "busy"])
def test_it_ends_with_its_parent(endless: Path, state: str) -> None:
    """Whatever ended that, and whatever a template does; an interrupt of the terminal does not."""
    command = [sys.executable, "-c", PARENT, str(endless), "4", state]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "started\n"
        (pid,) = counting(parent.pid)
        assert os.getpgid(pid) != os.getpgid(parent.pid)  # where the terminal's signals go
        opened = {os.readlink(one) for one in Path(f"/proc/{pid}/fd").glob("*") if one.exists()}
        assert not [name for name in opened if name.endswith(".db") or "memory" in name]
        time.sleep(0.3)
        parent.kill()
        parent.wait()
        wait_until(lambda: not is_alive(pid), 15)
    finally:
        parent.kill()
