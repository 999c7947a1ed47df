#!/usr/bin/env bash
# Prompts and answers of 1,024 and 2,048 tokens, which the paper compares: what of an ECG does not fit is cut in time.
# All variables of paper.sh hold here too; windows of 10 s are where the length matters.
#   PTB_XL_DIR=ptb-xl ECG_QA_DIR=ecg-qa/ecgqa WINDOW_SECONDS=10 bash scripts/recipes/sequence_length.sh
set -euo pipefail
for length in ${LENGTHS:-1024 2048}; do
  MAX_LENGTH="$length" bash "$(dirname "$0")/paper.sh"
done
