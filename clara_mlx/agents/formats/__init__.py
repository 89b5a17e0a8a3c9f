"""The formats of agents' settings files, each edited as text so that the rest stays as it is."""

from __future__ import annotations

from clara_mlx.agents.formats.env import EnvFormat
from clara_mlx.agents.formats.format import Format
from clara_mlx.agents.formats.jsonc import JsonFormat
from clara_mlx.agents.formats.toml import TomlFormat
from clara_mlx.agents.formats.yaml import YamlFormat

#: The formats by the name that a settings file gives.
FORMATS: dict[str, Format] = {
    "json": JsonFormat(),
    "toml": TomlFormat(),
    "yaml": YamlFormat(),
    "env": EnvFormat(),
}
