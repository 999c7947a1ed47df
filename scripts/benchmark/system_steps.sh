#!/usr/bin/env bash
# CPU time of a step of each system that scripts/recipes/compare_systems.sh made with its small models: of training the language
# model (110 less 10 steps), and of pretraining the encoder (24 less 4), one thread, one after another.
#   bash scripts/benchmark/system_steps.sh systems
# SYSTEMS, BATCH, MAX_LENGTH, PRETRAIN_BATCH and TINY as there. Prints a table in Markdown, in s; some minutes.
set -euo pipefail

runs="${1:?the folder of compare_systems.sh}"
SYSTEMS="${SYSTEMS:-ecg-byte clip vit clip-vit merl-resnet patch-transformer}"
BATCH="${BATCH:-8}"
MAX_LENGTH="${MAX_LENGTH:-512}"
PRETRAIN_BATCH="${PRETRAIN_BATCH:-64}"
TINY="${TINY:-128 4}"
read -ra systems <<<"$SYSTEMS"
read -ra tiny <<<"$TINY"
export OMP_NUM_THREADS=1 TIMEFORMAT="%U %S"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# seconds COMMAND...: of the processor, its children's too.
seconds() { { time "$@" >"$scratch/log" 2>&1; } 2>&1 | awk '{print $1 + $2}'; }

# train SYSTEM STEPS
train() {
  ecgbyte sft --model_name_or_path "$runs/$1/seed-0/base" --dataset_name "$runs/$1/rows" --output_dir "$scratch/model" \
    --max_steps "$2" --per_device_train_batch_size "$BATCH" --max_length "$MAX_LENGTH" --learning_rate 1e-3 \
    --save_strategy no --report_to none --dtype float32 --bf16 false --gradient_checkpointing false
}

# pretrain SYSTEM STEPS
pretrain() {
  rm -rf "$scratch/encoder"
  ecgbyte pretrain-encoder --encoder "$1" --data "$runs/data" --max-steps "$2" --batch-size "$PRETRAIN_BATCH" \
    --lr-scheduler cosine --learning-rate 1e-3 --warmup-steps 2 --eval-steps 1000 --tiny --tiny-size "${tiny[@]}" \
    --output "$scratch/encoder"
}

# step KIND SYSTEM FEW MANY
step() { awk -v few="$(seconds "$1" "$2" "$3")" -v many="$(seconds "$1" "$2" "$4")" -v n="$(($4 - $3))" 'BEGIN {printf "%.3f", (many - few) / n}'; }

echo "| system | training | pretraining |"
echo "| --- | --- | --- |"
for system in "${systems[@]}"; do
  before="–"
  [[ "$system" == ecg-byte ]] || before="$(step pretrain "$system" 4 24)"
  echo "| $system | $(step train "$system" 10 110) | $before |"
done
