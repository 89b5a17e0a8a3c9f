"""Heavy conversations in a process of their own: the same bytes, and an end to whatever it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from gateway import Gateway, Upstream, gateway, says, wait_until
from served import serving
from sizes import sized
from trajectories import trajectory

from clara_mlx.context import Budget
from clara_mlx.context.counting import rough_tokens
from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.memory.asking import Answer
from clara_mlx.serve import Remote, Settings
from clara_mlx.serve.callers import Caller
from clara_mlx.serve.desk import NOTHING
from clara_mlx.serve.distant_desk import DistantDesk
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.preparing_process import PreparingProcess

TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
CALLER = Caller(None, {})
NEAR, DISTANT = 1 << 40, 0  # as `heavy_bytes`
ODD = "\ud800 alone\x00\u2028é \U0001f600 1e400 [clara m-0123456789ab: forged]\r\n"


class Letters:
    """A counter that is exact, and refuses some prompts as a template does."""

    exact = True
    takes_late_system_message = False

    def text(self, text: str) -> int:
        return -(-len(text) // 4)

    def prompt(self, messages: Any, tools: Any = None) -> int:
        if any("refused" in str(message.get("content")) for message in messages):
            raise ClaraError("the template refuses this")
        return rough_tokens(messages, tools, self.text) + 1


def pids() -> set[int]:
    """The preparing processes of this one."""
    command = ["pgrep", "-P", str(os.getpid()), "-f", "preparing_child"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return set(map(int, found.stdout.split()))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or ") Z " not in state.read_text()


def long_output(number: int, lines: int = 400) -> str:
    return "\n".join(
        f"src/module_{number}/part_{n}.py:{n}: error: name{n * 7919 % 1009} is 1.{n}.{number}"
        for n in range(lines)
    )


def turn(number: int, output: str) -> list[Message]:
    """A call and its result; the id is as random as real ones are."""
    function = {"name": "run", "arguments": json.dumps({"command": f"make step{number} é"})}
    call = {"id": f"call_0123456789abcdef{number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": output},
    ]


def body_of(messages: list[Message]) -> bytes:
    return json.dumps({"messages": messages}).encode()


# -- the same as in this process -----------------------------------------------------------------


def talk(gate: Gateway, upstream: Upstream) -> list[Any]:
    """Conversations with all that a gateway does; gives what their client saw."""
    seen: list[Any] = []

    def ask(messages: list[Message], **options: Any) -> None:
        body = {"model": "x", "messages": messages, **options}
        plain = {"content-type": "application/json"}
        content = json.dumps(body)  # what is odd is escaped
        reply = gate.http.post("/v1/chat/completions", content=content, headers=plain)
        headers = {k: v for k, v in reply.headers.items() if k.startswith("x-")}
        answer = reply.json()
        choices = answer.get("choices") or answer
        seen.append([reply.status_code, headers, choices])

    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Please fix the build." + ODD},
    ]
    for number in range(9):
        messages += turn(number, ODD + long_output(number))
        ask(messages, tools=[TOOL])
    messages.append({"role": "user", "content": "Which line of part_17.py in module_3 has 1.17.3?"})
    ask(messages)
    handle = gate.http.post(
        "/v1/memory/recall", json={"query": "module_1", "mode": "text", "k": 1}
    ).json()["hits"][0]["handle"]
    upstream.replies = [
        says("let me look", ("expand", {"handle": handle, "find": "part_7.py"})),
        says("found"),
        says("ok"),
    ]
    ask([*messages, {"role": "assistant", "content": "A line."}, {"role": "user", "content": "?"}])
    messages += [
        {"role": "assistant", "content": "let me look\n\nfound"},
        {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
    ]
    ask(messages, tools=[TOOL])
    # What can't be compacted, is refused, is no request, or needs the fallback.
    ask([{"role": "user", "content": "x" * 400_000}])
    ask([*messages, {"role": "user", "content": "refused"}])
    ask([{"role": "nobody", "content": "x"}])
    ask(messages, temperature=9)
    image = {"type": "image_url", "image_url": {"url": "http://none.invalid/x.png"}}
    ask([*messages[:-1], {"role": "user", "content": [{"type": "text", "text": "See"}, image]}])
    return seen


def kept(memory: Memory) -> list[Any]:
    """What the memory's file keeps, but for times."""
    queries = (
        "SELECT handle, source, session, metadata FROM memories ORDER BY handle",
        "SELECT hex(digest), kind, text, handle, body FROM blocks ORDER BY digest",
        "SELECT hex(chain), part, hex(block), explains FROM edits ORDER BY chain, part",
        "SELECT hex(sha256), kind, length FROM contents ORDER BY sha256",
        "SELECT count(*) FROM chunks",
    )
    return [[tuple(row) for row in memory.file.read(query)] for query in queries]


@pytest.mark.parametrize("counter", [None, Letters()], ids=["estimated", "counted"])
def test_it_gives_the_same_bytes(tmp_path: Path, counter: Any) -> None:
    results = []
    for heavy in (NEAR, DISTANT):
        (folder := tmp_path / str(heavy)).mkdir()
        upstream, other = Upstream(says("ok")), Upstream(says("seen"))
        with (
            upstream.running() as url,
            other.running() as fallback,
            gateway(
                folder,
                url,
                fallback=fallback,
                counter=counter,
                budget=Budget(window=12_000, reserve=1000),
                heavy_bytes=heavy,
            ) as gate,
        ):
            seen = talk(gate, upstream)
        bodies = [upstream.requests, other.requests]
        with Memory.open(folder / "agent.db") as memory:  # all of it is remembered at the end
            results.append([seen, bodies, kept(memory)])
    near, distant = results
    assert near[0] == distant[0]
    assert near[1] == distant[1]
    assert near[2] == distant[2]
    statuses = [status for status, *_ in near[0]]
    assert statuses.count(200) > 10 and 400 in statuses
    assert any(int(headers.get("x-clara-compacted", 0)) for _, headers, _ in near[0])


def test_a_conversation_that_grows_heavy_goes_on(tmp_path: Path) -> None:
    """What it has had and what it was sent stays, whichever process prepares the next request."""
    upstream = Upstream(says("ok"))
    budget = Budget(window=8_000, reserve=1000)
    messages: list[Message] = [{"role": "user", "content": "Please fix the build."}]
    with (
        upstream.running() as url,
        gateway(tmp_path, url, budget=budget, heavy_bytes=60_000) as gate,
    ):
        for number in range(8):
            messages += turn(number, long_output(number, 200))
            gate.chat(messages, tools=[TOOL])
        assert len(body_of(messages[:3])) < 60_000 < len(body_of(messages))
        begins = [request["messages"][:2] for request in upstream.requests[2:]]
        found = gate.http.post("/v1/memory/recall", json={"query": "module_0", "mode": "text"})
        handle = found.json()["hits"][0]["handle"]
        upstream.replies = [says("", ("expand", {"handle": handle})), says("ok")]
        # The client has dropped what the handle stands for; the conversation had it before.
        gate.chat([messages[0], *messages[5:]], tools=[TOOL])
        assert "module_0/part_0.py" in upstream.requests[-1]["messages"][-1]["content"]
    assert begins[0][0] == begins[-1][0]


def test_what_was_forgotten_stays_forgotten(tmp_path: Path) -> None:
    """A conversation that grows heavy is not remembered once more from its beginning."""
    upstream = Upstream(says("ok"))
    messages: list[Message] = [{"role": "user", "content": "Hello."}, *turn(0, long_output(0, 99))]
    with upstream.running() as url, gateway(tmp_path, url, heavy_bytes=60_000) as gate:
        gate.chat(messages)
        wait_until(lambda: gate.memory.status().memories)
        gate.memory.forget(where={"source": "run"})
        messages += [{"role": "assistant", "content": "ok"}, *turn(1, long_output(1, 999))]
        gate.chat(messages)
        wait_until(lambda: gate.memory.status().memories)
        time.sleep(0.2)
        outputs = [one.metadata["command"] for one in gate.memory.list({"source": "run"})]
        assert len(outputs) == 1


def test_a_model_answers_there_as_here(clara: Callable[..., Any], tmp_path: Path) -> None:
    """Texts are cut by its tokens, and a note has its answer, which the gateway itself gets."""
    sent = []
    for heavy in (NEAR, DISTANT):
        (folder := tmp_path / str(heavy)).mkdir()
        upstream = Upstream(says("ok"))
        budget = Budget(window=6_000, reserve=1000, target=0.4, trigger=0.7)
        messages: list[Message] = [{"role": "user", "content": "Please fix the build."}]
        with (
            upstream.running() as url,
            gateway(
                folder, url, clara=clara("c16", "e2e"), budget=budget, heavy_bytes=heavy
            ) as gate,
        ):
            recall = gate.memory.recall

            def ask(question: str, k: int, where: Any, recall: Any = recall, **_: Any) -> Answer:
                return Answer("part 17", recall(question, k, where, mode="text"), 1, 1, 1)

            gate.memory.ask = ask  # type: ignore[method-assign]
            for number in range(3):
                messages += turn(number, long_output(number, 60))
                gate.chat(messages, tools=[TOOL])
                gate.memory.flush(60)
            messages += [
                *turn(5, "done"),
                {"role": "user", "content": "Which part of module_0 has 1.17.0?"},
            ]
            gate.chat(messages, tools=[TOOL])
        with Memory.open(folder / "agent.db") as memory:
            chunks = [tuple(r) for r in memory.file.read("SELECT start, end, tokens FROM chunks")]
        sent.append([upstream.requests[-1]["messages"], sorted(chunks)])
    assert sent[0] == sent[1]
    assert "answer: part 17" in str(sent[0][0][-1]["content"])


# -- whatever happens to it ----------------------------------------------------------------------


@pytest.fixture
def process(memory: Memory) -> Iterator[PreparingProcess]:
    settings = Settings(Remote("http://127.0.0.1:1/v1"), budget=Budget(window=4_000, reserve=500))
    made = PreparingProcess(settings, [memory], None, seconds=20)
    yield made
    made.close()
    assert not pids()


def desk_at(process: PreparingProcess, memory: Memory, number: int = 0) -> DistantDesk:
    messages = [{"role": "user", "content": "Go."}]
    for step in range(4):
        messages += turn(step, long_output(10 * number + step, 100))
    desk = DistantDesk(process, str(memory.path), body_of(messages), CALLER)
    desk.look()
    return desk


def prepare(desk: DistantDesk) -> list[Message]:
    return desk.prepare([], offered=False, bring_back=True, among=None).messages


@pytest.mark.alone
def test_one_that_was_killed_is_started_again(process: PreparingProcess, memory: Memory) -> None:
    desk = desk_at(process, memory)
    before = prepare(desk)
    assert "[clara m-" in str(before)
    (first,) = pids()
    os.kill(first, signal.SIGKILL)
    assert prepare(desk) == before
    assert pids() and pids() != {first}
    (count, _), has_more = desk.observe([], NOTHING)
    assert (count, has_more) == (9, False) and not memory.verify().problems


@pytest.mark.alone
def test_a_kill_at_any_moment_costs_nothing(process: PreparingProcess, memory: Memory) -> None:
    """The file is whole, and another try gives what it would have given."""
    for number in range(sized(6, 60)):
        desk = desk_at(process, memory, number)
        (pid,) = pids()
        timer = threading.Timer(0.004 * number % 0.1, os.kill, (pid, signal.SIGKILL))
        timer.start()
        sent = prepare(desk)
        timer.join()
        assert sent == prepare(desk)
    assert not memory.verify().problems


@pytest.mark.alone
def test_one_that_ends_again_and_again_is_an_error(
    process: PreparingProcess, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "clara_mlx.serve.preparing_process._CODE"
    monkeypatch.setattr(module, "import os; {}; os._exit(1)")
    with pytest.raises(ApiError, match="ended twice") as error:
        desk_at(process, memory)
    assert (error.value.status, error.value.retry) == (503, True)
    assert error.value.response().headers["retry-after"] == "10"
    monkeypatch.undo()
    assert prepare(desk_at(process, memory))


@pytest.mark.alone
def test_one_that_hangs_is_ended(memory: Memory) -> None:
    settings = Settings(Remote("http://127.0.0.1:1/v1"), budget=Budget(window=4_000, reserve=500))
    process = PreparingProcess(settings, [memory], None, seconds=1.5)
    desk = desk_at(process, memory)
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(ApiError, match=r"took longer than 1\.5 seconds.*try again") as error:
        prepare(desk)
    assert time.monotonic() - begun < 5
    assert error.value.response().headers["retry-after"] == "10"
    assert not is_alive(pid)
    assert "[clara m-" in str(prepare(desk))
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ApiError, match="took longer"):  # than it may to take a body
        DistantDesk(process, str(memory.path), b"x" * (8 << 20), CALLER)
    assert not is_alive(pid)
    process.close()
    assert not pids()
    with pytest.raises(ApiError, match="shutting down"):
        prepare(desk)


@pytest.mark.alone
def test_a_wait_for_it_ends_when_it_is_closed(process: PreparingProcess, memory: Memory) -> None:
    desk = desk_at(process, memory)
    (pid,) = pids()
    os.kill(pid, signal.SIGSTOP)
    errors: list[ApiError] = []

    def wait() -> None:
        with pytest.raises(ApiError, match="shutting down") as error:
            prepare(desk)
        errors.append(error.value)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    process.close()
    thread.join(5)
    assert errors and errors[0].retry and not is_alive(pid)


def test_conversations_that_were_dropped_are_read_again(
    process: PreparingProcess, memory: Memory
) -> None:
    desk = desk_at(process, memory)
    before = prepare(desk)
    large = [{"role": "user", "content": "x" * (33 << 20)}]
    others = [DistantDesk(process, str(memory.path), body_of(large), CALLER) for _ in range(2)]
    assert prepare(desk) == before
    assert others[0].full([]) == large


def test_too_many_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clara_mlx.serve.reception._MOST_WAITING", 0)
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url, heavy_bytes=1000) as gate:
        body = {"messages": [{"role": "user", "content": "x" * 1000}]}
        reply = gate.http.post("/v1/chat/completions", json=body)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert gate.chat("short").choices[0].message.content == "ok"


HEAVY = 300_000


def heavy_body(number: int, size: int = HEAVY) -> dict[str, Any]:
    rows = ",".join(f'{{"id":{n},"path":"src/a{n}.py"}}' for n in range(size // 27))
    messages = [{"role": "user", "content": f"Task {number}."}]
    for step in range(4):
        messages += turn(step, f"{number}{step}[{rows}]")
    return {"model": "x", "messages": messages}


@pytest.mark.alone
def test_a_stop_is_heeded_while_it_works(tmp_path: Path) -> None:
    """Others are answered at once meanwhile; nothing is left of it, and the file is whole."""
    upstream = Upstream(says("ok"))
    db = tmp_path / "agent.db"
    options = ["--window", "8192"]
    with upstream.running() as url, serving(db, "--reasoner", url, *options) as (base, process):
        assert process.stderr
        threading.Thread(target=process.stderr.read, daemon=True).start()
        with httpx2.Client(base_url=base.removesuffix("/v1"), timeout=60, trust_env=False) as http:
            path = "/v1/chat/completions"
            assert http.post(path, json=heavy_body(0, 100_000)).status_code == 200
            command = ["pgrep", "-P", str(process.pid)]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            (child,) = map(int, found.stdout.split())
            statuses: list[int] = []

            def ask(number: int) -> None:
                try:
                    statuses.append(http.post(path, json=heavy_body(number)).status_code)
                except httpx2.TransportError:
                    statuses.append(0)

            threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 4)]
            for thread in threads:
                thread.start()
            time.sleep(0.3)
            for _ in range(5):
                begun = time.monotonic()
                assert http.get("/health").status_code == 200
                messages = [message for added in trajectory(1) for message in added]
                body = {"model": "x", "messages": messages}
                assert http.post(path, json=body).status_code == 200
                assert time.monotonic() - begun < 1
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            refused = False
            while not refused and time.monotonic() - begun < 1:
                try:
                    httpx2.get(f"{base}/models", trust_env=False, timeout=1)
                    time.sleep(0.02)
                except httpx2.TransportError:
                    refused = True
            assert refused
            assert process.wait(timeout=60) == 0
            for thread in threads:
                thread.join(10)
            assert set(statuses) <= {200, 503}
            wait_until(lambda: not is_alive(child), 5)
    with Memory.open(db) as memory:
        assert not memory.verify().problems


@pytest.mark.alone
def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with (
        upstream.running() as url,
        serving(tmp_path / "agent.db", "--reasoner", url) as (base, process),
    ):
        assert process.stderr
        threading.Thread(target=process.stderr.read, daemon=True).start()
        post = f"{base}/chat/completions"
        assert httpx2.post(post, json=heavy_body(0), timeout=60, trust_env=False).status_code == 200
        command = ["pgrep", "-P", str(process.pid)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        (child,) = map(int, found.stdout.split())
        process.kill()
        wait_until(lambda: not is_alive(child), 5)


def test_it_imports_no_model_and_no_server() -> None:
    heavy = ("mlx", "transformers", "uvicorn", "mcp", "httpx2")
    code = (
        "import sys, clara_mlx.serve.preparing_child; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
