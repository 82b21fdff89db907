"""ptune and PEFT in turn on the same rows: tokens a second, peak memory, efficiency. See tests/bench/README.md.

    python3 -m venv venv && venv/bin/pip install torch transformers peft safetensors tokenizers
    venv/bin/python tests/bench/peft_pair.py target/release/ptune --squad xquad.en.json --t5 T5_FOLDER [--only gpt,t5,generation,start]

Every measurement is a process of its own, so that its memory is its own: this file calls itself for PEFT's side.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

BATCH, WARM_UP = 8, 2
TEMPLATES = {
    "gpt": ("Context: {context} Question: {question} Answer:", 10),
    "t5": (" Question: {question}? Context: {context} Answer: ", 100),
}


# -- PEFT's side ------------------------------------------------------------------------------------------------------


def load_peft(folder, dtype):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    torch.manual_seed(1)
    torch.set_num_threads(os.cpu_count())
    config = AutoConfig.from_pretrained(folder)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype={"32": torch.float32, "bf16": torch.bfloat16}[dtype])
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    return torch, model, tokenizer, config


def peft_train(arguments):
    """Steps over the rows in the order of the file; prints one JSON line a step."""
    torch, model, tokenizer, config = load_peft(arguments.folder, arguments.dtype)
    from peft import PromptEncoderConfig, get_peft_model

    is_t5 = config.is_encoder_decoder
    template, virtual = TEMPLATES["t5" if is_t5 else "gpt"]
    model = get_peft_model(
        model,
        PromptEncoderConfig(
            task_type="SEQ_2_SEQ_LM" if is_t5 else "CAUSAL_LM",
            num_virtual_tokens=virtual,
            num_transformer_submodules=1,
            encoder_hidden_size=2048,
        ),
    )
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)
    rows = [json.loads(line) for line in open(arguments.rows)]
    eos = config.eos_token_id
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    for step in range(WARM_UP + arguments.steps):
        inputs, labels = [], []
        for row in rows[step * BATCH : (step + 1) * BATCH]:
            prompt = encode(template.format(**row))
            answer = encode(row["answer"] if is_t5 else " " + row["answer"]) + [eos]
            inputs.append(prompt + ([eos] if is_t5 else answer))
            labels.append(answer if is_t5 else [-100] * len(prompt) + answer)
        pad = lambda lists, filler: torch.tensor([x + [filler] * (max(map(len, lists)) - len(x)) for x in lists])
        tokens = sum(len(x) + virtual for x in inputs) + (sum(map(len, labels)) if is_t5 else 0)
        started = time.perf_counter()
        loss = model(
            input_ids=pad(inputs, 0), attention_mask=pad([[1] * len(x) for x in inputs], 0), labels=pad(labels, -100)
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = loss.item()
        print(json.dumps({"seconds": time.perf_counter() - started, "tokens": tokens, "loss": loss, "at": time.time()}), flush=True)


def peft_generate(arguments):
    """Answers of the adapter that ptune exported, in batches of 16 as ptune's evaluation takes them."""
    torch, model, tokenizer, config = load_peft(arguments.folder, arguments.dtype)
    from peft import PeftModel

    template, virtual = TEMPLATES["t5" if config.is_encoder_decoder else "gpt"]
    model = PeftModel.from_pretrained(model, arguments.adapter).eval()
    rows = [json.loads(line) for line in open(arguments.rows)]
    answers, tokens, seconds = [], 0, 0.0
    for first in range(0, len(rows), 16):
        ids = [tokenizer(template.format(**row).rstrip(), add_special_tokens=False)["input_ids"] + [config.eos_token_id]
               for row in rows[first : first + 16]]
        longest = max(map(len, ids))
        mask = torch.tensor([[1] * len(x) + [0] * (longest - len(x)) for x in ids])
        ids = torch.tensor([x + [0] * (longest - len(x)) for x in ids])
        started = time.perf_counter()
        with torch.no_grad():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24, do_sample=False, num_beams=1)
        seconds += time.perf_counter() - started
        tokens += int((out[:, 1:] != 0).sum())
        answers += [text.strip() for text in tokenizer.batch_decode(out, skip_special_tokens=True)]
    print(json.dumps({"seconds": seconds, "tokens": tokens, "answers": answers}))


def gemm_peak(_):
    """The machine's f32 matrix product, GFLOP/s: the best of a second of MKL's."""
    import torch

    torch.set_num_threads(os.cpu_count())
    left, right = torch.randn(512, 768), torch.randn(768, 3072)
    best, until = 1e9, time.perf_counter() + 1.0
    while time.perf_counter() < until:
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    print(2 * 512 * 768 * 3072 / best / 1e9)


# -- both sides -------------------------------------------------------------------------------------------------------


# A process of its own between this one and the measured one: on Linux a child's largest resident set begins with its parent's,
# and this one holds PyTorch.
MEASURE = """
import json, os, subprocess, sys, time
started, started_at = time.perf_counter(), time.time()
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump([time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9, started_at], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(command, log):
    """Runs a command; its output, seconds and largest resident memory in GB (its children's too), and when it began."""
    numbers = Path(f"{log}.numbers")
    with open(log, "w") as errors:
        words = [sys.executable, "-S", "-c", MEASURE, str(numbers), *command]
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout}\n{Path(log).read_text()[-3000:]}")
    return done.stdout, *json.loads(numbers.read_text())


def this_file(role, *words):
    return [sys.executable, __file__, "--role", role, *map(str, words)]


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.work = Path(arguments.work).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.places = ["cluster_type=interactive", f"data_dir={self.work}/data", f"base_results_dir={self.work}/results"]
        self.rows = self.work / "data/prompt_data/v1.1"
        self.peaks = []

    def prepare(self):
        arguments = self.arguments
        if not (self.rows / "squad_train.jsonl").exists():
            run([arguments.ptune, *self.places, "stages=[data_preparation]", "data_preparation=squad/prepare_xquad",
                 f"data_preparation.train_file={Path(arguments.squad).resolve()}"], self.work / "data.log")
        rows = (self.rows / "squad_train.jsonl").read_text().splitlines()
        random.Random(1234).shuffle(rows)
        self.train = self.work / "train.jsonl"
        self.train.write_text("\n".join(rows[: BATCH * (WARM_UP + arguments.steps)]) + "\n")
        self.models = {"t5": Path(arguments.t5).resolve()} if arguments.t5 else {}
        self.models["gpt"] = self.gpt2(rows)
        for name in list(self.models):
            self.models[name + "-bf16"] = self.in_bf16(name)

    def gpt2(self, rows):
        """GPT-2's 124 M shape with random weights, and byte-level BPE learned from the rows (GPT-2's own is not needed)."""
        folder = self.work / "gpt2_124m"
        if not (folder / "model.safetensors").exists():
            import torch
            from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
            from transformers import GPT2Config, GPT2LMHeadModel

            folder.mkdir(exist_ok=True)
            tokenizer = Tokenizer(models.BPE())
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            tokenizer.decoder = decoders.ByteLevel()
            tokenizer.train_from_iterator(rows, trainers.BpeTrainer(
                vocab_size=8000, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
            tokenizer.save(str(folder / "tokenizer.json"))
            (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}))
            torch.manual_seed(0)
            end = tokenizer.token_to_id("<|endoftext|>")
            GPT2LMHeadModel(GPT2Config(bos_token_id=end, eos_token_id=end)).save_pretrained(folder)
        return folder

    def in_bf16(self, name):
        """The same model with its weights stored in bf16."""
        folder = self.work / f"{name}_bf16"
        if not (folder / "model.safetensors").exists():
            import shutil

            import torch
            from safetensors.torch import load_file, save_file

            shutil.copytree(self.models[name], folder, dirs_exist_ok=True)
            tensors = load_file(self.models[name] / "model.safetensors")
            save_file({k: v.to(torch.bfloat16) for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        return folder

    def peak(self):
        output, *_ = run(this_file("peak"), self.work / "peak.log")
        self.peaks.append(float(output))
        return float(output)

    def ptune_train(self, name, precision, steps=None):
        """Seconds and tokens of each step."""
        kind = "gpt" if name.startswith("gpt") else "t5"
        results = self.work / f"results/{name}_{precision}"
        subprocess.run(["rm", "-rf", str(results)], check=True)
        word = "prompt_learning."
        steps = steps or WARM_UP + self.arguments.steps
        _, wall, memory, started_at = run(
            [self.arguments.ptune, *self.places, "stages=[prompt_learning]", f"prompt_learning={'gpt3' if kind == 'gpt' else 't5'}/squad",
             f"{word}run.results_dir={results}", f"{word}model.language_model_path={self.models[name]}",
             f"{word}trainer.devices=1", f"{word}trainer.accelerator=cpu", f"{word}trainer.precision={precision}",
             f"{word}trainer.max_steps={steps}", f"{word}trainer.log_every_n_steps=1",
             f"{word}model.optim.sched.warmup_steps=0", f"{word}model.optim.sched.constant_steps=0",
             f"{word}model.global_batch_size={BATCH}", f"{word}model.micro_batch_size={BATCH}", f"{word}model.data.shuffle=False",
             f"{word}model.data.train_ds=[{self.train}]", f"{word}model.data.validation_ds=[]", *self.arguments.words],
            self.work / f"{name}_{precision}.log")
        steps = [json.loads(line) for line in (results / "results/metrics.jsonl").read_text().splitlines()]
        steps = [{"seconds": s["step_seconds"], "tokens": s["tokens"], "loss": s["loss"]} for s in steps if "loss" in s]
        return steps, memory, wall

    def peft_train(self, name, dtype):
        output, wall, memory, started_at = run(
            this_file("train", "--folder", self.models[name], "--rows", self.train, "--dtype", dtype, "--steps", self.arguments.steps),
            self.work / f"peft_{name}_{dtype}.log")
        steps = [json.loads(line) for line in output.splitlines()]
        return steps, memory, steps[0]["at"] - started_at

    def pair(self, name):
        peaks = [self.peak()]
        theirs, their_memory, _ = self.peft_train(name, "32")
        speed = lambda steps: statistics.median(s["tokens"] / s["seconds"] for s in steps[WARM_UP:])
        print(f"\n{name}: PEFT f32 {speed(theirs):.0f} tokens/s, {their_memory:.2f} GB, losses {theirs[0]['loss']:.3f} … {theirs[-1]['loss']:.3f}")
        for precision in ("32", "bf16"):
            peaks.append(self.peak())
            ours, memory, _ = self.ptune_train(name + ("-bf16" if precision == "bf16" else ""), precision)
            peaks.append(self.peak())
            flop = [necessary_flop(self.models[name], self.train, step) for step in range(WARM_UP, WARM_UP + self.arguments.steps)]
            efficiency = statistics.median(f / s["seconds"] for f, s in zip(flop, ours[WARM_UP:])) / 1e9
            assert all(abs(a["tokens"] - b["tokens"]) <= 3 * BATCH for a, b in zip(ours, theirs)), (ours, theirs)
            print(f"{name}: ptune {precision:4} {speed(ours):.0f} tokens/s = {speed(ours) / speed(theirs):.2f} x, "
                  f"{memory:.2f} GB = 1/{their_memory / memory:.1f}, {efficiency:.0f} GFLOP/s = "
                  f"{100 * efficiency / statistics.median(peaks[-2:]):.0f} % of the f32 product's {statistics.median(peaks[-2:]):.0f}, "
                  f"losses {ours[0]['loss']:.3f} … {ours[-1]['loss']:.3f}", flush=True)

    def generation(self):
        results, kind = self.work / "results/t5_32", "t5"
        if not (results / "results/megatron_t5_prompt.nemo").exists():
            self.ptune_train(kind, "32")
        archive = results / "results/megatron_t5_prompt.nemo"
        adapter = self.work / "adapter"
        subprocess.run(["rm", "-rf", str(adapter)], check=True)
        run([self.arguments.ptune, "export", "--to", "peft", "--output", str(adapter), str(archive)], self.work / "export.log")
        output, their_wall, their_memory, _ = run(
            this_file("generate", "--folder", self.models[kind], "--rows", self.rows / "squad_test.jsonl", "--adapter", adapter),
            self.work / "peft_generate.log")
        theirs = json.loads(output)
        for precision in ("32", "bf16"):
            evaluation = self.work / f"results/evaluation_{precision}"
            subprocess.run(["rm", "-rf", str(evaluation)], check=True)
            model = self.models[kind if precision == "32" else kind + "-bf16"]
            word = "evaluation."
            _, wall, memory, _ = run(
                [self.arguments.ptune, *self.places, "stages=[evaluation]", "evaluation=prompt_t5/squad",
                 f"{word}run.model_train_name=t5", f"{word}run.results_dir={evaluation}", f"{word}language_model_path={model}",
                 f"{word}virtual_prompt_model_file={archive}", f"{word}trainer.accelerator=cpu", f"{word}trainer.precision={precision}",
                 f"{word}inference.tokens_to_generate=24", f"{word}inference.greedy=True"], self.work / "evaluation.log")
            metrics = json.loads((evaluation / "results/metrics.json").read_text())
            predictions = [json.loads(line) for line in (evaluation / "results/predictions.jsonl").read_text().splitlines()]
            texts = [str(p.get("prediction", p.get("answer", ""))).strip() for p in predictions]
            same = sum(a == b for a, b in zip(texts, theirs["answers"]))
            print(f"generation, ptune {precision}: {metrics['seconds']:.2f} s against {theirs['seconds']:.2f} s = {theirs['seconds'] / metrics['seconds']:.2f} x "
                  f"(commands {wall:.1f} s and {their_wall:.1f} s), {memory:.2f} GB against {their_memory:.2f} = 1/{their_memory / memory:.1f}, "
                  f"EM {metrics['exact_match']:.1f} F1 {metrics['f1']:.1f}, {same} of {len(texts)} answers alike", flush=True)

    def start(self):
        """Seconds from the command to the end of the first optimizer step: the command does that step and ends."""
        _, _, first = self.peft_train("t5", "32")
        for precision in ("32", "bf16"):
            runs = [self.ptune_train("t5" if precision == "32" else "t5-bf16", precision, steps=1) for _ in range(5)]
            wall, step = (statistics.median(values) for values in zip(*((wall, steps[0]["seconds"]) for steps, _, wall in runs)))
            print(f"first step of the T5: ptune {precision:4} {wall:.2f} s (whole command of one step, median of 5; {step:.2f} s of it in the "
                  f"step), PEFT f32 {first:.1f} s", flush=True)


def necessary_flop(folder, rows_file, step):
    """Of one step: each weight of the layers twice per token forward and backward, attention, the head where there is a loss."""
    from tokenizers import Tokenizer

    config = json.loads((Path(folder) / "config.json").read_text())
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    # Some files ask for rows to be cut, which neither side does.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = [json.loads(line) for line in open(rows_file)][step * BATCH : (step + 1) * BATCH]
    encode = lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
    total = 0.0
    for row in rows:
        if "n_embd" in config:
            template, virtual = TEMPLATES["gpt"]
            hidden, layers = config["n_embd"], config["n_layer"]
            losses = encode(row["answer"]) + 1
            tokens = encode(template.format(**row)) + losses + virtual
            weights = 12 * hidden * hidden
            # Of the last layer only keys and values are needed everywhere, the rest where there is a loss.
            total += 4 * weights * ((layers - 1) * tokens + losses) + 4 * 2 * hidden * hidden * tokens
            total += 6 * hidden * tokens * tokens * layers
            total += 4 * losses * hidden * config["vocab_size"]
        else:
            template, virtual = TEMPLATES["t5"]
            hidden, inner, wide = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
            losses, tokens = encode(row["answer"]) + 1, encode(template.format(**row)) + 1 + virtual
            layer = 4 * hidden * inner + (3 if config.get("is_gated_act") else 2) * hidden * wide
            total += config["num_layers"] * (4 * layer * tokens + 12 * inner * tokens * tokens)
            # Keys and values of the encoder's output, or its product with queries times the key weight, whichever is less.
            projected = 8 * hidden * inner * tokens
            absorbed = 12 * losses * config["num_heads"] * hidden * tokens + 8 * losses * hidden * inner
            total += config["num_decoder_layers"] * (min(projected, absorbed) + 4 * losses * (layer + 2 * hidden * inner))
            total += 4 * losses * hidden * config["vocab_size"]
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptune", nargs="?", help="the program, of a release build")
    parser.add_argument("--squad", help="xquad.en.json")
    parser.add_argument("--t5", help="Hugging Face folder of a T5")
    parser.add_argument("--work", default="target/peft-pair", help="where models, rows and results go")
    parser.add_argument("--only", default="gpt,t5,generation,start")
    parser.add_argument("--steps", type=int, default=5, help="measured steps after two of warm-up")
    parser.add_argument("--words", nargs="*", default=[], help="further words for ptune's training")
    for name in ("role", "folder", "rows", "dtype", "adapter"):
        parser.add_argument(f"--{name}", default="32" if name == "dtype" else None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    roles = {"train": peft_train, "generate": peft_generate, "peak": gemm_peak}
    if arguments.role:
        roles[arguments.role](arguments)
        return
    arguments.ptune = str(Path(arguments.ptune).resolve())
    bench = Bench(arguments)
    bench.prepare()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, f32 matrix product {bench.peak():.0f} GFLOP/s", flush=True)
    for what in arguments.only.split(","):
        {"gpt": lambda: bench.pair("gpt"), "t5": lambda: bench.pair("t5"), "generation": bench.generation, "start": bench.start}[what]()


if __name__ == "__main__":
    main()
