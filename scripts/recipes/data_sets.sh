#!/usr/bin/env bash
# Trained on one data set, tested on another, in all pairs, as in the paper: the second half of a pair uses the model of
# the first. All variables of paper.sh hold here too.
#   PTB_XL_DIR=ptb-xl MIMIC_DIR=mimic-iv-ecg ECG_QA_DIR=ecg-qa/ecgqa bash scripts/recipes/data_sets.sh
#   DATA_SETS="ptb_xl ecg_chat" ECG_CHAT_DIR=ecg-chat ... bash scripts/recipes/data_sets.sh
set -euo pipefail
for trained in ${DATA_SETS:-ecg_qa_ptbxl ecg_qa_mimic}; do
  for tested in ${DATA_SETS:-ecg_qa_ptbxl ecg_qa_mimic}; do
    DATA_SET="$trained" TEST_ON="$tested" bash "$(dirname "$0")/paper.sh"
  done
done
