"""Named LoRA adapters on one shared base, plain or quantised: exactly one is active per pass."""

from __future__ import annotations

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


class _Active:
    """What all adapted layers of one model look at: the adapter's name, and dropout in training."""

    name: str | None = None
    dropout: float = 0.0
    key: mx.array | None = None

    def dropped(self, x: mx.array) -> mx.array:
        """The adapter's input, a share ``dropout`` of it zeroed and the rest scaled up."""
        if not self.dropout or self.key is None:
            return x
        self.key, key = mx.random.split(self.key)
        kept = mx.random.bernoulli(1 - self.dropout, x.shape, key=key)
        return mx.where(kept, x * (1 / (1 - self.dropout)), 0)


class AdaptedLinear(nn.Module):
    """A linear layer plus ``SCALE * (x @ lora_a) @ lora_b`` of the active adapter.

    ``lora_a`` is (in, rank) and ``lora_b`` (rank, out), as in mlx-lm's adapter files. Without an
    active adapter the layer is its base.
    """

    def __init__(self, linear: nn.Module, active: _Active) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = linear
        self.adapters: dict[str, dict[str, mx.array]] = {}
        self._active = active

    def __call__(self, x: mx.array) -> mx.array:
        """Output (..., out) for inputs (..., in)."""
        y = self.linear(x)
        if self._active.name is None:
            return y
        adapter = self.adapters[self._active.name]
        x = self._active.dropped(x)
        # float32 activations meet bfloat16 matrices on a quantised base; in training, the reverse.
        z = (x @ adapter["lora_a"].astype(x.dtype)) @ adapter["lora_b"].astype(x.dtype)
        return y + SCALE * z


class Adapters:
    """The adapters of one model, each read from disk when a pass first uses it.

    Args:
        model: the base, a Llama-family mlx-lm model; its `TARGETS` are wrapped in place.
        names: the adapters there are.
        read: returns one adapter's tensors, named ``<target>.lora_a`` and ``<target>.lora_b``.
    """

    def __init__(
        self,
        model: nn.Module,
        names: tuple[str, ...],
        read: Callable[[str], Mapping[str, mx.array]],
    ) -> None:
        self.names = names
        self._read = read
        self._active = _Active()
        modules = dict(model.named_modules())
        paths = [
            f"model.layers.{i}.{target}" for i in range(len(model.layers)) for target in TARGETS
        ]
        self._layers = {path: AdaptedLinear(modules[path], self._active) for path in paths}
        model.update_modules(tree_unflatten(list(self._layers.items())))
        self._loaded: list[str] = []

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the adapters that are in memory."""
        return tuple(self._loaded)

    @property
    def active(self) -> str | None:
        """Name of the adapter in force, None outside `use`."""
        return self._active.name

    @contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Make one adapter the active one for a pass; the previous one returns afterwards.

        Raises:
            CheckpointError: the model has no such adapter, or its file does not fit the base.
        """
        if name not in self._loaded:
            self._load(name)
        previous, self._active.name = self._active.name, name
        try:
            yield
        finally:
            self._active.name = previous

    @contextmanager
    def dropout(self, share: float, key: mx.array | None) -> Iterator[None]:
        """Zero a share of every adapter's inputs, as in training; ``key`` decides which."""
        active = self._active
        previous = active.dropout, active.key
        active.dropout, active.key = share, key
        try:
            yield
        finally:
            active.dropout, active.key = previous

    @property
    def dropping(self) -> tuple[float, mx.array | None]:
        """The share in force, and the key of the next layer's mask."""
        return self._active.dropout, self._active.key

    def dropped_with(self, key: mx.array | None) -> None:
        """Go on with this key, after masks that were drawn elsewhere."""
        self._active.key = key

    def tensors(self, name: str) -> dict[str, mx.array]:
        """One adapter's arrays, named ``<target>.lora_a`` and ``<target>.lora_b``."""
        with self.use(name):
            return {
                f"{path}.{part}": array
                for path, layer in self._layers.items()
                for part, array in layer.adapters[name].items()
            }

    def put(self, name: str, tensors: Mapping[str, mx.array]) -> None:
        """Let an adapter that is in memory have these arrays, or some of them, in place of its own.

        No shapes are checked: they are `tensors` of before, as training has changed them.
        """
        for path_and_part, array in tensors.items():
            path, _, part = path_and_part.rpartition(".")
            self._layers[path].adapters[name][part] = array

    def add(self, name: str, tensors: Mapping[str, mx.array]) -> None:
        """Add an adapter, or replace the one of that name.

        Raises:
            CheckpointError: the tensors do not fit the base.
        """
        self._install(name, tensors)
        if name not in self.names:
            self.names = (*self.names, name)

    def _load(self, name: str) -> None:
        if name not in self.names:
            raise CheckpointError(f"no adapter {name!r}; this model has {', '.join(self.names)}")
        self._install(name, self._read(name))

    def _install(self, name: str, read: Mapping[str, mx.array]) -> None:
        tensors = dict(read)
        problems: list[str] = []
        fitting: dict[str, dict[str, mx.array]] = {}
        for path, layer in self._layers.items():
            a, b = tensors.pop(f"{path}.lora_a", None), tensors.pop(f"{path}.lora_b", None)
            if a is None or b is None:
                problems.append(f"missing {path}")
                continue
            out_dims, in_dims = dims(layer.linear)
            if a.ndim != 2 or b.shape != (a.shape[1], out_dims) or a.shape[0] != in_dims:
                problems.append(f"{path}: shapes {a.shape} and {b.shape} do not fit the base")
            fitting[path] = {"lora_a": a, "lora_b": b}
        problems += [f"unexpected {path}" for path in tensors]
        if problems:
            raise CheckpointError(f"adapter {name!r}: " + "; ".join(problems))
        mx.eval(list(fitting.values()))
        for path, adapter in fitting.items():
            self._layers[path].adapters[name] = adapter
        if name not in self._loaded:
            self._loaded.append(name)


def dims(linear: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of a linear layer, plain or quantised."""
    out_dims, in_dims = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        in_dims = in_dims * 32 // linear.bits
    return out_dims, in_dims
