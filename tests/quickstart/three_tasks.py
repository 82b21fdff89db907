"""Three tasks of the quickstart's rows alone, one after another and together: `python three_tasks.py PTUNE [STEPS]`.

The model knows nine habits of continuing (see ../../src/quickstart/README.md). The tasks ask for three of them on the same
rows: the answer, the sentence that it stands in, the question again. Everything is written below the current folder;
printed are scores (exact match and F1 of 100 test rows) and the hash of each task's virtual tokens. A task that is added
to others must have the hash it has alone.
"""

import json
import pathlib
import re
import subprocess
import sys

PTUNE, STEPS = pathlib.Path(sys.argv[1]).resolve(), int((sys.argv[2:] or [150])[0])
ROWS = pathlib.Path(__file__).resolve().parents[2] / "src" / "quickstart"
TASKS = ["span", "sentence", "question"]
HERE = dict(devices=1, num_nodes=1, accelerator="cpu", precision=32)
TEXT = "<|VIRTUAL_PROMPT_0|>Context: {context} Question: {question} Answer: {answer}"


def answer(task, row):
    if task == "question":
        return row["question"]
    if task == "span":
        return row["answer"]
    return next(part for part in re.split(r"(?<=\.) ", row["context"]) if row["answer"] in part)


def write_rows():
    for split, most in (("train", 800), ("test", 100)):
        rows = [json.loads(line) for line in (ROWS / f"{split}.jsonl").read_text().splitlines()][:most]
        for task in TASKS:
            lines = [json.dumps(row | dict(taskname=task, answer=answer(task, row))) for row in rows]
            pathlib.Path(f"{task}_{split}.jsonl").write_text("\n".join(lines) + "\n")


def ptune(*words):
    return subprocess.run([PTUNE, *words], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def job(kind, name, section):
    pathlib.Path(f"{name}.yaml").write_text(json.dumps(section))  # JSON is YAML
    ptune("worker", kind, "--config", f"{name}.yaml")


def train(style, name, new, existing=(), restore=None, steps=STEPS):
    templates = [dict(taskname=task, prompt_template=TEXT, total_virtual_tokens=10, virtual_token_splits=[10],
                      truncate_field="context", answer_field="answer", answer_only_loss=True)
                 for task in [*existing, *new]]
    job("prompt_learning", name, dict(
        run=dict(name=name, results_dir=name),
        trainer=HERE | dict(max_epochs=-1, max_steps=steps, val_check_interval=100000, gradient_clip_val=1.0),
        exp_manager=dict(resume_if_exists=False),
        model=dict(
            nemo_path=f"{name}/p.nemo", virtual_prompt_style=style, language_model_path="builtin:quickstart",
            global_batch_size=8, micro_batch_size=8, new_tasks=list(new), existing_tasks=list(existing),
            restore_path=restore, task_templates=templates, data=dict(train_ds=[f"{task}_train.jsonl" for task in new]),
            p_tuning=dict(encoder_type="tpmlp", encoder_hidden=256, init_std=0.02),
            optim=dict(name="fused_adam", lr=3e-3 if style == "p-tuning" else 0.1, weight_decay=0.01, betas=[0.9, 0.98],
                       sched=dict(name="CosineAnnealing", warmup_steps=15, constant_steps=0, min_lr=0.0)))))
    tasks = json.loads(ptune("prompt", "list", f"{name}/p.nemo", "--json"))
    print(name, {task["task"]: task["sha256"][:12] for task in tasks}, flush=True)
    return f"{name}/p.nemo"


def score(archive, tasks):
    name = str(pathlib.Path(archive).parent) + "_scores"
    job("evaluation", name, dict(
        run=dict(name=name, results_dir=name), trainer=HERE, language_model_path="builtin:quickstart",
        virtual_prompt_model_file=archive, inference=dict(tokens_to_generate=40),
        data=dict(test_ds=[f"{task}_test.jsonl" for task in tasks], micro_batch_size=32, global_batch_size=32)))
    scores = json.loads(pathlib.Path(name, "results", "metrics.json").read_text())
    scores = scores.get("tasks") or {tasks[0]: scores}
    print(archive, {task: (round(one["exact_match"], 1), round(one["f1"], 1)) for task, one in scores.items()}, flush=True)


write_rows()
for style in ("p-tuning", "prompt-tuning"):
    archives = [train(style, f"{style}_{task}", [task]) for task in TASKS]
    for archive, task in zip(archives, TASKS):
        score(archive, [task])
    table = archives[0]
    for count in (1, 2):
        table = train(style, f"{style}_after_{count}", TASKS[count: count + 1], TASKS[:count], table)
    score(table, TASKS)
    score(train(style, f"{style}_together", TASKS, steps=len(TASKS) * STEPS), TASKS)
