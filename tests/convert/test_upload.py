"""Publishing, through the real huggingface_hub, on a stand-in for the hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub import Hub, running_hub

from clara_mlx.convert import licences
from clara_mlx.convert.model_card import propose_name
from clara_mlx.model.folder import ModelFolder

NAME = "me/clara-tiny"
OPEN = ("--licence", "apache-2.0")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        # Between its attempts on a broken connection the client would wait for half a minute.
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)
        yield hub


@pytest.fixture(scope="session")
def made(folder: Any) -> Path:
    path: Path = folder("c16", "e2e", "-q", "8")
    return path


def upload(cli: Any, path: Path, *options: object, ok: bool = True) -> Any:
    return cli("upload", path, "--upload-repo", NAME, *options, ok=ok)


def error_of(result: Any) -> str:
    """The one line of an error; huggingface_hub's progress and warnings come before it."""
    assert result.exit_code == 1
    *others, line = result.stderr.splitlines()
    assert line.startswith("clara-mlx: ")
    assert not any("Traceback" in other or other.startswith("clara-mlx") for other in others)
    return str(line)


def test_files_and_card_arrive(cli: Any, hub: Hub, made: Path, golden: Path) -> None:
    done = upload(cli, made, *OPEN, "--json")
    assert json.loads(done.stdout) == {"url": f"{hub.url}/{NAME}"}
    sent = hub.repositories[NAME]
    listed = ModelFolder.open(made).description["files"]
    assert sent.keys() == {*listed, "clara.json", "README.md", ".gitattributes"}
    assert all(sent[name] == (made / name).read_bytes() for name in listed)
    assert hub.commits == 1
    # What is sent names no place on this disk, and is a model folder of the same fingerprint.
    described = json.loads(sent["clara.json"])
    assert described["source"]["checkpoint"] == "e2e"
    assert described["fingerprint"] == ModelFolder.open(made).fingerprint
    assert str(golden).encode() not in sent["clara.json"] + sent["README.md"]

    card = huggingface_hub.ModelCard(sent["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert {"mlx", "clara"} <= set(card.data.tags)
    for fact in (
        "quantised to 8 bits in groups of 64; 3 matrices: 8 bits in groups of 32",
        "157 tensors compared, 157 identical bit for bit",
        "cosine to the float32 latents (query_reasoner)",
        "clara-mlx convert e2e --base tiny-base --to FOLDER --group-size 64 -q 8",
        "| q_proj | 0.",
    ):
        assert fact in card.text


def test_a_broken_connection_is_resumed(cli: Any, hub: Hub, made: Path) -> None:
    hub.blobs_left = 2
    said = error_of(upload(cli, made, *OPEN, "--no-verify", ok=False))
    assert "the connection broke" in said
    assert "run the same command again" in said
    assert hub.repositories[NAME].keys() == {".gitattributes"}
    assert len(hub.received) == 2

    hub.blobs_left = None
    upload(cli, made, *OPEN, "--no-verify")
    large = list(made.rglob("*.safetensors"))
    assert len(hub.received) == len(set(hub.received)) == len(large)  # each was sent once
    assert "clara.json" in hub.repositories[NAME]
    assert b"were not compared" in hub.repositories[NAME]["README.md"]


def test_a_later_upload_replaces_every_file(cli: Any, hub: Hub, made: Path, folder: Any) -> None:
    """Shards of an earlier split would be loaded together with the new ones."""
    upload(cli, made, *OPEN, "--no-verify")
    hub.repositories[NAME]["model-00002-of-00002.safetensors"] = b"old"
    upload(cli, folder("c16", "e2e", "-q", "4"), *OPEN, "--no-verify")
    assert "model-00002-of-00002.safetensors" not in hub.repositories[NAME]
    assert b"4 bits" in hub.repositories[NAME]["README.md"]


def test_another_model_is_not_replaced(cli: Any, hub: Hub, made: Path) -> None:
    hub.repositories[NAME] = {"config.json": b"{}"}
    refused = upload(cli, made, *OPEN, "--no-verify", ok=False)
    assert "holds something else than a CLaRa model" in refused.stderr
    assert hub.repositories[NAME] == {"config.json": b"{}"}


@pytest.mark.parametrize(
    ("status", "said"), [(401, "hf auth login"), (403, "may not write"), (409, "run the same")]
)
def test_refusals_are_one_line(cli: Any, hub: Hub, made: Path, status: int, said: str) -> None:
    hub.refusal = status
    error = error_of(upload(cli, made, *OPEN, "--no-verify", ok=False))
    assert said in error
    assert f"HTTP {status}" in error


def test_no_hub_is_one_line(
    cli: Any, made: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "the connection broke" in error_of(upload(cli, made, *OPEN, "--no-verify", ok=False))


@pytest.mark.parametrize("by_name", [True, False])
def test_nothing_outside_the_folder_is_sent(
    cli: Any, hub: Hub, made: Path, tmp_path: Path, by_name: bool
) -> None:
    """A folder from a stranger may list, or link to, files of the one who publishes it."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    copy = shutil.copytree(made, tmp_path / "copy")
    name = "../secret" if by_name else "LICENSE"
    if not by_name:
        (copy / name).symlink_to(secret)
    description = json.loads((copy / "clara.json").read_text())
    description["files"][name] = 4
    (copy / "clara.json").write_text(json.dumps(description))
    assert "link out of its folder" in error_of(upload(cli, copy, *OPEN, "--no-verify", ok=False))
    assert not hub.repositories


def test_licences_stand_in_the_way(cli: Any, hub: Hub, made: Path, tmp_path: Path) -> None:
    unknown = upload(cli, made, ok=False)
    assert "the licence of the checkpoint is not stated" in unknown.stderr
    copy = shutil.copytree(made, tmp_path / "copy")
    for name, said in (("apple-amlr", "for research only"), ("CC BY-NC 4.0", "not for commercial")):
        error = error_of(upload(cli, copy, "--licence", name, ok=False))
        assert said in error
        assert "--yes-licence" in error
    assert not hub.repositories
    upload(cli, copy, "--licence", "apple-amlr", "--yes-licence", "--no-verify")
    card = huggingface_hub.ModelCard(hub.repositories[NAME]["README.md"].decode())
    assert card.data.license == "apple-amlr"
    assert "for research only" in card.text


def test_convert_and_upload_in_one_command(hub: Hub, golden: Path, tmp_path: Path) -> None:
    """In a process of its own, which reads HF_ENDPOINT as a user's does."""
    command = [sys.executable, "-m", "clara_mlx.cli", "convert", golden / "c16/e2e"]
    command += ["--base", golden / "tiny-base", "--to", tmp_path / "to", "--recipe", "mixed_4_6"]
    environment = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--upload-repo", NAME, *OPEN],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.url}/{NAME}" in done.stderr
    card = hub.repositories[NAME]["README.md"]
    assert b"--group-size 64 --recipe mixed_4_6" in card
    assert b"identical bit for bit" in card


def test_a_refused_licence_converts_nothing(cli: Any, golden: Path, tmp_path: Path) -> None:
    source = (golden / "c16/e2e", "--base", golden / "tiny-base", "--to", tmp_path / "to")
    refused = cli("convert", *source, "--upload-repo", NAME, ok=False)
    assert "not stated" in refused.stderr
    assert not (tmp_path / "to").exists()


def test_names_are_proposed(cli: Any, made: Path, folder: Any) -> None:
    missing = cli("upload", made, ok=False)
    assert "mlx-community/e2e-16x-8bit" in missing.stderr
    nvfp4 = ModelFolder.open(folder("c16", "e2e", "--q-mode", "nvfp4"))
    assert propose_name(nvfp4, "me") == "me/e2e-16x-nvfp4"


def test_texts_of_licences_are_recognised() -> None:
    assert licences.recognise("Apple Machine Learning Research Model\nLicense") == "apple-amlr"
    assert licences.recognise("  Apache License\n  Version 2.0, January 2004") == "apache-2.0"
    assert licences.recognise("All rights reserved") is None
    assert licences.find_obstacle({"base": "mit", "checkpoint": "cc-by-nc-nd-4.0"})
    assert licences.find_obstacle({"base": "mit", "checkpoint": "Apache-2.0"}) is None
