#!/usr/bin/env bash
# What the launcher does on a real Slurm:   tests/slurm/run.sh [PTUNE]   (as root; says so and passes where Slurm is missing)
# PTUNE may be built with --no-default-features: the jobs prepare data, or are small scripts in the worker's place.
set -euo pipefail
cd "$(dirname "$0")/../.."
ptune=$(realpath "${1:-target/debug/ptune}")
for program in sbatch slurmctld slurmd munge; do
  command -v "$program" > /dev/null || { echo "skipped: there is no $program (apt-get install slurm-wlm munge)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: starting a Slurm needs root"; exit 0; }
work=$(mktemp -d)
cluster=$PWD/tests/slurm/cluster.sh
"$cluster" up "$work/slurm" > /dev/null
trap '"$cluster" down "$work/slurm"; rm -rf "$work"' EXIT
export SLURM_CONF=$work/slurm/slurm.conf
cd "$work"

fail() { echo "FAILED: $*"; tail -n 50 results/*/*.{err,out} results/*/*/*.{err,out} 2> /dev/null || true; exit 1; }
state() { scontrol show job "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
# Waits until job $1 is in state $2.
await() {
  for _ in $(seq 150); do [ "$(state "$1")" = "$2" ] && return; sleep 0.2; done
  fail "job $1 is $(state "$1"), expected $2"
}
number() { sed -n "$1"'s/.* as job \([0-9]*\),.*/\1/p' out; }

cat > xquad.json << 'JSON'
{"data": [{"title": "a", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "t"}]}]}]},
          {"title": "b", "paragraphs": [{"context": "d", "qas": [{"question": "r", "answers": [{"text": "u"}]}]}]}]}
JSON
mkdir model && touch rows.jsonl
common=(cluster.gpus_per_node=null cluster.exclusive=False cluster.mem=null
  data_preparation=squad/prepare_xquad data_preparation.train_file=xquad.json data_preparation.train_articles=1
  prompt_learning=t5/squad prompt_learning.trainer.devices=1 prompt_learning.model.language_model_path=model
  prompt_learning.model.global_batch_size=16
  evaluation=prompt_t5/squad evaluation.language_model_path=model evaluation.trainer.devices=1)
# A script in the worker's place; its first argument is `worker`, its second the stage.
worker() { printf '#!/bin/bash\n%s\n' "$1" > worker.sh; chmod +x worker.sh; }

echo "1. a data preparation job runs and leaves its rows"
"$ptune" stages=data_preparation "${common[@]}" > out
await "$(number 1)" COMPLETED
[ "$(wc -l < data/prompt_data/v1.1/squad_train.jsonl)" = 1 ] || fail "no rows"

echo "2. a chain of three stages runs in order"
worker 'echo "$2" >> calls; exec '"$ptune"' --version'
"$ptune" stages=[data_preparation,prompt_learning,evaluation] "${common[@]}" ptune_path="$work/worker.sh" > out
await "$(number 3)" COMPLETED
[ "$(tr '\n' ' ' < calls)" = "data_preparation prompt_learning evaluation " ] || fail "order: $(cat calls)"

echo "3. two tasks on two nodes each see their rank"
worker 'echo "$(hostname) $SLURM_PROCID $SLURM_NTASKS $SLURM_NODEID" >> ranks'
"$ptune" "${common[@]}" prompt_learning.trainer.num_nodes=2 prompt_learning.model.global_batch_size=32 \
  ptune_path="$work/worker.sh" > out
await "$(number 1)" COMPLETED
[ "$(sort ranks | awk '{print $2, $3, $4}' | tr '\n' ,)" = "0 2 0,1 2 1," ] || fail "ranks: $(cat ranks)"

echo "4. with afterok a stage does not follow one that failed, with afterany it does"
worker 'echo "$2" >> failing; [ "$2" = evaluation ]'
both=(stages=[prompt_learning,evaluation] "${common[@]}" ptune_path="$work/worker.sh")
"$ptune" "${both[@]}" > out
await "$(number 1)" FAILED
await "$(number 2)" COMPLETED
rm failing
"$ptune" "${both[@]}" stage_dependency=afterok +cluster.kill_on_invalid_dep=yes > out
await "$(number 1)" FAILED
await "$(number 2)" CANCELLED
[ "$(cat failing)" = prompt_learning ] || fail "the second stage ran"

echo "5. jobs of one name run one after another"
worker 'echo start >> single; sleep 1; echo end >> single'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" > out
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" prompt_learning.run.results_dir=results/again >> out
await "$(number 1)" COMPLETED
await "$(number 2)" COMPLETED
[ "$(tr '\n' ' ' < single)" = "start end start end " ] || fail "singleton: $(cat single)"

echo "6. names with blanks and quotes, and values with dollars, arrive unharmed"
worker 'printf "%s|%s\n" "$4" "$ODD" > odd'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" "prompt_learning.run.name=\"it's a job\"" \
  "prompt_learning.run.results_dir=\"$work/results/a b\"" "+env_vars.ODD='\$HOME \"x\"'" > out
await "$(number 1)" COMPLETED
[ "$(cat odd)" = "$work/results/a b/nemo-megatron-it's a job_hydra.yaml|\$HOME \"x\"" ] || fail "odd: $(cat odd)"

echo "7. a job near its time limit saves, is put back into the queue and finishes"
worker 'echo "run ${SLURM_RESTART_COUNT:-0}" >> restarts
[ -n "$SLURM_RESTART_COUNT" ] && exit 0
trap "echo saved >> restarts; exit 75" USR1
while :; do sleep 0.1; done'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" cluster.signal=USR1@50 cluster.requeue=True \
  prompt_learning.run.time_limit=1 > out
for _ in $(seq 200); do grep -q saved restarts 2> /dev/null && break; sleep 0.5; done
grep -q saved restarts || fail "the signal did not arrive"
# Slurm lets a requeued job wait two minutes; nobody has to.
for _ in $(seq 100); do
  scontrol update jobid="$(number 1)" starttime=now 2> /dev/null || true
  [ "$(state "$(number 1)")" = COMPLETED ] && break
  sleep 1
done
await "$(number 1)" COMPLETED
[ "$(tr '\n' ' ' < restarts)" = "run 0 saved run 1 " ] || fail "restarts: $(cat restarts)"

echo "passed"
