#!/usr/bin/env bash
# Does a language model learn ECG morphology from tokens? PTB-XL's labels as yes/no questions, from random weights, beside
# a one-dimensional ResNet and order-free symbol bigrams on the same recordings. Hours on two cores; broken off, the same
# line goes on (bash 4.4 or newer).
#   PTB_XL_DIR=ptb-xl bash scripts/recipes/ptb_xl_labels.sh
# To choose something, test on fold 8 (TRAIN_FOLDS="1 2 3 4 5 6 7" TEST_FOLD=8 OUTPUT=choose); report on another fold once.
# The result is $OUTPUT/report.json (and .md); with ROBUSTNESS=yes also one report for each way recordings get worse.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/going_on.sh"

PTB_XL_DIR="${PTB_XL_DIR:?the folder with ptbxl_database.csv or labels.csv, and records100/}"
OUTPUT="${OUTPUT:-ptb-xl-labels}"
TRAIN_FOLDS="${TRAIN_FOLDS:-1 2 3 4 5 6 7 8}"
TEST_FOLD="${TEST_FOLD:-9}"
LABEL_SETS="${LABEL_SETS:-superclass subclass form rhythm which}"
LEADS="${LEADS:-I II V1 V2 V3 V4 V5 V6}"           # the other limb leads follow from I and II
SAMPLING_RATE="${SAMPLING_RATE:-50}"
WINDOW_SECONDS="${WINDOW_SECONDS:-2.5}"
WINDOW_STRIDE="${WINDOW_STRIDE:-0.75}"             # of training; answers are averaged over windows side by side
MAX_LENGTH="${MAX_LENGTH:-512}"                    # tokens of a window with one question and answer
NUM_MERGES="${NUM_MERGES:-1000}"
PERCENTILES="${PERCENTILES:-0.1 99.9}"             # that the amplitude range goes between
AUGMENT="${AUGMENT-noise=0.03 gain=1.2}"          # most of what training windows are changed by; "" for nothing
SIZE="${SIZE:-128 3 768}"                          # width, layers, entries of the text vocabulary
PRETRAIN_STEPS="${PRETRAIN_STEPS:-1000}"            # on ECG tokens alone, before the questions
STEPS="${STEPS:-3000}"
RESNET_EPOCHS="${RESNET_EPOCHS:-12}"
ROBUSTNESS="${ROBUSTNESS:-no}"
read -ra train_folds <<<"$TRAIN_FOLDS"
read -ra label_sets <<<"$LABEL_SETS"
read -ra leads <<<"$LEADS"
read -ra size <<<"$SIZE"
read -ra percentiles <<<"$PERCENTILES"
read -ra augment <<<"${AUGMENT:+--augment $AUGMENT}"

# What no folder is named after, and must stay as it was.
settings="TRAIN_FOLDS=$TRAIN_FOLDS TEST_FOLD=$TEST_FOLD LABEL_SETS=$LABEL_SETS LEADS=$LEADS SAMPLING_RATE=$SAMPLING_RATE \
WINDOW_SECONDS=$WINDOW_SECONDS WINDOW_STRIDE=$WINDOW_STRIDE MAX_LENGTH=$MAX_LENGTH NUM_MERGES=$NUM_MERGES \
PERCENTILES=$PERCENTILES AUGMENT=$AUGMENT SIZE=$SIZE \
PRETRAIN_STEPS=$PRETRAIN_STEPS STEPS=$STEPS RESNET_EPOCHS=$RESNET_EPOCHS"
keep_settings "$OUTPUT" "$settings"

# prepare FOLDER NEGATIVES LABEL_SET...: NEGATIVES of "all" asks about every label in training too.
prepare() {
  local folder="$1" negatives=(--negatives "$2")
  [[ "$2" == all ]] && negatives=()
  done_before "$folder/report.json" ||
    ecgbyte prepare ptb_xl --data-dir "$PTB_XL_DIR" --rate 100 --sampling-rate "$SAMPLING_RATE" --leads "${leads[@]}" \
      --profile reference-low --on-problem flat amplitude --questions labels --label-sets "${@:3}" "${negatives[@]}" \
      --train-folds "${train_folds[@]}" --test-fold "$TEST_FOLD" --output "$folder"
}

# train MODEL ROWS FOLDER STEPS
train() {
  local given=()
  done_before "$3/training_log.json" && return
  compgen -G "$3/checkpoint-*" >/dev/null && given=(--resume_from_checkpoint true)
  ecgbyte sft --model_name_or_path "$1" --dataset_name "$2" --output_dir "$3" --max_steps "$4" \
    --per_device_train_batch_size 16 --learning_rate 1e-3 --lr_scheduler_type cosine --warmup_steps 100 \
    --weight_decay 0.05 --adam_beta2 0.98 --max_length "$MAX_LENGTH" --dtype float32 --bf16 false \
    --gradient_checkpointing false --logging_steps 25 --save_steps 200 --save_total_limit 1 --report_to none "${given[@]}"
}

# answer MODEL VIEW DATA FILE [OPTION...]
answer() {
  done_before "${4%.jsonl}.report.json" && return
  ecgbyte generate --model "$1" --data "$3" --window-seconds "$WINDOW_SECONDS" --split test --view "$2" --batch-size 128 \
    --score-options verify --max-new-tokens 32 --output "$4" "${@:5}"
}

data="$OUTPUT/data"
prepare "$data" 4 "${label_sets[@]}"
done_before "$OUTPUT/ecg-byte/training.json" ||
  ecgbyte train-tokenizer --data "$data" --window-seconds "$WINDOW_SECONDS" --num-merges "$NUM_MERGES" \
    --percentiles "${percentiles[@]}" --lead-boundary split --output "$OUTPUT/ecg-byte"
done_before "$OUTPUT/base/ecg_byte/ecg_prompt.json" ||
  ecgbyte extend-llm --tiny-from "$data" --tiny-size "${size[@]}" --template '{ecg} {question}' \
    --max-length "$MAX_LENGTH" --reserve 32 --init waveform --tokenizer "$OUTPUT/ecg-byte" --output "$OUTPUT/base"
# rows FORMAT VIEW FOLDER
rows() {
  done_before "$3/encode.json" ||
    ecgbyte encode --data "$data" --window-seconds "$WINDOW_SECONDS" --window-stride "$WINDOW_STRIDE" \
      --model "$OUTPUT/base" --row-format "$1" --splits train --view "$2" "${augment[@]}" --output "$3"
}

rows ecg true "$OUTPUT/rows-ecg"
rows shared true "$OUTPUT/rows-true"
rows shared question_only "$OUTPUT/rows-question-only"
train "$OUTPUT/base" "$OUTPUT/rows-ecg" "$OUTPUT/pretrained" "$PRETRAIN_STEPS"
train "$OUTPUT/pretrained" "$OUTPUT/rows-true" "$OUTPUT/model" "$STEPS"
train "$OUTPUT/pretrained" "$OUTPUT/rows-question-only" "$OUTPUT/question-only" "$STEPS"
answer "$OUTPUT/model" true "$data" "$OUTPUT/answers.jsonl"
answer "$OUTPUT/model" shuffled "$data" "$OUTPUT/shuffled.jsonl"
answer "$OUTPUT/model" zero_signal "$data" "$OUTPUT/zero-signal.jsonl"
answer "$OUTPUT/question-only" question_only "$data" "$OUTPUT/question-only.jsonl"

# baseline FOLDER FILE [OPTION...]: of bigrams and of the ResNet; FILE has the kind's name put behind.
baselines() {
  done_before "$2-bigram.report.json" ||
    ecgbyte baseline --data "$1" --kind bigram --tokenizer "$OUTPUT/ecg-byte" --c 0.001 --output "$2-bigram.jsonl" "${@:3}"
  done_before "$2-resnet1d.report.json" ||
    ecgbyte baseline --data "$1" --kind resnet1d --epochs "$RESNET_EPOCHS" --output "$2-resnet1d.jsonl" "${@:3}"
}

# A question costs the language model tokens and them nothing, so they learn from all labels.
prepare "$OUTPUT/data-all" all "${label_sets[@]}"
baselines "$OUTPUT/data-all" "$OUTPUT/baseline"
ecgbyte evaluate --data "$data" --by-record --predictions "$OUTPUT/answers.jsonl" --no-rule \
  --control "shuffled=$OUTPUT/shuffled.jsonl" --control "zero_signal=$OUTPUT/zero-signal.jsonl" \
  --control "question_only=$OUTPUT/question-only.jsonl" --system "resnet1d=$OUTPUT/baseline-resnet1d.jsonl" \
  --system "bigram=$OUTPUT/baseline-bigram.jsonl" --output "$OUTPUT/report.json"

[[ "$ROBUSTNESS" == yes ]] || exit 0
# The five superclasses alone; the baselines learn from recordings as they are.
changes=(gain=1 noise=0.05 noise=0.1 wander=0.3 gain=0.5 gain=2 drop=1 drop=3 swap=ra-la)
prepare "$OUTPUT/data-superclass" all superclass
baselines "$OUTPUT/data-superclass" "$OUTPUT/superclass" --worse "${changes[@]}"
for change in "${changes[@]}"; do
  answer "$OUTPUT/model" true "$OUTPUT/data-superclass" "$OUTPUT/worse-$change.jsonl" --perturb "$change"
  done_before "$OUTPUT/worse-$change-report.json" ||
    ecgbyte evaluate --data "$OUTPUT/data-superclass" --by-record --predictions "$OUTPUT/worse-$change.jsonl" --no-rule \
      --system "resnet1d=$OUTPUT/superclass-resnet1d-$change.jsonl" \
      --system "bigram=$OUTPUT/superclass-bigram-$change.jsonl" --output "$OUTPUT/worse-$change-report.json"
done
