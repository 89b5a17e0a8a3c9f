# Sourced by scripts/test and scripts/demo: sets up .venv with clara-mlx and the extra named in $1.
# PYTHON chooses the interpreter; CLARA_MLX_EXTRA=cuda chooses NVIDIA on Linux.

step() { printf '\n== %s\n' "$*"; }

extras=$1
if [ "$(uname -s)" = Linux ]; then
    extras="${extras:+$extras,}${CLARA_MLX_EXTRA:-cpu}" # on a Mac, MLX is a base dependency
fi

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3.14 python3 python; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "Python 3.11 to 3.14 is needed; set PYTHON to one" >&2
    return 1
}

if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    step "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
# Reinstall only when what decides the environment has changed.
state="$(cat pyproject.toml clara_mlx/version.py | cksum) [$extras]"
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$state" ]; then
    step "installing clara-mlx[$extras]"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]"
    printf '%s' "$state" >.venv/installed
fi
export PATH="$PWD/.venv/bin:$PATH"
