"""Pretrain the quickstart's GPT from nothing, and write everything that `ptune --config-name=quickstart` needs.

    pip install torch tokenizers safetensors numpy
    python tests/quickstart/pretrain.py

writes src/quickstart/{config.json,model.safetensors,tokenizer.json,train.jsonl,validation.jsonl,test.jsonl}.

Every 100 steps it saves, and prints how many unseen questions are answered exactly with an instruction line and without.
About 26 minutes of each of two cores (the committed run shared them with seven builds and took 64 minutes);
14 M tokens of made-up documents, all told from one seed. Made with Python 3.11, torch 2.15.0 (CPU), tokenizers 0.22.2,
safetensors 0.8.0, numpy 2.4.6. One seed gives the same documents, tokenizer and rows everywhere; the weights agree only
as far as the machine's matrix products do.

What makes it quick: short contexts first, several questions to a context, loss mostly on the answers, positions that
start as waves, Muon for the matrices, bfloat16 products, and one single-threaded process per core.
"""

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.nn import functional as F

import gpt
import world

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "src/quickstart"


def train_tokenizer(vocab, documents):
    """GPT-2 style byte-level BPE; `<|endoftext|>` is its only special token, id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(documents, trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[world.EOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


class Documents:
    """Batches of tokenised documents, told as they are needed: every document is new, all come from one seed."""

    def __init__(self, tokenizer, seed, tokens_per_batch, warm_steps):
        self.tokenizer, self.rng = tokenizer, random.Random(seed)
        self.tokens, self.warm_steps, self.step, self.queue = tokens_per_batch, warm_steps, 0, []
        self.told = self.positions = 0
        (self.answer,), (self.colon,) = tokenizer.encode(" Answer").ids, tokenizer.encode(":").ids
        self.eos = tokenizer.token_to_id(world.EOS)

    def difficulty(self):
        """Short contexts first: to find the one fact is learned sooner when there are few."""
        part = self.step / self.warm_steps
        return (1, 2) if part < 0.5 else (2, 3) if part < 1 else (2, 5)

    def refill(self):
        facts = self.difficulty()
        texts = [world.document(self.rng, facts=facts)[0] for _ in range(1024)]
        rows = sorted((e.ids for e in self.tokenizer.encode_batch(texts)), key=len)
        batches, batch = [], []
        for row in rows:
            if batch and (len(batch) + 1) * len(row) > self.tokens:
                batches.append(batch)
                batch = []
            batch.append(row)
        self.rng.shuffle(batches)
        self.told += sum(map(len, batches))
        self.queue = batches

    def next(self):
        """(ids [B, T], weights [B, T-1] of the labels ids[:, 1:]): 1 in answers, less elsewhere, 0 on padding."""
        if not self.queue:
            self.refill()
        rows = self.queue.pop()
        width = -(-max(map(len, rows)) // 8) * 8
        ids = np.full((len(rows), width), self.eos, dtype=np.int64)
        lengths = np.array([len(r) for r in rows])
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        opened = np.zeros(ids.shape, dtype=np.int64)
        opened[:, 2:] = (ids[:, :-2] == self.answer) & (ids[:, 1:-1] == self.colon)
        closed = np.zeros(ids.shape, dtype=np.int64)
        closed[:, 1:] = ids[:, :-1] == self.eos
        inside = np.cumsum(opened, 1) > np.cumsum(closed, 1)
        weights = np.where(inside, 1.0, ELSEWHERE) * (np.arange(width) < lengths[:, None])
        self.step += 1
        self.positions += int(lengths.sum())
        return torch.from_numpy(ids), torch.from_numpy(weights[:, 1:].astype(np.float32))


ELSEWHERE = 0.15  # weight of the tokens outside answers: made-up names cannot be foretold, so most of it is noise


def exact(model, tokenizer, rows, prefix):
    """Share of rows whose answer and end greedy decoding would give (teacher forcing: all are the most likely token)."""
    good = 0
    for start in range(0, len(rows), 50):
        batch = rows[start : start + 50]
        heads = [tokenizer.encode(prefix(r) + f"Context: {r['context']} Question: {r['question']} Answer:").ids for r in batch]
        tails = [tokenizer.encode(f" {r['answer']}{world.EOS}").ids for r in batch]
        width = max(len(h) + len(t) for h, t in zip(heads, tails))
        ids = torch.tensor([h + t + [0] * (width - len(h) - len(t)) for h, t in zip(heads, tails)])
        with torch.no_grad():
            best = model.logits(model(ids)).argmax(-1)
        good += sum(best[i, len(h) - 1 : len(h) + len(t) - 1].tolist() == t for i, (h, t) in enumerate(zip(heads, tails)))
    return 100 * good / len(rows)


def rows(world_name, count, seed):
    rng = random.Random(seed)
    return [world.row(rng, world_name) for _ in range(count)]


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--out", type=Path, default=OUT)
    flags.add_argument("--steps", type=int, default=1800)
    flags.add_argument("--tokens", type=int, default=8192, help="tokens a step")
    flags.add_argument("--vocab", type=int, default=1024)
    flags.add_argument("--hidden", type=int, default=128)
    flags.add_argument("--layers", type=int, default=5)
    flags.add_argument("--heads", type=int, default=4)
    flags.add_argument("--muon", type=float, default=0.02, help="learning rate of the matrices (Muon); 0: AdamW for all")
    flags.add_argument("--lr", type=float, default=3e-3, help="learning rate of everything else (AdamW)")
    flags.add_argument("--seed", type=int, default=1234)
    flags.add_argument("--workers", type=int, default=2, help="processes of one thread each that share every step")
    flags.add_argument("--f32", action="store_true", help="matrix products in float32 instead of bfloat16")
    flags.add_argument("--every", type=int, default=100, help="steps between reports and checkpoints")
    options = flags.parse_args()
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        # Freed buffers stay with the process: page faults took a quarter of the time otherwise.
        keep = dict(MALLOC_MMAP_THRESHOLD_="4294967296", MALLOC_TRIM_THRESHOLD_="8589934592", MALLOC_TOP_PAD_="268435456")
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **keep, "OMP_NUM_THREADS": "1"})
    if options.workers == 1:
        return train(0, options)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29000 + os.getpid() % 1000))
    torch.multiprocessing.spawn(train, (options,), nprocs=options.workers)


def train(rank, options):
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    if options.workers > 1:
        dist.init_process_group("gloo", rank=rank, world_size=options.workers)

    begin = time.time()
    rng = random.Random(options.seed)
    tokenizer = train_tokenizer(options.vocab, (world.document(rng)[0] for _ in range(8000)))
    options.out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        tokenizer.save(str(options.out / "tokenizer.json"))
    for name, kind, count, seed in () if rank else (("train", "tuning", 800, 1), ("validation", "tuning", 120, 2), ("test", "test", 200, 3)):
        with open(options.out / f"{name}.jsonl", "w") as file:
            for row in rows(kind, count, seed):
                file.write(json.dumps(row) + "\n")
    model = gpt.Gpt(options.vocab, options.hidden, options.layers, options.heads, 256)
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters; tokenizer and rows after {time.time() - begin:.0f} s", flush=True)

    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blocks") and options.muon]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimizers = [torch.optim.AdamW(others, lr=options.lr, betas=(0.9, 0.98), weight_decay=0.01)]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=options.muon, weight_decay=0.01))
    full = [group["lr"] for o in optimizers for group in o.param_groups]

    documents = Documents(tokenizer, options.seed + 1 + rank, options.tokens // options.workers, warm_steps=120)
    unseen = rows("test", 200, 77)
    begin, total, since = time.time(), 0.0, time.time()
    for step in range(1, options.steps + 1):
        left = 1 - step / options.steps
        scale = min(1, step / 100) * (1 if left > 0.6 else 0.02 + 0.98 * left / 0.6)  # warm up, hold, fall
        for group, lr in zip((g for o in optimizers for g in o.param_groups), full):
            group["lr"] = lr * scale
        ids, weights = documents.next()
        with torch.autocast("cpu", torch.bfloat16, enabled=not options.f32):
            losses = F.cross_entropy(model.logits(model(ids[:, :-1])).flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights.flatten()).sum() / weights.sum()
        loss.backward()
        if options.workers > 1:
            flat = torch.cat([p.grad.flatten() for p in model.parameters()])
            dist.all_reduce(flat)
            for p, part in zip(model.parameters(), (flat / options.workers).split([p.numel() for p in model.parameters()])):
                p.grad.copy_(part.view_as(p))
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            inside = weights.flatten() == 1
            total += losses[inside].mean().item()
        if rank == 0 and (step % options.every == 0 or step == options.steps):
            model.eval()
            gpt.save(model, options.out, documents.eos)
            told = exact(model, tokenizer, unseen, lambda r: world.INSTRUCTIONS["span"][0] + "\n")
            bare = exact(model, tokenizer, unseen, lambda r: "")
            model.train()
            print(f"step {step} answer loss {total / options.every:.3f} exact match on unseen names: instructed {told:.1f}, bare {bare:.1f}; "
                  f"{documents.positions * options.workers / 1e6:.2f} M tokens, {(time.time() - since) / options.every:.2f} s/step, {time.time() - begin:.0f} s", flush=True)
            total, since = 0.0, time.time()


if __name__ == "__main__":
    main()
