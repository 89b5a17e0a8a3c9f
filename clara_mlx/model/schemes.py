"""How the base's matrices are quantised: the format of one, and the scheme of all.

Formats and the way that they and recipes are recorded are mlx-lm's, so that its programs load the
folder. Recipes are mlx-lm's, too, but for one of ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any, Self

from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder

#: Bits and group sizes that mlx has for each mode, the default of either first.
MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((8, 6, 5, 4, 3, 2), (64, 32, 128)),
    "mxfp4": ((4,), (32,)),
    "nvfp4": ((4,), (16,)),
    "mxfp8": ((8,), (32,)),
}

#: Our own recipe, by measured effect (bench/quantisation_kinds.py): the matrices that change
#: latents most for their size, at 6 bits, and all others at 4. At the size of mlx-lm's mixed_4_6,
#: which has lm_head at 6, latents lose 0.4 to 0.65 times as much; none of them passes lm_head.
LATENTS_4_6 = "latents_4_6"
_LATENTS_KINDS = ("embed_tokens", "v_proj", "o_proj")


@dataclass(frozen=True)
class Quantisation:
    """The format of a matrix: ``bits`` per weight, ``group_size`` inputs to a scale.

    An affine group also has a bias. The other modes hold small floating-point numbers, whose
    scales are a byte each.

    Raises:
        CheckpointError: mlx has no such format.
    """

    bits: int
    group_size: int = 64
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise CheckpointError(
                f"can't quantise in the mode {self.mode!r}: modes are {', '.join(MODES)}"
            )
        bits, groups = MODES[self.mode]
        if self.bits not in bits or self.group_size not in groups:
            raise CheckpointError(
                f"can't quantise to {self.bits} bits in groups of {self.group_size}: in the mode "
                f"{self.mode}, bits can be {_either(bits)}, and groups {_either(sorted(groups))}"
            )

    @classmethod
    def of_mode(
        cls, mode: str, bits: int | None = None, group_size: int | None = None
    ) -> Quantisation:
        """A format of which only some is given; the rest is the mode's default."""
        default_bits, default_groups = MODES.get(mode, ((0,), (0,)))
        return cls(
            default_bits[0] if bits is None else bits,
            default_groups[0] if group_size is None else group_size,
            mode,
        )

    def __str__(self) -> str:
        """For people: ``8 bits in groups of 64``, or ``mxfp4``."""
        if self.mode != "affine":
            return self.mode
        return f"{self.bits} bits in groups of {self.group_size}"

    def applies(self, shape: tuple[int, ...]) -> bool:
        """Whether mlx can quantise a tensor of this shape."""
        return len(shape) == 2 and shape[-1] % self.group_size == 0

    def fitted(self, shape: tuple[int, ...]) -> Quantisation | None:
        """This format with the largest groups, up to its own, that divide the rows of a tensor.

        None if mlx has no such groups; the tensor then stays as it is.
        """
        groups = sorted(MODES[self.mode][1], reverse=True)
        for group_size in (size for size in groups if size <= self.group_size):
            format = Quantisation(self.bits, group_size, self.mode)
            if format.applies(shape):
                return format
        return None

    def nbytes(self, shape: tuple[int, ...], dtype_size: int) -> int:
        """Bytes of the stored form: packed weights, scales and, if affine, biases."""
        rows, columns = shape
        of_a_group = 2 * dtype_size if self.mode == "affine" else 1
        return rows * (columns * self.bits // 8 + of_a_group * columns // self.group_size)


#: The format of the matrix at a path, e.g. ``model.layers.0.self_attn.q_proj``.
Recipe = Callable[[str], Quantisation]


@dataclass(frozen=True)
class Scheme:
    """The formats of all matrices: one for most, and exceptions by a matrix's path."""

    default: Quantisation
    exceptions: Mapping[str, Quantisation] = field(default_factory=dict)
    recipe: str | None = None  # the name of the recipe that was followed

    @classmethod
    def of(cls, folder: ModelFolder) -> Scheme | None:
        """The scheme that a model folder records; None if its base is not quantised.

        Raises:
            CheckpointError: What is recorded is no scheme.
        """
        recorded = folder.description["quantization"]
        if not recorded:
            return None
        try:
            return cls.read(recorded, folder.description.get("recipe"))
        except (TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{folder.path}: its quantisation is damaged ({error}); convert again"
            ) from error

    @classmethod
    def read(cls, recorded: Mapping[str, Any], recipe: str | None = None) -> Self:
        """The scheme that `to_dict` gave; a TypeError if it is none."""
        exceptions = {k: Quantisation(**v) for k, v in recorded.items() if isinstance(v, dict)}
        default = {k: v for k, v in recorded.items() if not isinstance(v, dict)}
        return cls(Quantisation(**default), exceptions, recipe)

    def __str__(self) -> str:
        """The default, and how many matrices have each other format."""
        others = Counter(map(str, self.exceptions.values()))
        return "; ".join([str(self.default), *(f"{n} matrices: {f}" for f, n in others.items())])

    @classmethod
    def fit(
        cls,
        default: Quantisation,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        recipe: str | Recipe | None = None,
        layers: int = 0,
    ) -> Self:
        """The scheme for tensors of these shapes.

        Args:
            default: The format of most matrices; with a recipe, only its groups count.
            shapes: The shape of every tensor of the base, by name.
            recipe: The name of a recipe, which gives some matrices more bits, or a choice by a
                matrix's path.
            layers: Number of the base's transformer blocks.

        Raises:
            CheckpointError: There is no such recipe, or the mode is not affine.
        """
        wanted = {name.removesuffix(".weight"): default for name in shapes}
        if recipe is not None:
            if isinstance(recipe, str):
                wanted = _follow_recipe(recipe, list(wanted), default, layers)
            else:
                wanted = {path: recipe(path) for path in wanted}
            default = min(wanted.values(), key=lambda format: format.bits)
        fitted = {
            path: wanted[path].fitted(shape)
            for path, shape in zip(wanted, shapes.values(), strict=True)
        }
        exceptions = {p: f for p, f in fitted.items() if f is not None and f != default}
        return cls(default, exceptions, recipe if isinstance(recipe, str) else None)

    def format_of(self, name: str, shape: tuple[int, ...]) -> Quantisation | None:
        """The format of a tensor; None if it is not quantised."""
        format = self.exceptions.get(name.removesuffix(".weight"), self.default)
        return format if format.applies(shape) else None

    def to_dict(self) -> dict[str, Any]:
        """The scheme as mlx-lm's ``quantization``: exceptions are fields named by their path."""
        return asdict(self.default) | {p: asdict(f) for p, f in self.exceptions.items()}


def _follow_recipe(
    recipe: str, paths: list[str], default: Quantisation, layers: int
) -> dict[str, Quantisation]:
    """The formats that the recipe of this name gives the matrices at these paths."""
    from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder

    if recipe not in (*QUANT_RECIPES, LATENTS_4_6):
        raise CheckpointError(
            f"there is no recipe {recipe!r}: recipes are {', '.join((*QUANT_RECIPES, LATENTS_4_6))}"
        )
    if default.mode != "affine":
        raise CheckpointError("recipes are for the mode affine only; leave one of both out")
    if recipe == LATENTS_4_6:
        return {
            path: Quantisation(6 if path.endswith(_LATENTS_KINDS) else 4, default.group_size)
            for path in paths
        }
    # Of a model the builder reads the paths and the number of layers, and nothing else.
    model = SimpleNamespace(
        named_modules=lambda: [(path, None) for path in paths], layers=range(layers)
    )
    choose = mixed_quant_predicate_builder(recipe, model, default.group_size)
    return {path: Quantisation(**choose(path, None)) for path in paths}


def _either(numbers: tuple[int, ...] | list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} or {last}" if first else last
