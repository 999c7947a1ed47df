#!/usr/bin/env bash
# Make an environment, install everything, run the demo (about 5 minutes after the installation, no GPU needed).
#   bash scripts/quickstart.sh [folder for the demo's output, default: demo]
set -euo pipefail
ECGBYTE_ROOT="$(cd "$(dirname "$0")/.." && pwd)"
. "$ECGBYTE_ROOT/scripts/environment.sh"
echo "installing into $ECGBYTE_VENV (PyTorch is large; this takes some minutes the first time)"
python -m pip install --quiet -e "$ECGBYTE_ROOT[all]"
ecgbyte demo --output "${1:-demo}"
