#!/usr/bin/env bash
# From 1,000 to 4,500 merges, which the paper compares: more merges, fewer tokens for an ECG. All variables of paper.sh
# hold here too.
#   PTB_XL_DIR=ptb-xl ECG_QA_DIR=ecg-qa/ecgqa bash scripts/recipes/num_merges.sh
set -euo pipefail
for merges in ${MERGES:-1000 1500 2000 2500 3000 3500 4000 4500}; do
  NUM_MERGES="$merges" bash "$(dirname "$0")/paper.sh"
done
