#!/usr/bin/env bash
# A tokenizer learnt from PTB-XL's training folds (CC-BY-4.0), ready to push: trained, checked and listed. Broken off, the
# same line goes on.
#   PTB_XL_DIR=ptb-xl bash scripts/recipes/share_tokenizer.sh
#   PTB_XL_DIR=ptb-xl REPO_ID=someone/ecg-byte-ptbxl PUSH=yes bash scripts/recipes/share_tokenizer.sh
set -euo pipefail

PTB_XL_DIR="${PTB_XL_DIR:?the folder with ptbxl_database.csv and records500/}"
OUTPUT="${OUTPUT:-share-tokenizer}"
NUM_MERGES="${NUM_MERGES:-3500}"                    # the paper: 3500
REPO_ID="${REPO_ID:-someone/ecg-byte-ptbxl}"        # USER/NAME on the Hub
PUSH="${PUSH:-no}"                                  # yes uploads, after `hf auth login`
read -ra prepare_arguments <<<"${PREPARE_ARGUMENTS:-}"

tokenizer="$OUTPUT/ecg-byte-$NUM_MERGES"
[[ -f "$OUTPUT/prepared/report.json" ]] ||
  ecgbyte prepare ptb_xl --data-dir "$PTB_XL_DIR" --output "$OUTPUT/prepared" "${prepare_arguments[@]}"
# Written last.
[[ -f "$tokenizer/training.json" ]] ||
  ecgbyte train-tokenizer --data "$OUTPUT/prepared" --num-merges "$NUM_MERGES" --output "$tokenizer"

# The card is written from training.json, with the licence of the recordings.
push=(ecgbyte push "$tokenizer" "$REPO_ID" --license cc-by-4.0)
[[ "$PUSH" == yes ]] || push+=(--dry-run)
"${push[@]}"
