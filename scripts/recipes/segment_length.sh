#!/usr/bin/env bash
# Segments of 2, 5 and 10 s, which the paper compares. In 2 s, questions about rate, rhythm and intervals often have no
# answer. All variables of paper.sh hold here too.
#   PTB_XL_DIR=ptb-xl ECG_QA_DIR=ecg-qa/ecgqa bash scripts/recipes/segment_length.sh
set -euo pipefail
for seconds in ${WINDOWS:-2 5 10}; do
  WINDOW_SECONDS="$seconds" bash "$(dirname "$0")/paper.sh"
done
