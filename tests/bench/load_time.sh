#!/usr/bin/env bash
# How long a large checkpoint takes to its first training step, and in how much memory:
#   tests/bench/load_time.sh PTUNE MODEL [PRECISION]      a release build, a Hugging Face folder or a .nemo, 32 or bf16
# MODEL comes from big_checkpoint.py. The file is read once before, so that the system's cache is warm; the trained row is
# short, so that the step is small. Prints wall, user and system seconds, the peak, and the peak over the file's size.
set -euo pipefail
ptune=$1 model=$2 precision=${3:-32}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
weights=$model
[ -d "$model" ] && weights=$model/model.safetensors
cat "$weights" > /dev/null
echo '{"taskname": "t", "question": "a b c d", "answer": "e"}' > "$work/train.jsonl"
cat > "$work/section.yaml" <<YAML
run: {name: load, task_name: t, results_dir: $work}
trainer: {devices: 1, num_nodes: 1, accelerator: cpu, precision: $precision, max_epochs: -1, max_steps: 1, log_every_n_steps: 1,
          val_check_interval: 1000, gradient_clip_val: 1.0}
exp_manager: {resume_if_exists: true}
model:
  seed: 1
  nemo_path: $work/prompt.nemo
  virtual_prompt_style: p-tuning
  language_model_path: $model
  global_batch_size: 1
  micro_batch_size: 1
  existing_tasks: []
  new_tasks: [t]
  task_templates:
  - {taskname: t, prompt_template: '<|VIRTUAL_PROMPT_0|>{question} {answer}', total_virtual_tokens: 5,
     virtual_token_splits: [5], truncate_field: question, answer_only_loss: true, answer_field: answer}
  p_tuning: {encoder_type: tpmlp, encoder_hidden: 64, init_std: 0.1}
  data: {train_ds: ["$work/train.jsonl"], validation_ds: [], add_eos: true}
  optim: {name: fused_adam, lr: 0.02, betas: [0.9, 0.98], weight_decay: 0.0,
          sched: {name: CosineAnnealing, warmup_steps: 0, constant_steps: 0, min_lr: 0.0}}
YAML
RUST_LOG=${RUST_LOG:-ptune=debug} /usr/bin/time -o "$work/time" -f "%e %U %S %M" \
  "$ptune" worker prompt_learning --config "$work/section.yaml" 2> "$work/log" || { cat "$work/log"; exit 1; }
[ -z "${VERBOSE:-}" ] || cat "$work/log"
read -r wall user system peak < "$work/time"
size=$(stat -c %s "$weights")
awk -v w="$wall" -v u="$user" -v s="$system" -v p="$peak" -v z="$size" -v l="$(cut -d' ' -f1 /proc/loadavg)" -v m="$model $precision" \
  'BEGIN { printf "%s: %.2f s in all (user %.2f, system %.2f), peak %.2f GB = %.2f x the file, load %s\n", m, w, u, s, p * 1024 / 1e9, p * 1024 / z, l }'
