"""The reasoner and the CLaRa that a user named, as the planner needs them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from shlex import join

from clara_mlx.errors import ClaraError
from clara_mlx.plan import reasoners, shapes
from clara_mlx.plan.footprint import ClaraFootprint, Footprint

#: Bits per weight of CLaRa that `clara-mlx convert` can make.
CLARA_BITS = (8, 6, 4)


class NamedReasoner:
    """A reasoner that is given as a path (model folder, ``config.json``) or by a known name.

    Args:
        name: Path, or a name that `reasoners` knows.
        bits: Bits per weight; None means as stored, or as the config says, or 4.
        group_size: Number of weights that share a scale and a bias.

    Raises:
        ClaraError: There is no such path and no known name; or, when a footprint is asked for,
            mlx-lm can't build the model.
    """

    def __init__(self, name: str, bits: int | None = None, group_size: int = 64) -> None:
        path = Path(name).expanduser()
        self.path = path if path.exists() else None
        self._known = None if self.path else reasoners.find(name)
        self._bits = bits
        self._group_size = group_size
        self._as_stored = bits is None and self.path is not None
        self.name = path.stem if path.is_file() else path.name
        self.source = str(path)  # where its sizes are read from
        if self._known:
            self.name = self._known.name
            self.source = self._known.source

    @cached_property
    def asked(self) -> Footprint:
        """Its footprint at the bits that were asked for."""
        return self._compute(self._bits)

    @property
    def choices(self) -> tuple[int, ...]:
        """Bits per weight that are possible, best first; a quantised folder has only its own."""
        fixed = self._as_stored and self.asked.bits != 16
        return (self.asked.bits,) if fixed else shapes.BITS

    def footprint(self, bits: int) -> Footprint:
        """Its footprint at a number of bits per weight."""
        return self.asked if bits == self.asked.bits else self._compute(bits)

    def _compute(self, bits: int | None) -> Footprint:
        if self.path:
            return shapes.read(self.path, bits=bits, group_size=self._group_size)
        assert self._known
        return shapes.from_config(
            self._known.config, where=self.name, bits=bits, group_size=self._group_size
        )

    def folder(self, bits: int) -> tuple[str, str | None]:
        """The mlx-lm folder to serve, and the command that makes it if it has to be made."""
        if self.path and self._as_stored and bits == self.asked.bits:
            return str(self.path if self.path.is_dir() else self.path.parent), None
        unquantised = self._known.repository if self._known else str(self.path)
        to = f"{self.name}-{bits}bit"
        command = ["mlx_lm.convert", "--hf-path", unquantised, "--mlx-path", to]
        if bits != 16:
            command += ["-q", "--q-bits", str(bits), "--q-group-size", str(self._group_size)]
        return to, join(command)


class NamedClara:
    """A CLaRa that is given as a model folder, or CLaRa-7B at 16x as ``q8``, ``q6`` or ``q4``.

    ``none`` means that CLaRa is swapped out while the reasoner runs.

    Attributes:
        bits: Bits per weight of its base; None if it is swapped out.
        choices: Bits per weight that are possible, best first; a folder has only its own.

    Raises:
        ClaraError: There is no such folder, or it is not a model folder.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bits: int | None = None
        self.choices: tuple[int, ...] = CLARA_BITS
        path = Path(name).expanduser()
        self._stored = shapes.clara_folder(path) if path.is_dir() else None
        named = {f"q{bits}": bits for bits in CLARA_BITS}
        if self._stored:
            self.bits = self._stored.base.bits
            self.choices = (self.bits,)
        elif name in named:
            self.bits = named[name]
        elif name != "none":
            raise ClaraError(
                f"{name}: no such model folder; name one, or use {', '.join(named)} or none"
            )

    def footprint(self, bits: int) -> ClaraFootprint:
        """Its footprint at a number of bits per weight."""
        return self._stored or shapes.clara_from_config(**reasoners.CLARA_7B, bits=bits)

    def folder(self, bits: int | None) -> str:
        """The model folder to serve."""
        return self.name if self._stored else f"clara-7b-q{bits or CLARA_BITS[0]}"
