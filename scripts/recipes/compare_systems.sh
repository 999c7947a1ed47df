#!/usr/bin/env bash
# The paper's main table: ECG-Byte end to end beside encoders in front of a language model, each system with the same data,
# language model, steps, batches and tries of the learning rate, and with its own controls. On simulated ECGs about an hour
# on two cores; broken off, the same line goes on (bash 4.4 or newer).
#   bash scripts/recipes/compare_systems.sh
# compare_systems_paper.sh beside this file has the paper's settings, for real recordings and a GPU. DATA is "synthetic", or
# what `ecgbyte prepare` wrote, with a validation split. The result is $OUTPUT/systems.json, with its table (.md) and figure
# (.png). README.md beside this file tells what is equal and what is not.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/going_on.sh"

OUTPUT="${OUTPUT:-systems}"
DATA="${DATA:-synthetic}"
SYSTEMS="${SYSTEMS:-ecg-byte clip vit clip-vit merl-resnet patch-transformer}"
SEEDS="${SEEDS:-0 1 2}"                            # of the training; the learning rate is chosen with the first
LEARNING_RATES="${LEARNING_RATES:-5e-4 1e-3 2e-3}" # the one with the lowest validation loss is taken
RECORDS="${RECORDS:-2400}"                         # simulated: 90 % to train, 5 % to validate, 5 % to test
LEADS="${LEADS:-I II V2}"                          # one for each direction of space that the simulator has
SAMPLING_RATE="${SAMPLING_RATE:-50}"
SECONDS_OF_ECG="${SECONDS_OF_ECG:-5}"
NUM_MERGES="${NUM_MERGES:-700}"
BASE_MODEL="${BASE_MODEL:-tiny}"                   # a name or folder, or "tiny" for random weights of TINY_SIZE
TINY_SIZE="${TINY_SIZE:-128 3 768}"                # width, layers, entries of the text vocabulary
MAX_LENGTH="${MAX_LENGTH:-512}"
ROW_FORMAT="${ROW_FORMAT:-grouped}"
QUESTIONS_PER_ROW="${QUESTIONS_PER_ROW:-5}"
STEPS="${STEPS:-600}"
BATCH="${BATCH:-8}"
PRETRAIN_STEPS="${PRETRAIN_STEPS:-300}"
PRETRAIN_BATCH="${PRETRAIN_BATCH:-64}"
PRETRAIN_LEARNING_RATE="${PRETRAIN_LEARNING_RATE:-1e-3}"
PRETRAIN_WEIGHTS="${PRETRAIN_WEIGHTS---tiny --tiny-size 128 4}" # empty for the paper's, from the Hub
# More options for single commands, such as WINDOW="--window-seconds 2" for all that take it.
read -ra window <<<"${WINDOW:-}"
read -ra pretrain_arguments <<<"$PRETRAIN_WEIGHTS ${PRETRAIN_ARGUMENTS:-}"
read -ra extend_arguments <<<"${EXTEND_ARGUMENTS:-}"
read -ra encoder_arguments <<<"${ENCODER_ARGUMENTS:-}"
read -ra sft_arguments <<<"${SFT_ARGUMENTS:---dtype float32 --bf16 false --gradient_checkpointing false}"
read -ra generate_arguments <<<"${GENERATE_ARGUMENTS:---batch-size 64 --max-new-tokens 16}"
read -ra evaluate_arguments <<<"${EVALUATE_ARGUMENTS:---no-rule}"
read -ra systems <<<"$SYSTEMS"
read -ra seeds <<<"$SEEDS"
read -ra rates <<<"$LEARNING_RATES"
read -ra leads <<<"$LEADS"
read -ra tiny_size <<<"$TINY_SIZE"

# What no folder is named after, and must stay as it was.
settings="DATA=$DATA RECORDS=$RECORDS LEADS=$LEADS SAMPLING_RATE=$SAMPLING_RATE SECONDS_OF_ECG=$SECONDS_OF_ECG \
NUM_MERGES=$NUM_MERGES BASE_MODEL=$BASE_MODEL TINY_SIZE=$TINY_SIZE MAX_LENGTH=$MAX_LENGTH ROW_FORMAT=$ROW_FORMAT \
QUESTIONS_PER_ROW=$QUESTIONS_PER_ROW STEPS=$STEPS BATCH=$BATCH FIRST_SEED=${seeds[0]} LEARNING_RATES=$LEARNING_RATES \
PRETRAIN_STEPS=$PRETRAIN_STEPS PRETRAIN_BATCH=$PRETRAIN_BATCH PRETRAIN_LEARNING_RATE=$PRETRAIN_LEARNING_RATE \
PRETRAIN_ARGUMENTS=${pretrain_arguments[*]} WINDOW=${window[*]} EXTEND_ARGUMENTS=${extend_arguments[*]} \
ENCODER_ARGUMENTS=${encoder_arguments[*]} SFT_ARGUMENTS=${sft_arguments[*]} \
GENERATE_ARGUMENTS=${generate_arguments[*]}"
keep_settings "$OUTPUT" "$settings"

if [[ "$DATA" == synthetic ]]; then
  data="$OUTPUT/data"
  done_before "$data/report.json" ||
    ecgbyte prepare synthetic --records "$RECORDS" --leads "${leads[@]}" --sampling-rate "$SAMPLING_RATE" \
      --seconds "$SECONDS_OF_ECG" --output "$data"
else
  data="$DATA"
fi

model=(--model "$BASE_MODEL")
[[ "$BASE_MODEL" == tiny ]] && model=(--tiny-from "$data" --tiny-size "${tiny_size[@]}")

# pretrain NAME SEED: an encoder.
pretrain() {
  local folder="$OUTPUT/$1/seed-$2/encoder" given=()
  done_before "$folder/training_log.json" && return
  compgen -G "$folder/checkpoint-*" >/dev/null && given=(--resume)
  ecgbyte pretrain-encoder --encoder "$1" --data "$data" "${window[@]}" --max-steps "$PRETRAIN_STEPS" \
    --batch-size "$PRETRAIN_BATCH" --lr-scheduler cosine --learning-rate "$PRETRAIN_LEARNING_RATE" \
    --warmup-steps "$((PRETRAIN_STEPS / 20))" --early-stopping-patience 0 --seed "$2" "${pretrain_arguments[@]}" \
    "${given[@]}" --output "$folder"
}

# extend SYSTEM SEED: the language model with what the system reads ECGs by.
extend() {
  local folder="$OUTPUT/$1/seed-$2/base" reads=(--tokenizer "$OUTPUT/tokenizer")
  [[ "$1" == ecg-byte ]] || reads=(--encoder "$OUTPUT/$1/seed-$2/encoder" --standardize-on "$data" "${encoder_arguments[@]}")
  done_before "$folder.made" && return
  ecgbyte extend-llm "${model[@]}" "${reads[@]}" --max-length "$MAX_LENGTH" --reserve 32 --seed "$2" \
    "${extend_arguments[@]}" --output "$folder"
  mkdir -p "$OUTPUT/$1/seed-$2"
  touch "$folder.made"
}

# rows MODEL VIEW FOLDER
rows() {
  done_before "$3/encode.json" ||
    ecgbyte encode --data "$data" "${window[@]}" --model "$1" --view "$2" --row-format "$ROW_FORMAT" \
      --questions-per-row "$QUESTIONS_PER_ROW" --splits train validation --output "$3"
}

# train BASE ROWS FOLDER SEED LEARNING_RATE
train() {
  local given=()
  done_before "$3/training_log.json" && return
  compgen -G "$3/checkpoint-*" >/dev/null && given=(--resume_from_checkpoint true)
  ecgbyte sft --model_name_or_path "$1" --dataset_name "$2" --output_dir "$3" --seed "$4" --learning_rate "$5" \
    --max_steps "$STEPS" --per_device_train_batch_size "$BATCH" --max_length "$MAX_LENGTH" \
    --lr_scheduler_type cosine --warmup_steps "$((STEPS / 20))" --weight_decay 0.01 --adam_beta2 0.98 \
    --dataset_test_split validation --eval_strategy steps --eval_steps "$STEPS" --logging_steps 25 \
    --save_steps 200 --save_total_limit 1 --report_to none "${sft_arguments[@]}" "${given[@]}"
}

# tune BASE ROWS FOLDER: train with each learning rate and the first seed; the best is in $best, of its rate $rate.
tune() {
  local tried=()
  for rate in "${rates[@]}"; do
    train "$1" "$2" "$3/rate-$rate" "${seeds[0]}" "$rate"
    tried+=("$3/rate-$rate")
  done
  best="$(python - "${tried[@]}" <<'PYTHON'
import json, sys
losses = {}
for folder in sys.argv[1:]:
    with open(f"{folder}/training_log.json", encoding="utf-8") as file:
        found = [entry["eval_loss"] for entry in json.load(file)["history"] if "eval_loss" in entry]
    losses[folder] = found[-1] if found else sys.exit(f"{folder} was not validated: its learning rate cannot be judged")
sys.stdout.write(min(losses, key=losses.get))
PYTHON
  )"
  rate="${best##*/rate-}"
}

# answer MODEL VIEW FILE
answer() {
  done_before "${3%.jsonl}.report.json" && return
  ecgbyte generate --model "$1" --data "$data" "${window[@]}" --split test --view "$2" --output "$3" \
    "${generate_arguments[@]}"
}

# without_ecg BASE FOLDER: the control that is trained, tuned and asked without ECGs.
without_ecg() {
  rows "$1" question_only "$2/rows"
  tune "$1" "$2/rows" "$2"
  answer "$best" question_only "$2/answers.jsonl"
}

table=()
with_encoder=""
for system in "${systems[@]}"; do
  folder="$OUTPUT/$system"
  if [[ "$system" == ecg-byte ]]; then
    done_before "$OUTPUT/tokenizer/training.json" ||
      ecgbyte train-tokenizer --data "$data" "${window[@]}" --num-merges "$NUM_MERGES" --output "$OUTPUT/tokenizer"
  fi
  for seed in "${seeds[@]}"; do
    [[ "$system" == ecg-byte ]] || pretrain "$system" "$seed"
    extend "$system" "$seed"
  done
  first="$folder/seed-${seeds[0]}/base"

  # Without its ECG, a model with an encoder is the language model alone, whatever the encoder.
  question_only="$folder/question-only"
  if [[ "$system" != ecg-byte && -n "$with_encoder" ]]; then
    question_only="$with_encoder"
  else
    without_ecg "$first" "$question_only"
  fi
  [[ "$system" == ecg-byte ]] || with_encoder="$question_only"

  rows "$first" true "$folder/rows"
  tune "$first" "$folder/rows" "$folder/tuning"
  for tried in "${rates[@]}"; do
    table+=(--tried "$system=$folder/tuning/rate-$tried/training_log.json")
  done
  for seed in "${seeds[@]}"; do
    run="$folder/seed-$seed"
    trained="$best"
    if [[ "$seed" != "${seeds[0]}" ]]; then
      trained="$run/model"
      train "$run/base" "$folder/rows" "$trained" "$seed" "$rate"
    fi
    for view in true shuffled zero_signal; do
      answer "$trained" "$view" "$run/$view.jsonl"
    done
    ecgbyte evaluate --data "$data" "${window[@]}" --predictions "$run/true.jsonl" \
      --control "shuffled=$run/shuffled.jsonl" --control "zero_signal=$run/zero_signal.jsonl" \
      --control "question_only=$question_only/answers.jsonl" "${evaluate_arguments[@]}" --output "$run/report.json"
    table+=(--report "$system=$run/report.json" --training "$system=$trained/training_log.json")
    [[ "$system" == ecg-byte ]] || table+=(--pretraining "$system=$run/encoder/training_log.json")
  done
done
ecgbyte systems "${table[@]}" --output "$OUTPUT/systems.json"
