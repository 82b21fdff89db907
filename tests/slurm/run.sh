#!/usr/bin/env bash
# What the launcher does on a real Slurm:   tests/slurm/run.sh [PTUNE [WORKER]]   (as root; says so and passes where Slurm is missing)
# PTUNE may be built with --no-default-features: most jobs prepare data, or are small scripts in the worker's place. The
# parts from 11 on need a ptune with its worker, PTUNE itself or WORKER. PARTS="4 13" runs these alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
ptune=$(realpath "${1:-target/debug/ptune}")
real=$(realpath "${2:-$ptune}")
rows=$PWD/src/quickstart/train.jsonl
for program in sbatch slurmctld slurmd munge; do
  command -v "$program" > /dev/null || { echo "skipped: there is no $program (apt-get install slurm-wlm munge)"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: starting a Slurm needs root"; exit 0; }
work=$(mktemp -d)
cluster=$PWD/tests/slurm/cluster.sh
"$cluster" up "$work/slurm" > /dev/null
trap '"$cluster" down "$work/slurm"; rm -rf "$work"' EXIT
export SLURM_CONF=$work/slurm/slurm.conf XDG_STATE_HOME=$work/state
cd "$work"

fail() { echo "FAILED: $*"; scontrol show job "$(number 1)" 2> /dev/null || true; tail -n 50 results/*/*.{err,out} results/*/*/*.{err,out} 2> /dev/null || true; exit 1; }
state() { scontrol show job "$1" 2> /dev/null | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'; }
# Waits until job $1 is in state $2, at most $3 fifths of a second.
await() {
  for _ in $(seq "${3:-150}"); do [ "$(state "$1")" = "$2" ] && return; sleep 0.2; done
  fail "job $1 is $(state "$1"), expected $2"
}
# Slurm lets job $1, which was put back into the queue, wait two minutes. Nobody has to, but its node must clear up first.
hurry() {
  for _ in $(seq 150); do [ "$(state "$1")" = PENDING ] && break; sleep 0.2; done
  sleep 5
  scontrol update jobid="$1" starttime=now
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
both=(stages=[prompt_learning,evaluation] "${common[@]}" ptune_path="$work/worker.sh")
# A script in the worker's place; its first argument is `worker`, its second the stage.
worker() { printf '#!/bin/bash\n%s\n' "$1" > worker.sh; chmod +x worker.sh; }

# Whether part $1 is asked for; says what it is.
part() {
  case " ${PARTS:-$1} " in *" $1 "*) echo "$1. $2" ;; *) return 1 ;; esac
}

if part 1 "a data preparation job runs and leaves its rows"; then
"$ptune" stages=data_preparation "${common[@]}" > out
await "$(number 1)" COMPLETED
[ "$(wc -l < data/prompt_data/v1.1/squad_train.jsonl)" = 1 ] || fail "no rows"
fi

if part 2 "a chain of three stages runs in order"; then
worker 'echo "$2" >> calls; exec '"$ptune"' --version'
"$ptune" stages=[data_preparation,prompt_learning,evaluation] "${common[@]}" ptune_path="$work/worker.sh" > out
await "$(number 3)" COMPLETED
[ "$(tr '\n' ' ' < calls)" = "data_preparation prompt_learning evaluation " ] || fail "order: $(cat calls)"
fi

if part 3 "two tasks on two nodes each see their rank"; then
worker 'echo "$(hostname) $SLURM_PROCID $SLURM_NTASKS $SLURM_NODEID" >> ranks'
"$ptune" "${common[@]}" prompt_learning.trainer.num_nodes=2 prompt_learning.model.global_batch_size=32 \
  ptune_path="$work/worker.sh" > out
await "$(number 1)" COMPLETED
[ "$(sort ranks | awk '{print $2, $3, $4}' | tr '\n' ,)" = "0 2 0,1 2 1," ] || fail "ranks: $(cat ranks)"
fi

if part 4 "with afterok a stage does not follow one that failed, with afterany it does"; then
worker 'echo "$2" >> failing; [ "$2" = evaluation ]'
"$ptune" "${both[@]}" > out
await "$(number 1)" FAILED
await "$(number 2)" COMPLETED
rm failing
"$ptune" "${both[@]}" stage_dependency=afterok +cluster.kill_on_invalid_dep=yes > out
await "$(number 1)" FAILED
await "$(number 2)" CANCELLED
[ "$(cat failing)" = prompt_learning ] || fail "the second stage ran"
fi

if part 5 "jobs of one name run one after another"; then
worker 'echo start >> single; sleep 1; echo end >> single'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" > out
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" prompt_learning.run.results_dir=results/again >> out
await "$(number 1)" COMPLETED
await "$(number 2)" COMPLETED
[ "$(tr '\n' ' ' < single)" = "start end start end " ] || fail "singleton: $(cat single)"
fi

if part 6 "names with blanks and quotes, and values with dollars, arrive unharmed"; then
worker 'printf "%s|%s\n" "$4" "$ODD" > odd'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" "prompt_learning.run.name=\"it's a job\"" \
  "prompt_learning.run.results_dir=\"$work/results/a b\"" "+env_vars.ODD='\$HOME \"x\"'" > out
await "$(number 1)" COMPLETED
[ "$(cat odd)" = "$work/results/a b/nemo-megatron-it's a job_hydra.yaml|\$HOME \"x\"" ] || fail "odd: $(cat odd)"
fi

if part 7 "a job near its time limit saves, is put back into the queue and finishes"; then
# A minute of slack: Slurm may send the signal that much earlier, and a shell that has not set its trap would die of it.
worker 'trap "echo saved >> restarts; exit 75" USR1
echo "run ${SLURM_RESTART_COUNT:-0}" >> restarts
[ -n "$SLURM_RESTART_COUNT" ] && exit 0
while :; do sleep 0.1; done'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" cluster.signal=USR1@50 \
  prompt_learning.run.time_limit=2 > out
for _ in $(seq 200); do grep -q saved restarts 2> /dev/null && break; sleep 0.5; done
grep -q saved restarts || fail "the signal did not arrive"
hurry "$(number 1)"
await "$(number 1)" COMPLETED 300
[ "$(tr '\n' ' ' < restarts)" = "run 0 saved run 1 " ] || fail "restarts: $(cat restarts)"
fi

if part 8 "cancelled by its folder: the job saves, does not come back, and status says so"; then
worker 'echo "run" >> cancelled; trap "echo saved >> cancelled; exit 75" TERM; for i in $(seq 600); do sleep 0.1; done'
"$ptune" "${common[@]}" ptune_path="$work/worker.sh" prompt_learning.run.results_dir=results/cancelled > out
await "$(number 1)" RUNNING
for _ in $(seq 50); do [ -f cancelled ] && break; sleep 0.2; done
"$ptune" cancel results/cancelled > /dev/null
await "$(number 1)" CANCELLED
[ "$("$ptune" status results/cancelled | sed 's/.*: \(.*\), .*/\1/')" = cancelled ] || fail "status: $("$ptune" status results/cancelled)"
sleep 2
[ "$(tr '\n' ' ' < cancelled)" = "run saved " ] || fail "cancelled: $(cat cancelled)"
fi

if part 9 "status and logs of a chain of which a stage failed"; then
worker 'echo "some output"; echo "error: no such model" >&2; echo "hint: name another" >&2; exit 1'
"$ptune" "${both[@]}" ptune_path="$work/worker.sh" stage_dependency=afterok base_results_dir=results/chain > out
await "$(number 1)" FAILED
for _ in $(seq 50); do "$ptune" status results/chain > said; grep -q "never" said && break; sleep 0.2; done
grep -q "failed (exit status 1)" said && grep -q "error: no such model" said || fail "status: $(cat said)"
grep -q "will never start: the job before it did not end well" said || fail "status: $(cat said)"
scancel "$(number 2)"
"$ptune" logs results/chain/t5_220m/prompt_learning_squad | grep -q "some output" || fail "logs"
fi

if part 10 "the jobs of a sweep are one array, each in its own folder"; then
worker 'echo "$SLURM_ARRAY_TASK_ID $4" >> array'
"$ptune" --multirun "${common[@]}" ptune_path="$work/worker.sh" prompt_learning.model.seed=1,2,3 \
  'prompt_learning.run.results_dir="results/sweep/${hydra:job.num}"' cluster.array_parallelism=2 > out
id=$(sed -n 's/.* as job array \([0-9]*\) of 3 tasks/\1/p' out)
for task in 0 1 2; do await "${id}_$task" COMPLETED; done
[ "$(sort array | sed 's,.*results/sweep/\(.\)/.*,\1,' | tr '\n' ' ')" = "0 1 2 " ] || fail "array: $(cat array)"
[ "$(sort array | cut -c1 | tr '\n' ' ')" = "0 1 2 " ] || fail "array: $(cat array)"
[ "$("$ptune" status results/sweep | grep -c ': done,')" = 3 ] || fail "status: $("$ptune" status results/sweep)"
fi

if ! "$real" export --help > /dev/null 2>&1; then
  echo "passed; skipped: chain and pre-emption with a real worker ($real is built without one)"
  exit 0
fi

python3 - "$rows" <<'PYTHON'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])][:120]
json.dump({"data": [{"title": str(i), "paragraphs": [{"context": row["context"], "qas": [
    {"question": row["question"], "answers": [{"text": row["answer"]}]}]}]} for i, row in enumerate(rows)]}, open("quick.json", "w"))
PYTHON
quick=(--config-name=quickstart cluster_type=bcm cluster.gpus_per_node=null cluster.exclusive=False cluster.mem=null
  ptune_path="$real" data_preparation=squad/prepare_xquad data_preparation.train_file=quick.json
  data_preparation.train_articles=100 data_preparation.task_name=worldqa
  prompt_learning.model.data.train_ds=[data/prompt_data/v1.1/squad_train.jsonl]
  prompt_learning.model.data.validation_ds=[data/prompt_data/v1.1/squad_val.jsonl])
# Steps logged in the tuning of $folder.
losses() { cat "$folder/results/metrics.jsonl" 2> /dev/null | grep -c '"loss"' || true; }
# The rows that part 11 makes, where it is left out.
rows_of_quick() {
  grep -q worldqa data/prompt_data/v1.1/squad_train.jsonl 2> /dev/null ||
    "$real" "${quick[@]}" cluster_type=interactive stages=[data_preparation] > /dev/null 2>&1
}

if part 11 "prepare, tune and evaluate the quickstart model, each after the success of the one before"; then
"$ptune" "${quick[@]}" stages=[data_preparation,prompt_learning,evaluation] stage_dependency=afterok \
  prompt_learning.trainer.max_steps=10 base_results_dir=results/real \
  evaluation.model.prompt_dataset_paths=data/prompt_data/v1.1/squad_test.jsonl \
  +evaluation.model.ground_truth_file_path=data/prompt_data/v1.1/squad_test_ground_truth.jsonl > out
await "$(number 3)" COMPLETED 900
grep -q '"exact_match"' results/real/quickstart/evaluation/results/metrics.json || fail "no metrics"
[ "$("$ptune" status results/real | grep -c ': done,')" = 3 ] || fail "status: $("$ptune" status results/real)"
fi

if part 12 "the real worker asked to save: is put back, goes on and is done"; then
rows_of_quick
folder=results/preempted/quickstart/prompt_learning
"$ptune" "${quick[@]}" stages=[prompt_learning] prompt_learning.exp_manager.resume_if_exists=True \
  prompt_learning.trainer.max_steps=300 base_results_dir=results/preempted > out
for _ in $(seq 600); do [ "$(losses)" -ge 5 ] && break; sleep 0.1; done
[ "$(losses)" -ge 5 ] || fail "the training did not begin"
scancel --signal=USR1 "$(number 1)"  # to the tasks, as Slurm does near the time limit
hurry "$(number 1)"
await "$(number 1)" COMPLETED 600
cat "$folder"/log-* > said
grep -q "stopped by signal 10 after step" said || fail "it was never asked to save"
[ -s "$folder/results/quickstart_prompt.nemo" ] || fail "no prompts"
grep -q "resuming at step" said || fail "it began anew"
echo "    saved and put back $(grep -c 'stopped by signal 10' said) times, $(losses) of 300 steps logged"
fi

if part 13 "pre-empted three times, by USR1, by TERM and by a kill of the step: the bytes of an undisturbed run"; then
rows_of_quick
folder=results/bytes/quickstart/prompt_learning
tune=("$ptune" "${quick[@]}" stages=[prompt_learning] prompt_learning.exp_manager.resume_if_exists=True
  prompt_learning.trainer.max_steps=400 prompt_learning.trainer.val_check_interval=50 prompt_learning.trainer.log_every_n_steps=1
  +prompt_learning.exp_manager.checkpoint_callback_params.every_n_train_steps=10 base_results_dir=results/bytes)
"${tune[@]}" > out
await "$(number 1)" COMPLETED 900
mv results/bytes results/undisturbed
"${tune[@]}" > out
id=$(number 1)
for signal in USR1 TERM KILL; do
  before=$(losses)
  for _ in $(seq 600); do [ "$(state "$id")" = RUNNING ] && [ "$(losses)" -ge $((before + 15)) ] && break; sleep 0.1; done
  [ "$(losses)" -ge $((before + 15)) ] || fail "it came no further than step $(losses) before $signal"
  if [ "$signal" = KILL ]; then scancel --signal=KILL "$id.0"; else scancel --signal="$signal" "$id"; fi
  hurry "$id"
  echo "    $signal after step $(losses)"
done
await "$id" COMPLETED 900
cat "$folder"/log-* > said
[ "$(grep -c 'resuming at step' said)" = 3 ] || fail "resumed $(grep -c 'resuming at step' said) times"
[ "$(grep -c 'goes back into the queue' said)" = 3 ] || fail "it was not put back three times"
other=results/undisturbed/quickstart/prompt_learning
for file in quickstart_prompt.nemo prompts.json checkpoints/last.safetensors checkpoints/best.safetensors; do
  cmp "$folder/results/$file" "$other/results/$file" || fail "$file differs"
done
steps() { sed -E 's/"(step|validation)_seconds":[^,}]*//' "$1/results/metrics.jsonl"; }
[ "$(steps "$folder")" = "$(steps "$other")" ] || fail "the metrics differ: $(diff <(steps "$folder") <(steps "$other") | head)"
ls "$folder/results/checkpoints" | diff - <(ls "$other/results/checkpoints") || fail "other checkpoints are kept"
echo "    $(losses) of 400 steps logged, each once; $(sha256sum < "$folder/results/quickstart_prompt.nemo" | cut -c1-16)"
fi

echo "passed"
