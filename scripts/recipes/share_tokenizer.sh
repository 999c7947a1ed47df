#!/usr/bin/env bash
# A tokenizer learnt from PTB-XL's training folds (CC-BY-4.0), ready to push: trained, checked and listed. Broken off, the
# same line goes on.
#   PTB_XL_DIR=ptb-xl bash scripts/recipes/share_tokenizer.sh
#   PTB_XL_DIR=ptb-xl REPO_ID=someone/ecg-byte-ptbxl PUSH=yes bash scripts/recipes/share_tokenizer.sh
set -euo pipefail

PTB_XL_DIR="${PTB_XL_DIR:?the folder with ptbxl_database.csv and records500/}"  # for others see PREPARE_ARGUMENTS
OUTPUT="${OUTPUT:-share-tokenizer}"
NUM_MERGES="${NUM_MERGES:-3500}"                    # the paper: 3500
REPO_ID="${REPO_ID:-someone/ecg-byte-ptbxl}"        # USER/NAME on the Hub
PUSH="${PUSH:-no}"                                  # yes uploads, after `hf auth login`
# Of `ecgbyte prepare`, such as "--rate 100 --profile reference-low --questions labels --test-fold 9" for records100/ and
# labels.csv alone.
read -ra prepare_arguments <<<"${PREPARE_ARGUMENTS:-}"

tokenizer="$OUTPUT/ecg-byte-$NUM_MERGES"
[[ -f "$OUTPUT/prepared/report.json" ]] ||
  ecgbyte prepare ptb_xl --data-dir "$PTB_XL_DIR" --output "$OUTPUT/prepared" "${prepare_arguments[@]}"
# Written last.
[[ -f "$tokenizer/training.json" ]] ||
  ecgbyte train-tokenizer --data "$OUTPUT/prepared" --num-merges "$NUM_MERGES" --output "$tokenizer"

# From training.json and the report of the preparation, with the licence of the recordings; `push` writes it anew unless
# you changed it.
[[ -f "$tokenizer/README.md" ]] ||
  ecgbyte card "$tokenizer" --repo-id "$REPO_ID" --license cc-by-4.0 --from "$OUTPUT/prepared/report.json"
push=(ecgbyte push "$tokenizer" "$REPO_ID" --license cc-by-4.0)
[[ "$PUSH" == yes ]] || push+=(--dry-run)
"${push[@]}"
