# Sourced by quickstart.sh and test.sh: makes and activates the environment.
# ECGBYTE_VENV names it (default: .venv in the checkout), PYTHON the interpreter it is made with.
if ! command -v cargo >/dev/null 2>&1; then
    echo "ecgbyte: building the tokenizer's core needs Rust 1.89 or newer, and no cargo was found: install it from https://rustup.rs and run this again." >&2
    exit 1
fi
ECGBYTE_VENV="${ECGBYTE_VENV:-$ECGBYTE_ROOT/.venv}"
if [ ! -x "$ECGBYTE_VENV/bin/python" ]; then
    PYTHON="${PYTHON:-python3}"
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "ecgbyte: needs Python 3.11 or newer, got $("$PYTHON" --version 2>&1); name another one with PYTHON=..." >&2
        exit 1
    fi
    "$PYTHON" -m venv "$ECGBYTE_VENV"
    "$ECGBYTE_VENV/bin/python" -m pip install --quiet --upgrade pip
fi
export PATH="$ECGBYTE_VENV/bin:$PATH"
