"""Named LoRA adapters on one shared base, plain or quantised; exactly one is active per pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from clara_mlx.errors import CheckpointError

#: The linear layers that every CLaRa adapter changes, in each block.
TARGETS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)

#: alpha / r; the reference fixes alpha = 2r.
SCALE = 2.0


class AdaptedLinear(nn.Module):
    """A linear layer plus ``SCALE * (x @ lora_a) @ lora_b`` of the active adapter.

    ``lora_a`` is (in, rank) and ``lora_b`` (rank, out), as in mlx-lm's adapter files. Without an
    active adapter the layer is its base.
    """

    def __init__(self, linear: nn.Module, owner: Adapters) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = linear
        self.adapters: dict[str, dict[str, mx.array]] = {}
        self._owner = owner

    def __call__(self, x: mx.array) -> mx.array:
        """Output (..., out) for inputs (..., in)."""
        y = self.linear(x)
        if self._owner.active is None:
            return y
        adapter = self.adapters[self._owner.active]
        if self._owner.dropout:
            x = self._owner.dropout(x)
        # float32 activations meet bfloat16 matrices on a quantised base; in training, the reverse.
        z = SCALE * (x @ adapter["lora_a"].astype(x.dtype))  # here, where it is smallest
        return y + z @ adapter["lora_b"].astype(x.dtype)


class Adapters:
    """The adapters of one model, each read from disk when a pass first uses it.

    Args:
        model: The base, a Llama-family mlx-lm model; its `TARGETS` are wrapped in place.
        names: Names of the adapters that can be read.
        read: Returns one adapter's tensors, named ``<target>.lora_a`` and ``<target>.lora_b``.

    Attributes:
        names: Names of the model's adapters.
        active: Name of the adapter in force, None outside `use`.
        dropout: What training does to every adapter's inputs; None outside training.
    """

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...],
        read: Callable[[str], Mapping[str, mx.array]],
    ) -> None:
        self.names = names
        self.active: str | None = None
        self.dropout: Callable[[mx.array], mx.array] | None = None
        self._read = read
        self._loaded: set[str] = set()
        self._revisions: Counter[str] = Counter()
        modules = dict(model.named_modules())
        paths = [
            f"model.layers.{i}.{target}" for i in range(len(model.layers)) for target in TARGETS
        ]
        self._layers = {path: AdaptedLinear(modules[path], self) for path in paths}
        model.update_modules(tree_unflatten(list(self._layers.items())))

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Make one adapter the active one for a pass; the previous one returns afterwards.

        Raises:
            CheckpointError: The model has no such adapter, or its file does not fit the base.
        """
        if name not in self._loaded:
            if name not in self.names:
                names = ", ".join(self.names)
                raise CheckpointError(f"no adapter {name!r}; this model has {names}")
            self._install(name, self._read(name))
        previous, self.active = self.active, name
        try:
            yield
        finally:
            self.active = previous

    def tensors(self, name: str) -> dict[str, mx.array]:
        """One adapter's arrays, named ``<target>.lora_a`` and ``<target>.lora_b``."""
        with self.use(name):
            return {
                f"{path}.{part}": array
                for path, layer in self._layers.items()
                for part, array in layer.adapters[name].items()
            }

    def revision(self, name: str) -> int:
        """A number that changes whenever an adapter's arrays do, for what is computed from them."""
        return self._revisions[name]

    def replace_tensors(self, name: str, tensors: Mapping[str, mx.array]) -> None:
        """Replace some or all arrays of an adapter that is in memory.

        Shapes are not checked: these are arrays that `tensors` gave, as training changed them.
        """
        for path_and_part, array in tensors.items():
            path, _, part = path_and_part.rpartition(".")
            self._layers[path].adapters[name][part] = array
        self._revisions[name] += 1

    def add(self, name: str, tensors: Mapping[str, mx.array]) -> None:
        """Add an adapter, or replace the one of that name.

        Raises:
            CheckpointError: The tensors do not fit the base.
        """
        self._install(name, tensors)
        if name not in self.names:
            self.names = (*self.names, name)

    def _install(self, name: str, tensors: Mapping[str, mx.array]) -> None:
        """Give each layer its two matrices, if all of them fit; otherwise change nothing."""
        left = dict(tensors)
        problems: list[str] = []
        fitting: dict[str, dict[str, mx.array]] = {}
        for path, layer in self._layers.items():
            a = left.pop(f"{path}.lora_a", None)
            b = left.pop(f"{path}.lora_b", None)
            if a is None or b is None:
                problems.append(f"missing {path}")
                continue
            out_dims, in_dims = dims(layer.linear)
            if a.ndim != 2 or b.shape != (a.shape[1], out_dims) or a.shape[0] != in_dims:
                problems.append(f"{path}: shapes {a.shape} and {b.shape} do not fit the base")
            fitting[path] = {"lora_a": a, "lora_b": b}
        problems += [f"unexpected {path}" for path in left]
        if problems:
            raise CheckpointError(f"adapter {name!r}: " + "; ".join(problems))
        mx.eval(list(fitting.values()))
        for path, adapter in fitting.items():
            self._layers[path].adapters[name] = adapter
        self._loaded.add(name)
        self._revisions[name] += 1


def dims(linear: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer, plain or quantised."""
    out_dims, in_dims = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        in_dims = in_dims * 32 // linear.bits
    return out_dims, in_dims
