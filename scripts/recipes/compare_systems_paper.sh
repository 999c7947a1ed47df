#!/usr/bin/env bash
# The paper's main table at the paper's settings: windows of 2 s, 3,500 merges, Llama-3.2-1B in bfloat16 with LoRA on 1,024
# tokens, encoders from the paper's weights and pretrained on reports. Needs the Hub, a GPU, and days for all systems and
# seeds; broken off, the same line goes on. All variables of compare_systems.sh can be given too.
#   ecgbyte prepare ecg_qa --help  # DATA: questions about PTB-XL or MIMIC-IV-ECG
#   DATA=prepared bash scripts/recipes/compare_systems_paper.sh
set -euo pipefail

export DATA="${DATA:?what ecgbyte prepare wrote, with a validation split}"
export OUTPUT="${OUTPUT:-systems-paper}"
export SYSTEMS="${SYSTEMS:-ecg-byte clip vit clip-vit merl-resnet}"
export WINDOW="${WINDOW---window-seconds 2}"
export NUM_MERGES="${NUM_MERGES:-3500}"
export BASE_MODEL="${BASE_MODEL:-meta-llama/Llama-3.2-1B}"
# 1,024 tokens hold a window with ECG-Byte as a rule; `ecgbyte encode` says how many rows were cut in time.
export MAX_LENGTH="${MAX_LENGTH:-1024}"
export ROW_FORMAT="${ROW_FORMAT:-text}"
export QUESTIONS_PER_ROW="${QUESTIONS_PER_ROW:-1}"
export BATCH="${BATCH:-2}"
export STEPS="${STEPS:-20000}"
export LEARNING_RATES="${LEARNING_RATES:-1e-4 3e-4 1e-3}"
export PRETRAIN_WEIGHTS="${PRETRAIN_WEIGHTS-}"
export PRETRAIN_BATCH="${PRETRAIN_BATCH:-64}"
export PRETRAIN_STEPS="${PRETRAIN_STEPS:-20000}"
export PRETRAIN_LEARNING_RATE="${PRETRAIN_LEARNING_RATE:-1e-4}"
export PRETRAIN_ARGUMENTS="${PRETRAIN_ARGUMENTS:---precision bf16}"
lora="--use_peft --lora_r 16 --lora_alpha 32 --lora_dropout 0.05 --lora_target_modules all-linear"
export SFT_ARGUMENTS="${SFT_ARGUMENTS:-$lora --dtype bfloat16 --bf16 true}"
export GENERATE_ARGUMENTS="${GENERATE_ARGUMENTS:---batch-size 32 --max-new-tokens 64}"
exec bash "$(dirname "$0")/compare_systems.sh"
