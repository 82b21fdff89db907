"""Virtual tokens exchanged with real PEFT, and every exported form read back by somebody else. See tests/peft/README.md.

    venv/bin/python tests/peft/compare.py target/release/ptune [--model T5_FOLDER --rows-file ROWS.jsonl]

Everything is made on the spot (tests/peft/models.py); --model adds a real one. A failed comparison ends the run with status 1.
"""

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy
import torch
import yaml
from peft import (MultitaskPromptTuningConfig, PeftModel, PromptEncoderConfig, PromptTuningConfig, PromptTuningInit,
                  get_peft_model)
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

from models import tiny

TOLERANCE = 1e-4
TASK = "squad"
REPOSITORY = Path(__file__).parents[2]


# -- both programs, one model -----------------------------------------------------------------------------------------


class Model:
    """A frozen model's folder with its rows, and both programs over it."""

    def __init__(self, ptune, folder, rows, work, text, new_tokens, steps):
        self.ptune_binary, self.folder, self.rows, self.work = ptune, Path(folder), rows, Path(work)
        self.text, self.new_tokens, self.steps = text, new_tokens, steps
        self.config = AutoConfig.from_pretrained(folder)
        self.is_t5 = self.config.is_encoder_decoder
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(self.folder / "tokenizer.json"))
        self.template = f"<|VIRTUAL_PROMPT_0|>{text} {{answer}}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows_file = self.work / "rows.jsonl"
        self.rows_file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def ptune(self, *words, status=0):
        """Runs a command and returns what it wrote."""
        done = subprocess.run([self.ptune_binary, *map(str, words)], capture_output=True, text=True, cwd=self.work)
        if done.returncode != status:
            raise SystemExit(f"ptune {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout if status == 0 else done.stderr

    def load(self):
        kind = AutoModelForSeq2SeqLM if self.is_t5 else AutoModelForCausalLM
        return kind.from_pretrained(self.folder, dtype=torch.float32).eval()

    def prompt_ids(self, row):
        ids = self.tokenizer(self.text.format(**row).rstrip(), add_special_tokens=False)["input_ids"]
        return ids + ([self.config.eos_token_id] if self.is_t5 else [])

    def answer_ids(self, row):
        blank = "" if self.is_t5 else " "
        return self.tokenizer(blank + row["answer"], add_special_tokens=False)["input_ids"] + [self.config.eos_token_id]

    def batch(self, rows):
        """Padded on the right, with labels."""
        inputs, labels = [], []
        for row in rows:
            prompt, answer = self.prompt_ids(row), self.answer_ids(row)
            inputs.append(prompt if self.is_t5 else prompt + answer)
            labels.append(answer if self.is_t5 else [-100] * len(prompt) + answer)
        pad = lambda lists, filler: torch.tensor([x + [filler] * (max(map(len, lists)) - len(x)) for x in lists])
        return {"input_ids": pad(inputs, 0), "attention_mask": pad([[1] * len(x) for x in inputs], 0),
                "labels": pad(labels, -100)}

    def tune(self, name, style, *words):
        """A short tuning by ptune; its archive."""
        family = "t5" if self.is_t5 else "gpt3"
        section, results = "prompt_learning.model", self.work / name
        template = (f"[{{taskname: {TASK}, prompt_template: '{self.template}', total_virtual_tokens: 6, "
                    "virtual_token_splits: [6], truncate_field: context, answer_field: answer, answer_only_loss: True}]")
        self.ptune("stages=[prompt_learning]", f"prompt_learning={family}/squad", "cluster_type=interactive",
                   f"data_dir={self.work}", f"base_results_dir={results}", f"prompt_learning.run.results_dir={results}",
                   f"{section}.language_model_path={self.folder}", f"{section}.virtual_prompt_style={style}",
                   f"{section}.nemo_path={results}/prompt.nemo", f"{section}.task_templates={template}",
                   f"{section}.data.train_ds=[{self.rows_file}]", f"{section}.data.validation_ds=[]",
                   f"{section}.global_batch_size=4", f"{section}.micro_batch_size=4", "prompt_learning.trainer.devices=1",
                   "prompt_learning.trainer.accelerator=cpu", "prompt_learning.trainer.precision=32",
                   f"prompt_learning.trainer.max_steps={self.steps}", f"{section}.optim.sched.warmup_steps=1",
                   f"{section}.optim.sched.constant_steps=0", *words)
        return results / "prompt.nemo"

    def generated(self, prompts, *words):
        """Answers of `ptune generate` with their log-probabilities."""
        lines = self.ptune("generate", prompts, "--model", self.folder, "--input", self.rows_file, "--json", "--logprob",
                           "--max-tokens", self.new_tokens, "--device", "cpu", *words)
        found = [json.loads(line) for line in lines.splitlines()]
        return [row["prediction"].strip() for row in found], [row["log_probability"] for row in found]

    def evaluated(self, archive):
        """Answers of the evaluation stage, which works in batches."""
        out = self.work / f"evaluation_{archive.stem}"
        words = ["stages=[evaluation]", "cluster_type=interactive", f"evaluation.run.results_dir={out}",
                 f"base_results_dir={self.work}", f"data_dir={self.work}", "evaluation.trainer.accelerator=cpu",
                 f"evaluation.inference.tokens_to_generate={self.new_tokens}"]
        if self.is_t5:
            words += ["evaluation=prompt_t5/squad", f"evaluation.language_model_path={self.folder}",
                      "evaluation.trainer.devices=1", "evaluation.trainer.precision=32",
                      f"evaluation.virtual_prompt_model_file={archive}", f"evaluation.data.test_ds=[{self.rows_file}]",
                      "evaluation.ground_truth_file_path=null"]
        else:
            words += ["evaluation=prompt_gpt3/squad", f"evaluation.model.language_model_path={self.folder}",
                      "evaluation.model.precision=32", f"evaluation.model.nemo_model={archive}",
                      f"evaluation.model.prompt_dataset_paths={self.rows_file}", "evaluation.model.ground_truth_file_path=null"]
        self.ptune(*words)
        lines = next(out.rglob("predictions.jsonl")).read_text().splitlines()
        return [json.loads(line)["prediction"].strip() for line in lines]

    def peft_answers(self, peft, extra):
        """PEFT's greedy answers with their log-probabilities, row by row."""
        texts, sums = [], []
        end = self.config.eos_token_id
        for row in self.rows:
            ids = torch.tensor([self.prompt_ids(row)])
            with torch.no_grad():
                out = peft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.new_tokens,
                                    do_sample=False, num_beams=1, pad_token_id=end, eos_token_id=end,
                                    return_dict_in_generate=True, output_logits=True, **extra)
            new = out.sequences[0][-len(out.logits):].tolist()
            steps = [logits[0].log_softmax(-1)[token].item() for logits, token in zip(out.logits, new)]
            texts.append(self.tokenizer.decode([token for token in new if token != end], skip_special_tokens=True).strip())
            sums.append(sum(steps))
        return texts, sums


# -- what is compared -------------------------------------------------------------------------------------------------


def say(model, what, text):
    print(f"{model.folder.name:>8}  {what:<34}{text}", flush=True)


def read_nemo(path, task=TASK):
    """The archive as NeMo's own classes find it: names, types and shapes are asserted; the task's rows [V, H]."""
    with tarfile.open(path) as tar:
        config = yaml.safe_load(tar.extractfile("./model_config.yaml"))
        weights = torch.load(io.BytesIO(tar.extractfile("./model_weights.ckpt").read()), weights_only=True)
    assert list(weights) == ["prompt_table"], list(weights)
    table = weights["prompt_table"]
    tasks = config["existing_tasks"]
    names = [f"prompt_table.{name}.{part}" for name in tasks for part in ("indices", "prompt_embeddings.weight")]
    assert sorted(table) == sorted(names), (sorted(table), names)
    by_task = {template["taskname"]: template for template in config["task_templates"]}
    for name in tasks:
        rows, indices = table[f"prompt_table.{name}.prompt_embeddings.weight"], table[f"prompt_table.{name}.indices"]
        assert rows.dtype == torch.float32 and rows.shape[0] == by_task[name]["total_virtual_tokens"], rows.shape
        assert indices.dtype == torch.int64 and indices.tolist() == list(range(len(rows)))
    assert config["virtual_prompt_style"] == "inference" and config["new_tasks"] == [], config["virtual_prompt_style"]
    assert config["target"].startswith("nemo.collections.nlp.models.language_modeling.megatron_"), config["target"]
    return table[f"prompt_table.{task}.prompt_embeddings.weight"]


def load_adapter(model, adapter):
    """PEFT's reading of an adapter folder; what it would warn of is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return PeftModel.from_pretrained(model.load(), adapter).eval()


def write_golden(model, peft, rows, place, extra):
    """PEFT's logits, loss and gradient of the virtual tokens, for tests/golden to compare with ptune's on `rows`."""
    place.mkdir(parents=True)
    for file in model.folder.iterdir():
        (place / file.name).symlink_to(file.resolve())
    kept, original = [], peft.get_prompt

    def keep(*words, **named):
        prompt = original(*words, **named)
        prompt = prompt if prompt.requires_grad else prompt.requires_grad_()
        prompt.retain_grad()
        kept.append(prompt)
        return prompt

    peft.get_prompt = keep
    batch = model.batch(model.rows[:3])
    out = peft(**batch, **extra(len(batch["input_ids"])))
    out.loss.backward()
    peft.get_prompt = original
    gradient = kept[0].grad.sum(0)[: len(rows)]
    assert out.loss.item() > 0.1, "the labels reach the loss"
    save_file({"virtual_prompt": rows.contiguous(), "logits": out.logits.detach().contiguous(), "loss": out.loss.detach()[None],
               "grad_virtual_prompt": gradient.contiguous(), **batch}, place / "golden.safetensors")


def same_answers(model, what, theirs, *ours):
    """Texts of the two programs, and log-probabilities where both have them."""
    texts, sums = theirs
    for number, found in enumerate(ours):
        found_texts, found_sums = found if isinstance(found, tuple) else (found, None)
        different = [pair for pair in zip(texts, found_texts) if pair[0] != pair[1]]
        assert len(texts) == len(found_texts) and not different, (what, number, len(different), different[:3])
        if found_sums:
            worst = max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(sums, found_sums))
            assert worst < TOLERANCE, (what, worst)
    distinct = len(set(texts))
    say(model, what, f"{len(texts)} of {len(texts)} answers equal ({distinct} different ones), log-probabilities {worst:.0e}")


def from_ptune(model, style, words, golden):
    """Tuned by ptune, used by PEFT."""
    archive = model.tune(f"ptune-{style}", style.split(".")[0], *words)
    rows = read_nemo(archive)
    adapter = model.work / f"adapter-{style}"
    model.ptune("export", archive, "--to", "peft", "-o", adapter, "--verify")
    peft = load_adapter(model, adapter)
    held = peft.prompt_encoder["default"].embedding.weight
    assert torch.equal(held.detach(), rows), "PEFT holds the archive's rows"
    write_golden(model, peft, rows, golden / f"{model.folder.name}-ptune-{style}", lambda _: {})
    answers = model.peft_answers(peft, {})
    same_answers(model, f"tuned by ptune, {style}", answers, model.generated(archive), model.evaluated(archive),
                 model.generated(adapter, "--task", TASK, "--template", model.template))
    return archive, rows


def peft_configs(model, style):
    kind = "SEQ_2_SEQ_LM" if model.is_t5 else "CAUSAL_LM"
    common = {"task_type": kind, "num_virtual_tokens": 5}
    return {
        "PROMPT_TUNING": PromptTuningConfig(prompt_tuning_init=PromptTuningInit.RANDOM, **common),
        "P_TUNING-MLP": PromptEncoderConfig(encoder_hidden_size=24, **common),
        "P_TUNING-LSTM": PromptEncoderConfig(encoder_reparameterization_type="LSTM", encoder_hidden_size=24,
                                             encoder_num_layers=1, **common),
        "MULTITASK": MultitaskPromptTuningConfig(num_tasks=2, num_ranks=1, **common),
    }[style]


def from_peft(model, style, golden):
    """Trained by PEFT, used by ptune."""
    torch.manual_seed(11)
    task_number = 1 if style == "MULTITASK" else 0
    extra = (lambda count: {"task_ids": torch.full((count,), task_number)}) if style == "MULTITASK" else (lambda _: {})
    peft = get_peft_model(model.load(), peft_configs(model, style))
    optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=0.05)
    for step in range(model.steps):
        rows = [model.rows[(2 * step + one) % len(model.rows)] for one in range(2)]
        loss = peft(**model.batch(rows), **extra(2)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapter = model.work / f"trained-{style}"
    peft.save_pretrained(adapter)
    peft = PeftModel.from_pretrained(model.load(), adapter).eval()

    archive = model.work / f"imported-{style}.nemo"
    model.ptune("import", adapter, "-o", archive, "--task", TASK, "--template", model.template, "--language-model-path",
                model.folder)
    if style == "MULTITASK":
        tasks = ["squad", "squad_1"]
        rows = read_nemo(archive, tasks[task_number])
        one = model.work / "imported-one.nemo"
        model.ptune("prompt", "remove", archive, tasks[1 - task_number], "-o", one)
        model.ptune("prompt", "rename", one, tasks[task_number], TASK)
        archive = one
    else:
        rows = read_nemo(archive)
        stored = load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"]
        assert torch.equal(stored[: len(rows)], rows), "the archive holds the adapter's rows"
    write_golden(model, peft, rows, golden / f"{model.folder.name}-peft-{style}", extra)
    ours = [model.generated(archive), model.evaluated(archive)]
    if style != "MULTITASK":
        ours.append(model.generated(adapter, "--task", TASK, "--template", model.template))
    same_answers(model, f"trained by PEFT, {style}", model.peft_answers(peft, extra(1)), *ours)


def exports(model, archive, rows):
    """Each form read by NumPy, torch or safetensors; what a form cannot hold is refused, and nothing is written."""
    out = model.work / "exports"
    out.mkdir()
    model.ptune("export", archive, "--to", "npy", "-o", out / "t5x.npy")
    found = numpy.load(out / "t5x.npy", allow_pickle=False)
    assert found.dtype == numpy.dtype("<f4") and found.flags.c_contiguous and numpy.array_equal(found, rows.numpy())

    for name, dtype in [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16)]:
        model.ptune("export", archive, "--to", "prompt-embeds", "-o", out / f"{name}.pt", "--dtype", name)
        found = torch.load(out / f"{name}.pt", weights_only=True)
        assert found.dtype == dtype and torch.equal(found, rows.to(dtype)), name
        model.ptune("export", archive, "--to", "peft", "-o", out / name, "--dtype", name)
        found = load_file(out / name / "adapter_model.safetensors")
        assert list(found) == ["prompt_embeddings"] and torch.equal(found["prompt_embeddings"], rows.to(dtype)), name
    # A request to vLLM: rows and word embeddings in one tensor, in base64.
    words = model.load().get_input_embeddings()(torch.tensor(model.prompt_ids(model.rows[0]))).detach()
    request = io.BytesIO()
    torch.save(torch.cat([torch.load(out / "f32.pt", weights_only=True), words]), request)
    sent = torch.load(io.BytesIO(base64.b64decode(base64.b64encode(request.getvalue()))), weights_only=True)
    assert torch.equal(sent[: len(rows)], rows)

    # TensorRT-LLM: a second, longer task whose tokens stand in two places of its text.
    longer = torch.arange(9 * rows.shape[1], dtype=torch.float32).reshape(9, -1) / 100
    numpy.save(out / "longer.npy", longer.numpy())
    kind = "t5" if model.is_t5 else "gpt"
    model.ptune("import", out / "longer.npy", "-o", out / "longer.nemo", "--task", "longer", "--architecture", kind,
                "--template", "<|VIRTUAL_PROMPT_0|>{question} {answer}", "--language-model-path", model.folder)
    split(out / "longer.nemo")
    model.ptune("prompt", "merge", archive, out / "longer.nemo", "-o", out / "both.nemo")
    model.ptune("export", out / "both.nemo", "--to", "trt-llm", "-o", out / "table.npy")
    table, names = numpy.load(out / "table.npy", allow_pickle=False), json.loads((out / "table.json").read_text())
    assert table.shape == (2, 9, rows.shape[1]) and table.dtype == numpy.dtype("<f4")
    assert numpy.array_equal(table[names["tasks"][TASK]["task_id"]][: len(rows)], rows.numpy())
    assert not table[0, len(rows):].any() and numpy.array_equal(table[1], longer.numpy())
    assert names["task_vocab_size"] == 9 and names["max_prompt_embedding_table_size"] == 18
    assert names["tasks"]["longer"]["virtual_token_splits"] == [4, 5]

    # NeMo 1.17 and later: one task, and the encoder `embedding` that gives its rows; from there back to a table.
    for task, expected in [(TASK, rows), ("longer", longer)]:
        model.ptune("export", out / "both.nemo", "--to", "nemo-b", "-o", out / "b.nemo", "--task", task, "--verify")
        with tarfile.open(out / "b.nemo") as tar:
            weights = torch.load(io.BytesIO(tar.extractfile("./model_weights.ckpt").read()), weights_only=True)
        table = weights["prompt_table"]
        assert list(weights) == ["prompt_table", "embeddings"] and list(weights["embeddings"]) == ["weight"]
        assert list(table) == [f"prompt_table.{task}.prompt_embeddings.weight"], list(table)
        assert torch.equal(table[f"prompt_table.{task}.prompt_embeddings.weight"], expected)
        assert torch.equal(weights["embeddings"]["weight"], expected)

    refused = ["nemo-b"]
    said = model.ptune("export", out / "both.nemo", "--to", "nemo-b", "-o", out / "no.nemo", status=2)
    assert "several tasks" in said and not (out / "no.nemo").exists(), said
    for form in ["peft", "npy", "prompt-embeds"]:
        said = model.ptune("export", out / "both.nemo", "--to", form, "-o", out / "no", status=2)
        assert "several tasks" in said, said
        said = model.ptune("export", out / "both.nemo", "--to", form, "-o", out / "no", "--task", "longer", status=2)
        assert "in front of the text" in said, said
        refused += [form, form]
    for form in ["npy", "trt-llm"]:
        said = model.ptune("export", archive, "--to", form, "-o", out / "no", "--dtype", "bf16", status=2)
        assert "f32" in said, said
        refused.append(form)
    assert not (out / "no").exists()
    say(model, "exports", f"npy, prompt-embeds, trt-llm, nemo-b, peft read back equal; {len(refused)} lossy ones refused")


def split(archive):
    """Rewrites an archive's template so that its tokens stand in two places."""
    with tarfile.open(archive) as tar:
        members = [(member, tar.extractfile(member).read() if member.isfile() else None) for member in tar.getmembers()]
    with tarfile.open(archive, "w") as tar:
        for member, content in members:
            if member.name.endswith("model_config.yaml"):
                config = yaml.safe_load(content)
                config["task_templates"][0]["prompt_template"] = "<|VIRTUAL_PROMPT_0|>{question}<|VIRTUAL_PROMPT_1|> {answer}"
                config["task_templates"][0]["virtual_token_splits"] = [4, 5]
                content = yaml.safe_dump(config).encode()
                member.size = len(content)
            tar.addfile(member, None if content is None else io.BytesIO(content))


def logits(golden, cargo):
    """ptune's logits, loss and gradient against PEFT's, by the test that compares every model with its reference."""
    done = subprocess.run([*cargo.split(), "--test", "golden", "logits_loss_and_gradient", "--", "--nocapture"],
                          cwd=REPOSITORY, env={**os.environ, "PTUNE_GOLDEN": str(golden)}, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if "logits" in line and "Fused" in line]
    print("\n".join(f"          {line}" for line in lines))
    if done.returncode or len(lines) != len(list(golden.iterdir())):
        raise SystemExit(done.stdout + done.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptune", type=Path)
    parser.add_argument("--model", type=Path, help="a real model's folder besides the tiny ones, with tokenizer.json")
    parser.add_argument("--rows-file", type=Path, help="its rows: question, context, answer")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--only", default="gpt2,llama,t5", help="which tiny models")
    parser.add_argument("--cargo", default="cargo test --release --locked", help="how tests/golden is run")
    arguments = parser.parse_args()
    ptune = arguments.ptune.resolve()
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        golden = work / "golden"
        golden.mkdir()
        names = ["Oslo", "Rome", "Quito", "Lima", "Bern", "Cairo", "Accra", "Hanoi"]
        rows = [{"taskname": TASK, "context": f"{name} has {7 * number} gates.", "question": f"How many in {name}?",
                 "answer": str(7 * number)} for number, name in enumerate(names)]
        text = "Context: {context} Question: {question} Answer:"
        models = [Model(ptune, tiny(kind, work / kind), rows, work / f"work-{kind}", text, 12, 12)
                  for kind in filter(None, arguments.only.split(","))]
        if arguments.model:
            rows = [json.loads(line) for line in open(arguments.rows_file)][: arguments.rows]
            arguments.model = arguments.model.resolve()
            models.append(Model(ptune, arguments.model, rows, work / "work-real", text, 16, 3))
        for model in models:
            style = ["prompt_learning.model.optim.lr=0.05"]
            archive, table = from_ptune(
                model, "prompt-tuning",
                ["prompt_learning.model.prompt_tuning.new_prompt_init_methods=[vocab]", *style], golden)
            from_peft(model, "PROMPT_TUNING", golden)
            if model.folder == arguments.model:
                continue  # the rest is the same with a real model, and takes long
            from_ptune(model, "p-tuning", ["prompt_learning.model.p_tuning.encoder_type=mlp",
                                           "prompt_learning.model.p_tuning.encoder_hidden=16", *style], golden)
            from_peft(model, "P_TUNING-MLP", golden)
            from_peft(model, "P_TUNING-LSTM", golden)
            exports(model, archive, table)
            if not model.is_t5:
                from_peft(model, "MULTITASK", golden)
        if shutil.which(arguments.cargo.split()[0]):
            logits(golden, arguments.cargo)
        else:
            print("logits are not compared: no cargo here", file=sys.stderr)
    print("everything equal")


if __name__ == "__main__":
    main()
