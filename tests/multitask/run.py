#!/usr/bin/env python3
"""Three tasks in one prompt table: tuned alone, together, and one after another.

    tests/multitask/run.py [PTUNE] [--styles p-tuning prompt-tuning] [--seeds 1234 1235] [--steps 150]

The quickstart's model knows nine habits of continuing (src/quickstart/README.md). The tasks ask for three of them on the same
rows: the answer, the sentence that it stands in, the question again. Every way of tuning gives each task as many steps.
Prints exact match and F1 of each task on 100 test rows with the 95 % bootstrap interval of tuning alone, and fails where
tuning together or one after another falls out of that interval, where a task that is added changes a byte of those before
it, or where it has other bytes than alone. Python's standard library is all it needs.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROWS = pathlib.Path(__file__).resolve().parents[2] / "src/quickstart"
TASKS = ["span", "sentence", "question"]
HERE = dict(devices=1, num_nodes=1, accelerator="cpu", precision=32)
TEXT = "<|VIRTUAL_PROMPT_0|>Context: {context} Question: {question} Answer: {answer}"
MODEL = "builtin:quickstart"


def answer(task, row):
    if task == "question":
        return row["question"]
    if task == "span":
        return row["answer"]
    return next(part for part in re.split(r"(?<=\.) ", row["context"]) if row["answer"] in part)


def write_rows(folder):
    """`TASK_train.jsonl` and `TASK_test.jsonl` of each task."""
    for split, most in (("train", 800), ("test", 100)):
        rows = [json.loads(line) for line in (ROWS / f"{split}.jsonl").read_text().splitlines()][:most]
        for task in TASKS:
            lines = [json.dumps(row | dict(taskname=task, answer=answer(task, row))) for row in rows]
            (folder / f"{task}_{split}.jsonl").write_text("\n".join(lines) + "\n")


class Bench:
    """One style and one seed, in a folder of its own."""

    def __init__(self, ptune, folder, style, seed, steps):
        self.program, self.folder, self.style, self.seed, self.steps = ptune, folder, style, seed, steps

    def ptune(self, *words):
        done = subprocess.run([self.program, *words], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(words)}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def job(self, kind, name, section):
        (self.folder / f"{name}.yaml").write_text(json.dumps(section))  # JSON is YAML
        self.ptune("worker", kind, "--config", f"{name}.yaml")

    def tune(self, name, new, existing=(), restore=None):
        templates = [dict(taskname=task, prompt_template=TEXT, total_virtual_tokens=10, virtual_token_splits=[10],
                          truncate_field="context", answer_field="answer", answer_only_loss=True)
                     for task in [*existing, *new]]
        self.job("prompt_learning", name, dict(
            run=dict(name=name, results_dir=name),
            trainer=HERE | dict(max_epochs=-1, max_steps=self.steps * len(new), val_check_interval=100000, gradient_clip_val=1.0),
            exp_manager=dict(resume_if_exists=False),
            model=dict(
                seed=self.seed, nemo_path=f"{name}/p.nemo", virtual_prompt_style=self.style, language_model_path=MODEL,
                global_batch_size=8, micro_batch_size=8, new_tasks=list(new), existing_tasks=list(existing),
                restore_path=restore, task_templates=templates, data=dict(train_ds=[f"{task}_train.jsonl" for task in new]),
                p_tuning=dict(encoder_type="tpmlp", encoder_hidden=256, init_std=0.02),
                optim=dict(name="fused_adam", lr=3e-3 if self.style == "p-tuning" else 0.1, weight_decay=0.01,
                           betas=[0.9, 0.98],
                           sched=dict(name="CosineAnnealing", warmup_steps=15, constant_steps=0, min_lr=0.0)))))
        return f"{name}/p.nemo"

    def scores(self, archive, tasks):
        name = f"{pathlib.Path(archive).parent}_scores"
        self.job("evaluation", name, dict(
            run=dict(name=name, results_dir=name), trainer=HERE, language_model_path=MODEL,
            virtual_prompt_model_file=archive, inference=dict(tokens_to_generate=40),
            data=dict(test_ds=[f"{task}_test.jsonl" for task in tasks], micro_batch_size=32, global_batch_size=32)))
        metrics = json.loads((self.folder / name / "results/metrics.json").read_text())
        return metrics["tasks"] if len(tasks) > 1 else {tasks[0]: metrics}

    def hashes(self, archive):
        return {entry["task"]: entry["sha256"] for entry in json.loads(self.ptune("prompt", "list", "--json", archive))}

    def measure(self):
        """What went wrong."""
        wrong, alone, hashes = [], {}, {}
        for task in TASKS:
            archive = self.tune(f"alone_{task}", [task])
            alone |= self.scores(archive, [task])
            hashes |= self.hashes(archive)
        together = self.scores(self.tune("together", TASKS), TASKS)
        table = "alone_span/p.nemo"
        for count, task in enumerate(TASKS[1:], 1):
            table = self.tune(f"after_{count}", [task], TASKS[:count], table)
            for known, found in self.hashes(table).items():
                if found != hashes[known]:
                    wrong.append(f"with {task} added the virtual tokens of {known} are not those that it has alone")
        after = self.scores(table, TASKS)
        print(f"{self.style}, seed {self.seed}, {self.steps} steps a task: exact match / F1 (95 % of alone)")
        for task in TASKS:
            low, high = alone[task]["exact_match_interval"]
            said = [f"{way} {one[task]['exact_match']:5.1f} / {one[task]['f1']:5.1f}"
                    for way, one in (("alone", alone), ("together", together), ("one after another", after))]
            said[0] += f" ({low:.1f} to {high:.1f})"
            print(f"  {task:8}  " + "   ".join(said), flush=True)
            for way, scores in (("together", together), ("one after another", after)):
                if scores[task]["exact_match"] < low:
                    wrong.append(f"{task} {way} is below what it reaches alone")
        return wrong


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("ptune", nargs="?", default="target/release/ptune")
    arguments.add_argument("--styles", nargs="+", default=["p-tuning", "prompt-tuning"])
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1234])
    arguments.add_argument("--steps", type=int, default=150)
    arguments = arguments.parse_args()
    ptune = str(pathlib.Path(arguments.ptune).resolve())
    failed = False
    for style in arguments.styles:
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as name:
                write_rows(pathlib.Path(name))
                for problem in Bench(ptune, pathlib.Path(name), style, seed, arguments.steps).measure():
                    failed = True
                    print(f"FAILED: {problem}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
