"""The paths that clients build from a base URL with or without a version."""

from pathlib import Path

import pytest
from gateway import Upstream, gateway, says

from clara_mlx.serve.paths import canonical


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/models/reasoner", "/v1/models/reasoner"),
        ("/modelsx", "/modelsx"),
        ("/v1/memory/status", "/v1/memory/status"),
        ("/health", "/health"),
        ("/v1/v1/memory/status", "/v1/v1/memory/status"),
    ],
)
def test_every_way_of_writing_a_path(path: str, known: str) -> None:
    assert canonical(path) == known


def test_a_path_that_leads_nowhere_names_those_that_do(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    with upstream.running() as url, gateway(tmp_path, url) as gate:
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}
        assert gate.http.post("/chat/completions", json=body).status_code == 200
        answer = gate.http.post("/v1/nonsense", json=body)
    assert answer.status_code == 404
    assert "/v1/chat/completions" in answer.json()["error"]["message"]
