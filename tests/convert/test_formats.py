"""Formats and recipes: what mlx-lm would make, what it can load, and what is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.utils import load_model, quantize_model

import clara_mlx
from clara_mlx.convert import inspect
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder, load_arrays
from clara_mlx.model.schemes import MODES, Quantisation, Scheme
from clara_mlx.plan import shapes

#: Every mode and every number of bits once, with groups that the tiny base's 64 and 160 fit or not.
OPTIONS = [
    ("-q", "2", "--group-size", "32"),
    ("-q", "3", "--group-size", "128"),
    ("--q-bits", "5", "--q-group-size", "64"),
    ("-q", "6"),
    ("--q-mode", "mxfp4"),
    ("--q-mode", "nvfp4"),
    ("--q-mode", "mxfp8"),
    ("--recipe", "mixed_3_6"),
    ("--recipe", "latents_4_6"),
]


@pytest.fixture
def exact(folder: Any) -> Path:
    made: Path = folder("c16", "e2e", "-q", "none")
    return made


def base_arrays(folder: Path) -> dict[str, mx.array]:
    arrays: dict[str, mx.array] = {}
    for file in folder.glob("model*.safetensors"):
        arrays |= load_arrays(file)
    return arrays


def by_mlx_lm(exact: Path, *, recipe: str | None = None, **options: Any) -> dict[str, mx.array]:
    """The arrays that mlx-lm's own conversion makes of the unquantised folder."""
    model, config = load_model(exact)
    group = options.pop("group_size", None)
    if recipe is not None:
        options["quant_predicate"] = mixed_quant_predicate_builder(recipe, model, group)
    with redirect_stdout(io.StringIO()):
        model, _ = quantize_model(model, config, group, options.pop("bits", None), **options)
    return dict(tree_flatten(model.parameters()))


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_each_format_loads_answers_and_is_counted(folder: Any, options: tuple[str, ...]) -> None:
    to = folder("c16", "e2e", *options, "--dtype", "float32")
    clara = clara_mlx.load(to)
    latents = clara.encode(["def parse(line): return int(line)", "1 failed"])
    assert isinstance(clara.answer("Which test failed?", latents, max_tokens=3), str)
    model, _ = load_model(to)  # strict: every array has the shape that the config says
    ids = mx.array([[1, 5, 9]])
    assert mx.abs(clara.network(ids) - model(ids)).max().item() < 1e-3

    stored = sum(array.nbytes for array in base_arrays(to).values())
    config = json.loads((to / "config.json").read_text())
    from_config = shapes.from_config(config, where="config.json")
    assert shapes.read(to).weight_bytes == from_config.weight_bytes == stored
    assert inspect(to)["quantization"] == config["quantization"]


@pytest.mark.parametrize("mode", ["mxfp4", "nvfp4", "mxfp8"])
def test_formats_are_mlx_lms(folder: Any, exact: Path, mode: str) -> None:
    ours = base_arrays(folder("c16", "e2e", "--q-mode", mode))
    theirs = by_mlx_lm(exact, mode=mode)
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("recipe", QUANT_RECIPES)
def test_recipes_are_mlx_lms(folder: Any, exact: Path, recipe: str) -> None:
    ours = base_arrays(folder("c16", "e2e", "--recipe", recipe, "--group-size", "32"))
    theirs = by_mlx_lm(exact, recipe=recipe, group_size=32)
    assert ours.keys() == theirs.keys()
    assert all(mx.array_equal(ours[name], theirs[name]) for name in ours)


def test_our_recipe_keeps_what_latents_are_made_of(folder: Any) -> None:
    opened = ModelFolder.open(folder("c16", "e2e", "--recipe", "latents_4_6"))
    scheme = Scheme.of(opened)
    assert scheme is not None and (scheme.recipe, scheme.default) == (
        "latents_4_6",
        Quantisation(4),
    )
    bits = {path: format.bits for path, format in scheme.exceptions.items()}
    assert {path.rpartition(".")[2] for path, n in bits.items() if n == 6} == {
        *("embed_tokens", "v_proj", "o_proj")
    }
    assert sum(n == 6 for n in bits.values()) == 1 + 2 * 3  # in each of the layers
    assert opened.description["recipe"] == "latents_4_6"


def test_groups_fall_back_by_matrix_and_are_recorded(folder: Any) -> None:
    scheme = Scheme.of(ModelFolder.open(folder("c16", "e2e", "-q", "4", "--group-size", "128")))
    assert scheme is not None
    assert scheme.default == Quantisation(4, 128)
    groups = {path: format.group_size for path, format in scheme.exceptions.items()}
    assert groups["model.embed_tokens"] == groups["model.layers.0.self_attn.q_proj"] == 64
    assert groups["model.layers.2.mlp.down_proj"] == 32
    assert str(scheme) == (
        "4 bits in groups of 128; 20 matrices: 4 bits in groups of 64; "
        "3 matrices: 4 bits in groups of 32"
    )


def test_inspect_sums_the_matrices_up(cli: Any, folder: Any) -> None:
    shown = cli("inspect", folder("c16", "e2e", "--recipe", "mixed_3_6"), env={"COLUMNS": "200"})
    assert "3 bits in groups of 64; " in shown.stdout
    assert "mixed_3_6" in shown.stdout
    assert "layers.2.mlp" not in shown.stdout


def test_a_matrix_that_no_groups_divide_stays(folder: Any) -> None:
    scheme = Scheme.fit(Quantisation(8, 128), {"a.weight": (4, 40), "b.weight": (4, 96)})
    assert scheme.format_of("a.weight", (4, 40)) is None
    assert scheme.format_of("b.weight", (4, 96)) == Quantisation(8, 32)
    assert scheme.format_of("norm.weight", (128,)) is None


REFUSED: dict[str, Callable[[], object]] = {
    "7 bits in groups of 64: in the mode affine, bits can be 8, 6, 5": lambda: Quantisation(7),
    "groups 32, 64 or 128": lambda: Quantisation(4, 16),
    "bits can be 4, and groups 32": lambda: Quantisation.of_mode("mxfp4", 8),
    "bits can be 8, and groups 32": lambda: Quantisation.of_mode("mxfp8", group_size=64),
    "modes are affine, mxfp4, nvfp4, mxfp8": lambda: Quantisation.of_mode("fp4"),
    "recipes are mixed_2_6": lambda: Scheme.fit(Quantisation(4), {}, recipe="mixed_1_9"),
    "recipes are for the mode affine": lambda: Scheme.fit(
        Quantisation.of_mode("nvfp4"), {}, recipe="mixed_3_6"
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_mlx_does_not_have_is_refused(message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        REFUSED[message]()


def test_formats_are_those_of_the_installed_mlx() -> None:
    """Each is tried, so that a new mlx that drops or adds one is noticed."""
    row = mx.random.normal((1, 128))
    for mode, (bits, groups) in MODES.items():
        for b in range(2, 9):
            for group in (16, 32, 64, 128):
                try:
                    mx.quantize(row, group, b, mode=mode)
                except ValueError:
                    made = False
                else:
                    made = True
                assert made == (b in bits and group in groups), (mode, b, group)


def test_options_that_contradict_each_other(cli: Any, golden: Path, tmp_path: Path) -> None:
    source = (golden / "c16/e2e", "--base", golden / "tiny-base", "--to", tmp_path / "to")
    for options, said in (
        (("-q", "7"), "'7' is not"),
        (("-q", "4", "--recipe", "mixed_3_6"), "chooses the bits itself"),
        (("-q", "8", "--q-mode", "mxfp4"), "bits can be 4"),
        (("-q", "none", "--q-mode", "mxfp4"), "contradicts"),
    ):
        done = cli("convert", *source, *options, ok=False)
        assert done.exit_code != 0
        assert said in done.stderr
        assert not (tmp_path / "to").exists()
