#!/usr/bin/env bash
# Other base models, as the paper has them, and Qwen. Llama and Gemma are gated: accept their licences and
# `hf auth login` first. GPT-2 reads 1,024 tokens at most. All variables of paper.sh hold here too.
#   PTB_XL_DIR=ptb-xl ECG_QA_DIR=ecg-qa/ecgqa bash scripts/recipes/base_models.sh
#   BASE_MODELS="openai-community/gpt2-xl Qwen/Qwen3-0.6B-Base" ... bash scripts/recipes/base_models.sh
set -euo pipefail
every="meta-llama/Llama-3.2-1B meta-llama/Llama-3.2-1B-Instruct meta-llama/Llama-3.2-3B google/gemma-2-2b"
every+=" openai-community/gpt2-xl Qwen/Qwen2.5-1.5B"
for base in ${BASE_MODELS:-$every}; do
  BASE_MODEL="$base" bash "$(dirname "$0")/paper.sh"
done
