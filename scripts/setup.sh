#!/bin/sh
# Make .venv as uv.lock states it. Needs Python 3.11 or newer and nothing else: without a uv on PATH that is new
# enough, one is installed into .uv. `--print-uv` only prints which uv serves.
set -eu

UV_VERSION=0.13.8
UV_MINIMUM=0.9
PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"

cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Tell whether version $1 is at least $2; only major and minor count.
at_least() {
    major="${1%%.*}" rest="${1#*.}" && minor="${rest%%.*}"
    wanted_major="${2%%.*}" wanted_minor="${2#*.}"
    [ "$major" -gt "$wanted_major" ] || { [ "$major" -eq "$wanted_major" ] && [ "$minor" -ge "$wanted_minor" ]; }
}

# The named Python when it is new enough, else the newest one on PATH that is.
find_python() {
    for candidate in "$PYTHON" python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "setup: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python"
    return 1
}

find_uv() {
    if found="$(command -v uv)" && version="$("$found" --version 2>/dev/null | cut -d' ' -f2)" \
        && at_least "${version:-0.0}" "$UV_MINIMUM" 2>/dev/null; then
        echo "$found"
        return
    fi
    if [ "$(.uv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
        say "setup: installing uv $UV_VERSION into .uv"
        rm -rf .uv
        python="$(find_python)"
        "$python" -m venv .uv || {
            rm -rf .uv
            say "setup: this Python cannot make virtual environments; install uv, or your system's python3-venv"
            return 1
        }
        .uv/bin/pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" >&2
    fi
    echo "$PWD/.uv/bin/uv"
}

uv="$(find_uv)"
if [ "${1:-}" = "--print-uv" ]; then
    echo "$uv"
    exit
fi
say "setup: $VENV from uv.lock"
export UV_PROJECT_ENVIRONMENT="$VENV"
unset VIRTUAL_ENV
# An environment that is there keeps its Python as long as that one is new enough.
if "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    "$uv" sync --quiet --frozen --all-extras
else
    python="$(find_python)"
    "$uv" sync --quiet --frozen --all-extras --python "$python"
fi
