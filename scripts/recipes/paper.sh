#!/usr/bin/env bash
# One experiment of the ECG-Byte paper, from downloaded recordings to scored answers. Broken off, the same line goes on;
# what an earlier run finished is not done again (bash 4.4 or newer). Settings are variables:
#   PTB_XL_DIR=ptb-xl ECG_QA_DIR=ecg-qa/ecgqa bash scripts/recipes/paper.sh
#   DATA_SET=synthetic WINDOW_SECONDS=10 BASE_MODEL=Qwen/Qwen3-0.6B-Base bash scripts/recipes/paper.sh
# The result is $OUTPUT/EXPERIMENT/seed-N/report.json (and .md), with the controls beside it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/going_on.sh"

OUTPUT="${OUTPUT:-runs}"                           # everything is written here
DATA_SET="${DATA_SET:-ecg_qa_ptbxl}"               # ecg_qa_ptbxl, ecg_qa_mimic, ecg_chat, ptb_xl, mimic_iv_ecg, synthetic
TEST_ON="${TEST_ON:-$DATA_SET}"                    # the data set whose test questions are answered
FRACTION="${FRACTION:-0.25}"                       # share of the patients, as the paper's 25 %
NUM_MERGES="${NUM_MERGES:-3500}"                   # the paper: 1000 to 4500
MAX_RECORDS="${MAX_RECORDS:-200000}"               # the merges are learnt from this many whole records, or all there are
WINDOW_SECONDS="${WINDOW_SECONDS:-2}"              # the paper: 2 (main), 5, 10
MAX_LENGTH="${MAX_LENGTH:-1024}"                   # tokens of prompt and answer; the paper: 1024 (main), 2048
BASE_MODEL="${BASE_MODEL:-meta-llama/Llama-3.2-1B}"
SEEDS="${SEEDS:-0 1 2}"                            # of the training
RECIPE="${RECIPE:-$(dirname "$0")/sft_paper.yaml}"
QUESTION_ONLY="${QUESTION_ONLY:-yes}"              # train the control without ECGs too, with the first seed
# More options for single commands, such as SFT_ARGUMENTS="--accelerate_config scripts/recipes/accelerate/ddp.yaml".
read -ra prepare_arguments <<<"${PREPARE_ARGUMENTS:-}"
read -ra extend_arguments <<<"${EXTEND_ARGUMENTS:-}"
read -ra sft_arguments <<<"${SFT_ARGUMENTS:-}"
read -ra generate_arguments <<<"${GENERATE_ARGUMENTS:---max-new-tokens 128}"
read -ra evaluate_arguments <<<"${EVALUATE_ARGUMENTS:-}"
read -ra seeds <<<"$SEEDS"

prepared() { echo "$OUTPUT/prepared-$1"; }
tokenizer="$OUTPUT/tokenizer-$DATA_SET-$NUM_MERGES"
# `encode` notes the length of the windows in it, so that `generate` asks about the same.
model="$OUTPUT/model-$DATA_SET-${WINDOW_SECONDS}s-$NUM_MERGES-$MAX_LENGTH-$(basename "$BASE_MODEL")"
experiment="$OUTPUT/$DATA_SET-${WINDOW_SECONDS}s-$NUM_MERGES-$MAX_LENGTH-$(basename "$BASE_MODEL")"

# What no folder is named after must stay as it was, else old and new results would be mixed.
settings="FRACTION=$FRACTION MAX_RECORDS=$MAX_RECORDS RECIPE=$(basename "$RECIPE") \
PREPARE_ARGUMENTS=${PREPARE_ARGUMENTS:-} EXTEND_ARGUMENTS=${EXTEND_ARGUMENTS:-} SFT_ARGUMENTS=${SFT_ARGUMENTS:-} \
GENERATE_ARGUMENTS=${GENERATE_ARGUMENTS:-}"
keep_settings "$OUTPUT" "$settings"

prepare() {
  local source
  done_before "$(prepared "$1")/report.json" && return
  case "$1" in
    ecg_qa_ptbxl) source=(ecg_qa --data-dir "$ECG_QA_DIR" --signals-dir "$PTB_XL_DIR" --question-types paper
      --dataset-config ptbxl-template ptbxl-paraphrased) ;;
    ecg_qa_mimic) source=(ecg_qa --data-dir "$ECG_QA_DIR" --signals-dir "$MIMIC_DIR" --question-types paper
      --dataset-config mimic-iv-ecg-template mimic-iv-ecg-paraphrased --metadata "$MIMIC_DIR/record_list.csv") ;;
    ecg_chat) source=(ecg_chat --data-dir "$ECG_CHAT_DIR" --signals-dir "$MIMIC_DIR"
      --metadata "$MIMIC_DIR/record_list.csv" --ecg-qa-dir "$ECG_QA_DIR") ;;
    ptb_xl) source=(ptb_xl --data-dir "$PTB_XL_DIR" --translate) ;;
    mimic_iv_ecg) source=(mimic_iv_ecg --data-dir "$MIMIC_DIR" --ecg-qa-dir "$ECG_QA_DIR") ;;
    synthetic) source=(synthetic) ;;
    *) echo "unknown DATA_SET $1" >&2; return 2 ;;
  esac
  [[ "$1" == synthetic ]] || source+=(--fraction "$FRACTION")
  ecgbyte prepare "${source[@]}" "${prepare_arguments[@]}" --output "$(prepared "$1")"
}

# The peak of the paper's schedule, Noam's with 500 steps of warm-up, for the width of this model.
learning_rate() {
  python - "$model/config.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1], encoding="utf-8"))
config = config.get("text_config", config)
sys.stdout.write(f"{(500 * config.get('hidden_size', config.get('n_embd'))) ** -0.5:.4g}")
PYTHON
}

# train ROWS FOLDER SEED: the newest checkpoint of a training that was broken off goes on.
train() {
  local given=(--seed "$3" "${sft_arguments[@]}")
  done_before "$2/training_log.json" && return
  [[ "$(basename "$RECIPE")" == sft_paper.yaml ]] && given=(--learning_rate "$(learning_rate)" "${given[@]}")
  compgen -G "$2/checkpoint-*" >/dev/null && given+=(--resume_from_checkpoint true)
  ecgbyte sft --config "$RECIPE" --model_name_or_path "$model" --dataset_name "$1" --output_dir "$2" \
    --max_length "$MAX_LENGTH" "${given[@]}"
}

# answer MODEL VIEW FILE
answer() {
  done_before "${3%.jsonl}.report.json" && return
  ecgbyte generate --model "$1" --data "$(prepared "$TEST_ON")" --window-seconds "$WINDOW_SECONDS" --split test \
    --view "$2" --output "$3" "${generate_arguments[@]}"
}

# Their splits divide the same patients in different ways.
case "$DATA_SET $TEST_ON" in
  "ptb_xl ecg_qa_ptbxl" | "ecg_qa_ptbxl ptb_xl" | "ecg_qa_mimic ecg_chat" | "ecg_qa_mimic mimic_iv_ecg")
    echo "$DATA_SET trains on patients that $TEST_ON tests on; choose another pair" >&2
    exit 2 ;;
esac
prepare "$DATA_SET"
prepare "$TEST_ON"
done_before "$tokenizer/training.json" ||
  ecgbyte train-tokenizer --data "$(prepared "$DATA_SET")" --num-merges "$NUM_MERGES" --max-records "$MAX_RECORDS" \
    --output "$tokenizer"
done_before "$model/ecg_byte/ecg_prompt.json" ||
  ecgbyte extend-llm --model "$BASE_MODEL" --tokenizer "$tokenizer" --max-length "$MAX_LENGTH" "${extend_arguments[@]}" \
    --output "$model"
views=(true)
[[ "$QUESTION_ONLY" == yes ]] && views+=(question_only)
for view in "${views[@]}"; do
  done_before "$experiment/rows-$view/encode.json" ||
    ecgbyte encode --data "$(prepared "$DATA_SET")" --window-seconds "$WINDOW_SECONDS" --model "$model" --view "$view" \
      --output "$experiment/rows-$view"
done

controls=()
if [[ "$QUESTION_ONLY" == yes ]]; then
  train "$experiment/rows-question_only" "$experiment/question-only" "${seeds[0]}"
  answer "$experiment/question-only" question_only "$experiment/question-only-$TEST_ON.jsonl"
  controls+=(--control "question_only=$experiment/question-only-$TEST_ON.jsonl")
fi
reports=()
for seed in "${seeds[@]}"; do
  run="$experiment/seed-$seed"
  train "$experiment/rows-true" "$run/model" "$seed"
  for view in true shuffled zero_signal; do
    answer "$run/model" "$view" "$run/$TEST_ON-$view.jsonl"
  done
  report="$run/report.json"
  [[ "$TEST_ON" == "$DATA_SET" ]] || report="$run/report-on-$TEST_ON.json"
  ecgbyte evaluate --data "$(prepared "$TEST_ON")" --window-seconds "$WINDOW_SECONDS" \
    --predictions "$run/$TEST_ON-true.jsonl" --control "shuffled=$run/$TEST_ON-shuffled.jsonl" \
    --control "zero_signal=$run/$TEST_ON-zero_signal.jsonl" "${controls[@]}" "${evaluate_arguments[@]}" --output "$report"
  reports+=("$report")
done
# Mean, standard deviation and interval over the training seeds.
[[ ${#reports[@]} -lt 2 ]] || ecgbyte seeds "${reports[@]}" --output "$experiment/seeds-on-$TEST_ON.json"
