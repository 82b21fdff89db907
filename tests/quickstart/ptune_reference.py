"""Tune virtual tokens over the quickstart's frozen GPT in plain torch, to know what `ptune --config-name=quickstart` should reach.

    python tests/quickstart/ptune_reference.py [--style p-tuning|prompt-tuning] [--seeds 3] [--steps 150]

prints, for each seed, exact match and loss without and with the virtual tokens on the rows of `test.jsonl` (people and
places that neither pretraining nor `train.jsonl` ever told). p-tuning is the `tpmlp` encoder of NeMo's generation A:
an embedding [V, H] drawn from N(0, 1) whose first rows are overwritten with the frozen word embeddings of the task
name, a linear layer to `encoder_hidden`, tanh-GELU, and a linear layer back; its output is the virtual tokens.
Template `<|VIRTUAL_PROMPT_0|>Context: {context} Question: {question} Answer: {answer}`, loss on the answer and the
end of text only, AdamW (0.9, 0.98), weight decay 0.01, cosine schedule with warm-up, gradients clipped at norm 1.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

import gpt

FOLDER = Path(__file__).resolve().parents[2] / "src/quickstart"


class Encoder(nn.Module):
    """Generation A's `tpmlp` prompt encoder."""

    def __init__(self, virtual, hidden, encoder_hidden, task_name, init_std):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(virtual, hidden))
        self.register_buffer("task_name", task_name[:virtual])
        self.first, self.second = nn.Linear(hidden, encoder_hidden), nn.Linear(encoder_hidden, hidden)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=init_std)
            nn.init.zeros_(layer.bias)

    def forward(self):  # -> [V, H]
        rows = torch.cat([self.task_name, self.embedding[len(self.task_name):]])
        return self.second(F.gelu(self.first(rows), approximate="tanh"))


class Table(nn.Module):
    """Prompt tuning: the virtual tokens themselves, Xavier-normal or from a text's word embeddings."""

    def __init__(self, virtual, hidden, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(virtual, hidden) * math.sqrt(2 / (virtual + hidden)) if rows is None else rows)

    def forward(self):
        return self.rows


def learning_rate(step, steps, peak, warm, constant, least):
    """NeMo's CosineAnnealing: linear warm-up, cosine, then `constant` steps at `least`."""
    if step <= warm:
        return peak * (step + 1) / (warm + 1)
    if step > steps - constant:
        return least
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - constant - warm)))


def read(name):
    return [json.loads(line) for line in open(FOLDER / f"{name}.jsonl")]


def batch_of(tokenizer, rows):
    heads = [tokenizer.encode(f"Context: {r['context']} Question: {r['question']} Answer:").ids for r in rows]
    tails = [tokenizer.encode(f" {r['answer']}").ids + [0] for r in rows]
    width = max(len(h) + len(t) for h, t in zip(heads, tails))
    ids = torch.tensor([h + t + [0] * (width - len(h) - len(t)) for h, t in zip(heads, tails)])
    mask = torch.tensor([[0] * len(h) + [1] * len(t) + [0] * (width - len(h) - len(t)) for h, t in zip(heads, tails)])
    return ids, mask


def losses(model, virtual, ids, mask):
    """(losses of the answers' tokens, per row whether each was the most likely) with `virtual` [V, H] in front."""
    embedded = model.wte(ids)
    embedded = torch.cat([virtual.expand(len(ids), -1, -1), embedded], 1)
    logits = model.logits(model.hidden(embedded[:, :-1]))[:, virtual.shape[0]:]  # predicts ids[:, 1:]
    labels, wanted = ids[:, 1:], mask[:, 1:].bool()
    right = (logits.argmax(-1) == labels) | ~wanted
    return F.cross_entropy(logits[wanted], labels[wanted], reduction="none"), right.all(1)


def score(model, tokenizer, virtual, rows):
    right, loss = 0, []
    with torch.no_grad():
        for start in range(0, len(rows), 40):
            got, good = losses(model, virtual, *batch_of(tokenizer, rows[start : start + 40]))
            loss.append(got)
            right += good.sum().item()
    return 100 * right / len(rows), torch.cat(loss).mean().item()


def main():
    global FOLDER
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--model", type=Path, default=FOLDER)
    flags.add_argument("--style", choices=["p-tuning", "prompt-tuning"], default="p-tuning")
    flags.add_argument("--init-text", help="prompt tuning: start from the word embeddings of this text")
    flags.add_argument("--virtual", type=int, default=10)
    flags.add_argument("--encoder-hidden", type=int, default=256)
    flags.add_argument("--init-std", type=float, default=0.02)
    flags.add_argument("--lr", type=float, default=3e-3)
    flags.add_argument("--steps", type=int, default=150)
    flags.add_argument("--warm", type=int, default=15)
    flags.add_argument("--constant", type=int, default=0)
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--threads", type=int, default=1)
    flags.add_argument("--examples", type=int, default=0, help="print this many rows with what is generated")
    options = flags.parse_args()
    FOLDER = options.model
    torch.set_num_threads(options.threads)
    tokenizer, model = Tokenizer.from_file(str(FOLDER / "tokenizer.json")), gpt.load(FOLDER)
    for p in model.parameters():
        p.requires_grad_(False)
    train, validation, test = read("train"), read("validation"), read("test")
    hidden = model.config["hidden"]
    nothing = torch.zeros(0, hidden)
    print("without virtual tokens: exact match %.1f, loss %.3f" % score(model, tokenizer, nothing, test), flush=True)
    for seed in range(1, options.seeds + 1):
        torch.manual_seed(seed)
        rng = random.Random(seed)
        if options.style == "p-tuning":
            name = model.wte(torch.tensor(tokenizer.encode(train[0]["taskname"]).ids))
            prompt = Encoder(options.virtual, hidden, options.encoder_hidden, name, options.init_std)
        else:
            text = tokenizer.encode(options.init_text).ids if options.init_text else None
            rows = text and model.wte(torch.tensor((text * options.virtual)[: options.virtual])).clone()
            prompt = Table(options.virtual, hidden, rows)
        optimizer = torch.optim.AdamW(prompt.parameters(), lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)
        begin, order, seen = time.time(), [], []
        for step in range(options.steps):
            if len(order) < options.batch:
                order = rng.sample(range(len(train)), len(train))
            rows = [train[order.pop()] for _ in range(options.batch)]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, options.steps, options.lr, options.warm, options.constant, 0.0)
            loss = losses(model, prompt(), *batch_of(tokenizer, rows))[0].mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(prompt.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if (step + 1) % 25 == 0:
                with torch.no_grad():
                    seen.append("%d: %.0f" % (step + 1, score(model, tokenizer, prompt(), validation)[0]))
        with torch.no_grad():
            virtual = prompt()
        print("seed %d, with virtual tokens: exact match %.1f, loss %.3f" % (seed, *score(model, tokenizer, virtual, test)),
              "(%.0f s; validation at step %s)" % (time.time() - begin, ", ".join(seen)), flush=True)
    for row in test[: options.examples]:
        print(f"{row['context']}\n  {row['question']}  [{row['answer']}]")
        for label, vectors in (("without", nothing), ("with", virtual)):
            ids, given = tokenizer.encode(f"Context: {row['context']} Question: {row['question']} Answer:").ids, []
            while len(given) < 24 and 0 not in given:
                embedded = torch.cat([vectors, model.wte(torch.tensor(ids + given))])[None]
                given.append(model.logits(model.hidden(embedded)[0, -1]).argmax().item())
            print(f"    {label}: {tokenizer.decode(given)}")


if __name__ == "__main__":
    main()
