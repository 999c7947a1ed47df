#!/usr/bin/env bash
# A two-stage system on PTB-XL's labels: MERL's losses between ECGs and label sentences, what the frozen encoder knows
# (linear probes from 1, 10 and 100 % of the labels, zero-shot, retrieval), and a small language model that answers from its
# one embedding. An hour on one core; broken off, the same line goes on (bash 4.4 or newer).
#   PTB_XL_DIR=ptb-xl bash scripts/recipes/ptb_xl_encoder.sh
# The results are $OUTPUT/probe.json and $OUTPUT/report.json (and .md). ptb_xl_labels.sh beside this file has the tokens'
# side of it, a ResNet and bigrams trained on the labels.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/going_on.sh"

PTB_XL_DIR="${PTB_XL_DIR:?the folder with ptbxl_database.csv or labels.csv, and records100/}"
OUTPUT="${OUTPUT:-ptb-xl-encoder}"
TRAIN_FOLDS="${TRAIN_FOLDS:-1 2 3 4 5 6 7}"
VALIDATION_FOLD="${VALIDATION_FOLD:-8}"            # chooses the encoder's best weights
TEST_FOLD="${TEST_FOLD:-9}"
LEADS="${LEADS:-I II V1 V2 V3 V4 V5 V6}"           # the other limb leads follow from I and II
SAMPLING_RATE="${SAMPLING_RATE:-50}"
EPOCHS="${EPOCHS:-12}"                             # of pretraining
PROJECTOR="${PROJECTOR:-mlp}"
SIZE="${SIZE:-128 3 768}"                          # of the language model: width, layers, entries of the text vocabulary
STEPS="${STEPS:-1200}"
BATCH="${BATCH:-64}"
read -ra train_folds <<<"$TRAIN_FOLDS"
read -ra leads <<<"$LEADS"
read -ra size <<<"$SIZE"

# What no folder is named after, and must stay as it was.
settings="TRAIN_FOLDS=$TRAIN_FOLDS VALIDATION_FOLD=$VALIDATION_FOLD TEST_FOLD=$TEST_FOLD LEADS=$LEADS \
SAMPLING_RATE=$SAMPLING_RATE EPOCHS=$EPOCHS PROJECTOR=$PROJECTOR SIZE=$SIZE STEPS=$STEPS BATCH=$BATCH"
keep_settings "$OUTPUT" "$settings"

# prepare FOLDER LABEL_SET...
prepare() {
  done_before "$1/report.json" ||
    ecgbyte prepare ptb_xl --data-dir "$PTB_XL_DIR" --rate 100 --sampling-rate "$SAMPLING_RATE" --leads "${leads[@]}" \
      --profile reference-low --on-problem flat amplitude --questions labels --label-sets "${@:2}" \
      --train-folds "${train_folds[@]}" --validation-fold "$VALIDATION_FOLD" --test-fold "$TEST_FOLD" --output "$1"
}

# ResNet-18 of half the width, text tower of two layers: what a CPU trains in minutes.
cat >"$OUTPUT/encoder.json" <<'JSON'
{"block": "basic", "blocks": [2, 2, 2, 2], "base_channels": 32, "embedding_size": 256, "input_scaling": "none",
 "text_config": {"model_type": "bert", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "max_position_embeddings": 64}}
JSON
labels="$OUTPUT/labels"
prepare "$labels" superclass subclass form rhythm
if ! done_before "$OUTPUT/encoder/training_log.json"; then
  given=()
  compgen -G "$OUTPUT/encoder/checkpoint-*" >/dev/null && given=(--resume)
  ecgbyte pretrain-encoder --encoder merl-resnet --data "$labels" --texts labels --model-config "$OUTPUT/encoder.json" \
    --epochs "$EPOCHS" --warmup-steps 100 --lr-scheduler cosine --learning-rate 1e-3 "${given[@]}" \
    --output "$OUTPUT/encoder"
fi
done_before "$OUTPUT/probe.json" ||
  ecgbyte probe-encoder --encoder "$OUTPUT/encoder" --data "$labels" --zero-shot --retrieval --control random \
    --output "$OUTPUT/probe.json"

questions="$OUTPUT/questions"
prepare "$questions" superclass which
done_before "$OUTPUT/base/ecg_prompt.json" ||
  ecgbyte extend-llm --encoder "$OUTPUT/encoder" --tiny-from "$questions" --tiny-size "${size[@]}" \
    --template '{ecg} {question}' --max-length 128 --reserve 32 --projector "$PROJECTOR" --output "$OUTPUT/base"

# train VIEW MODEL
train() {
  local given=()
  done_before "$OUTPUT/rows-$1/encode.json" ||
    ecgbyte encode --data "$questions" --model "$OUTPUT/base" --view "$1" --row-format text --splits train \
      --output "$OUTPUT/rows-$1"
  done_before "$2/training_log.json" && return
  compgen -G "$2/checkpoint-*" >/dev/null && given=(--resume_from_checkpoint true)
  ecgbyte sft --model_name_or_path "$OUTPUT/base" --dataset_name "$OUTPUT/rows-$1" --output_dir "$2" --max_steps "$STEPS" \
    --per_device_train_batch_size "$BATCH" --learning_rate 1e-3 --lr_scheduler_type cosine --warmup_steps "$((STEPS / 20))" \
    --weight_decay 0.05 --adam_beta2 0.98 --max_length 128 --dtype float32 --bf16 false --gradient_checkpointing false \
    --logging_steps 50 --save_steps 200 --save_total_limit 1 --report_to none "${given[@]}"
}

# answer MODEL VIEW
answer() {
  done_before "$OUTPUT/$2.report.json" ||
    ecgbyte generate --model "$1" --data "$questions" --split test --view "$2" --batch-size 128 --score-options verify \
      --max-new-tokens 32 --output "$OUTPUT/$2.jsonl"
}

train true "$OUTPUT/model"
train question_only "$OUTPUT/question-only"
for view in true shuffled zero_signal; do
  answer "$OUTPUT/model" "$view"
done
answer "$OUTPUT/question-only" question_only
ecgbyte evaluate --data "$questions" --predictions "$OUTPUT/true.jsonl" --no-rule \
  --control "shuffled=$OUTPUT/shuffled.jsonl" --control "zero_signal=$OUTPUT/zero_signal.jsonl" \
  --control "question_only=$OUTPUT/question_only.jsonl" --output "$OUTPUT/report.json"
