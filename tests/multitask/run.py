#!/usr/bin/env python3
"""Three tasks in one prompt table: tuned alone, together, and one after another.

    tests/multitask/run.py [PTUNE] [--seeds 1234 1235 1236]

The quickstart's rows are divided by what they ask for (people, places, other things), each share under a task name of its
own. Every way of tuning gives each task as many rows. Prints the exact match and F1 of each task on its test rows with their 95 %
bootstrap intervals, and fails where tuning together or one after another falls out of the interval of tuning alone, or
where adding a task changed a byte of the tasks before it. Python's standard library is all it needs.

Seed 1234, exact match alone / together / one after another: people 85.7 / 83.9 / 85.7 (95 % of alone: 75.0 to 94.6), places
95.5 / 100.0 / 95.5 (86.4 to 100.0), things 97.5 / 97.5 / 98.4 (94.3 to 100.0).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROWS = pathlib.Path(__file__).resolve().parents[2] / "src/quickstart"
PEOPLE = ("Who ", "Whom ", "To whom ")
PLACES = ("Where ", "In which ", "Which town", "Which city", "Which river", "What is the birthplace", "What is the river",
          "What is the home")
TASKS = ("people", "places", "things")
STEPS = 150


def task_of(question):
    if question.startswith(PEOPLE):
        return "people"
    return "places" if question.startswith(PLACES) else "things"


def write_rows(folder):
    """`NAME_TASK.jsonl` for each task, and `test_all.jsonl` with all of them mixed."""
    counts = {}
    for name in ("train", "validation", "test"):
        rows = [json.loads(line) for line in open(ROWS / f"{name}.jsonl")]
        for row in rows:
            row["taskname"] = task_of(row["question"])
        for task in TASKS:
            own = [row for row in rows if row["taskname"] == task]
            counts[name, task] = len(own)
            (folder / f"{name}_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
        (folder / f"{name}_all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return counts


def template(task, virtual_tokens):
    return (f'{{taskname: {task}, prompt_template: "<|VIRTUAL_PROMPT_0|>Context: {{context}} Question: {{question}} Answer: {{answer}}", '
            f"total_virtual_tokens: {virtual_tokens}, virtual_token_splits: [{virtual_tokens}], truncate_field: context, "
            "answer_field: answer, answer_only_loss: True}")


class Bench:
    def __init__(self, ptune, folder, seed):
        self.ptune, self.folder, self.seed = ptune, folder, seed

    def run(self, *words):
        done = subprocess.run([self.ptune, "--config-name=quickstart", *words], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")

    def tune(self, name, new, lengths, steps, existing=(), restore=None):
        """Tunes `new` tasks; `lengths` are the virtual tokens of all tasks of the table."""
        templates = ", ".join(template(task, lengths[task]) for task in (*existing, *new))
        files = lambda kind: ",".join(f"{kind}_{task}.jsonl" for task in new)
        self.run(
            "stages=[prompt_learning]", f"base_results_dir={name}", f"prompt_learning.model.seed={self.seed}",
            f"prompt_learning.trainer.max_steps={steps}", f"prompt_learning.model.new_tasks=[{','.join(new)}]",
            f"+prompt_learning.model.existing_tasks=[{','.join(existing)}]",
            f"+prompt_learning.model.restore_path={restore or 'null'}",
            f"prompt_learning.model.task_templates=[{templates}]",
            f"prompt_learning.model.data.train_ds=[{files('train')}]",
            f"prompt_learning.model.data.validation_ds=[{files('validation')}]",
        )
        return f"{name}/quickstart/prompt_learning/results/quickstart_prompt.nemo"

    def scores(self, name, archive, tasks):
        """Scores by task of an archive, on the rows of its tasks in one file, mixed where it has all of them."""
        rows = "test_all.jsonl" if len(tasks) == len(TASKS) else f"test_{tasks[0]}.jsonl"
        self.run(
            "stages=[evaluation]", f"base_results_dir={name}", f"evaluation.model.nemo_model={archive}",
            f"evaluation.model.prompt_dataset_paths={rows}", "evaluation.compare_without_virtual_tokens=False",
        )
        metrics = json.load(open(self.folder / name / "quickstart/evaluation/results/metrics.json"))
        return metrics["tasks"] if len(tasks) > 1 else {tasks[0]: metrics}

    def hashes(self, archive):
        listed = subprocess.run([self.ptune, "prompt", "list", "--json", archive], cwd=self.folder, capture_output=True, text=True, check=True)
        return listed.stdout


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ptune", nargs="?", default="target/release/ptune")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1234])
    arguments = arguments.parse_args()
    ptune = str(pathlib.Path(arguments.ptune).resolve())
    failed = False
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            counts = write_rows(folder)
            bench = Bench(ptune, folder, seed)
            same = dict.fromkeys(TASKS, 10)
            alone = {}
            for task in TASKS:
                alone |= bench.scores(f"alone_{task}", bench.tune(f"alone_{task}", [task], same, STEPS), [task])
            together = bench.scores("together", bench.tune("together", TASKS, same, STEPS * len(TASKS)), TASKS)
            # Of different lengths; the first of these was not tuned yet.
            lengths = {"people": 10, "places": 6, "things": 14}
            archive, before = "alone_people/quickstart/prompt_learning/results/quickstart_prompt.nemo", ["people"]
            for task in TASKS[1:]:
                earlier = archive
                archive = bench.tune(f"after_{task}", [task], lengths, STEPS, before, earlier)
                old, new = (json.loads(bench.hashes(path)) for path in (earlier, archive))
                of = lambda listed: {entry["task"]: entry["sha256"] for entry in listed}
                changed = [kept for kept in before if of(old)[kept] != of(new)[kept]]
                if changed:
                    failed = True
                    print(f"FAILED: adding {task} changed {changed}")
                before.append(task)
            after = bench.scores("after", archive, TASKS)
            print(f"seed {seed}: exact match / F1 (95 % of alone)")
            for task in TASKS:
                low, high = alone[task]["exact_match_interval"]
                print(f"  {task:7} {counts['train', task]:4} rows, {alone[task]['count']:3} tested:  "
                      f"alone {alone[task]['exact_match']:5.1f} / {alone[task]['f1']:5.1f} ({low:.1f} to {high:.1f})   "
                      f"together {together[task]['exact_match']:5.1f} / {together[task]['f1']:5.1f}   "
                      f"one after another {after[task]['exact_match']:5.1f} / {after[task]['f1']:5.1f}", flush=True)
                for way, scores in (("together", together), ("one after another", after)):
                    if scores[task]["exact_match"] < low:
                        failed = True
                        print(f"FAILED: {task} {way} is below what it reaches alone")
    sys.exit(failed)


if __name__ == "__main__":
    main()
