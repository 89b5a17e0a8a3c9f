"""``python -m clara_mlx.cli``: the same as ``clara-mlx``."""

from clara_mlx.cli.app import main

main()
