#!/usr/bin/env bash
# The fast tests with the oldest and with the newest versions that setup.py allows of the packages this one is built on.
#   bash scripts/test_ranges.sh [lowest|newest|both] [arguments for pytest]
# Each end is an environment of its own in ECGBYTE_RANGES (default: a temporary folder, removed at the end).
set -euo pipefail
cd "$(dirname "$0")/.."
end="${1:-both}"
case "$end" in
    lowest | newest | both) ;;
    *)
        echo "test_ranges: got '$end', expected lowest, newest or both" >&2
        exit 2
        ;;
esac
shift || true
PYTHON="${PYTHON:-python3}"
if [ -z "${ECGBYTE_RANGES:-}" ]; then
    ECGBYTE_RANGES="$(mktemp -d)"
    trap 'rm -rf "$ECGBYTE_RANGES"' EXIT
fi
# Those whose interfaces move; of the others the newest that fits is taken at both ends.
packages="transformers tokenizers trl peft datasets huggingface_hub accelerate"

run_end() {
    local name="$1"
    shift
    local venv="$ECGBYTE_RANGES/$name"
    printf '\n== %s\n' "$name"
    "$PYTHON" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip packaging setuptools
    # shellcheck disable=SC2086
    "$venv/bin/python" scripts/range_constraints.py "$name" $packages >"$venv/constraints.txt"
    cat "$venv/constraints.txt"
    "$venv/bin/python" -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[all,test]" \
        --constraint "$venv/constraints.txt"
    "$venv/bin/python" -m pip check
    "$venv/bin/python" -m ecgbyte_hf.cli env --check
    OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
        "$venv/bin/python" -m pytest -m "not slow" -n "${ECGBYTE_TEST_PROCESSES:-2}" --dist loadfile "$@"
}

for name in lowest newest; do
    if [ "$end" = both ] || [ "$end" = "$name" ]; then
        run_end "$name" "$@"
    fi
done
