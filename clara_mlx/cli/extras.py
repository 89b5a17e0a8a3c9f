"""What to install if a command needs a package that is not there."""

from __future__ import annotations

import platform

# The extra of pyproject.toml that brings each package, by the name it is imported by.
_EXTRAS = {
    "anyio": "serve",
    "httpx2": "serve",
    "jinja2": "serve",
    "matplotlib": "evaluate",
    "mcp": "serve",
    "prometheus_client": "serve",
    "pyarrow": "parquet",
    "starlette": "serve",
    "uvicorn": "serve",
    "zstandard": "serve",
}


def what_to_install(error: ModuleNotFoundError) -> str | None:
    """One line that says which pip command brings what is missing; None if none of ours does."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if package == "mlx":
        if platform.system() == "Darwin":
            return "MLX is not installed: pip install mlx"
        extra = "cpu"  # on Linux, MLX needs one of two
    if extra is None:
        return None
    other = " (or clara-mlx[cuda], with an NVIDIA GPU)" if extra == "cpu" else ""
    return f"this needs {package}, which is not installed: pip install 'clara-mlx[{extra}]'{other}"
