#!/usr/bin/env bash
# Every check of the project, fast ones first.
#   bash scripts/test.sh [arguments for pytest]
# Real recordings are tested where ECGBYTE_TEST_DATA names their folder; see CONTRIBUTING.md.
set -euo pipefail
ECGBYTE_ROOT="$(cd "$(dirname "$0")/.." && pwd)"
. "$ECGBYTE_ROOT/scripts/environment.sh"
cd "$ECGBYTE_ROOT"
step() { printf '\n== %s\n' "$*"; }

step install
python -m pip install --quiet -e ".[all,test]"
# pip leaves an installed core alone when only its sources changed.
python -m pip install --quiet --no-deps --force-reinstall ./rust_bpe

step format and lint
ruff format --check .
ruff check .
cargo fmt --manifest-path rust_bpe/Cargo.toml --check

step types
mypy
python -m mypy.stubtest rust_bpe

step Rust
cargo clippy --quiet --manifest-path rust_bpe/Cargo.toml --all-targets --all-features -- -D warnings
cargo test --quiet --manifest-path rust_bpe/Cargo.toml

step Python
# Two processes of one thread each: threads of one test would only wait for those of the other. A file's tests stay
# together, since they share what took long to make.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
python -m pytest -n "${ECGBYTE_TEST_PROCESSES:-2}" --dist loadfile "$@"
