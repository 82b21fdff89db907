"""Ten steps of prompt learning by a PyTorch program of its own: `python make.py [CASE…]`, torch 2.15.0, transformers
4.57.6, CPU; cases that are not named stay as they are.

It follows the published behaviour of NeMo's prompt learning (generation A; `embedding` as generation B has it) and knows
nothing of ptune: rows of `rows.jsonl` through the templates, virtual tokens into the input embeddings, the mean over
micro-batches of each one's mean loss, clipping of the norm, AdamW over one group, cosine annealing with warm-up. All of it
in f64 on the tiny models of ../fixtures (which only lend their weights: `gpt2` and `t5` here hold a tokenizer of single
characters and the config that goes with it).

Written: for every encoder `start_<encoder>.nemo` (first prompts and first parameters, f32) and `cases.json`, each case a
job's settings, and what the ten steps must give: loss, learning rate, norm of the gradient, final prompts.
"""

import io
import json
import math
import pathlib
import sys
import tarfile

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, GPT2LMHeadModel, T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
HIDDEN = 20
STEPS = 10
GLOBAL_BATCH = 6
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789:?. "
WEIGHTS = {"gpt2": "gpt2_long_rows", "t5": "t5_gated_silu"}
SPECIAL = {"gpt2": ["<|endoftext|>"], "t5": ["<pad>", "</s>", "<unk>"]}

TASKS = ["alpha", "be"]
TEMPLATES = {
    "alpha": dict(prompt_template="<|VIRTUAL_PROMPT_0|>{question} to<|VIRTUAL_PROMPT_1|>{answer}",
                  answer_only_loss=True),
    "be": dict(prompt_template="q: {question}<|VIRTUAL_PROMPT_0|>says {answer}", answer_only_loss=False),
}
COSINE = dict(name="CosineAnnealing", warmup_steps=3, constant_steps=0, min_lr=0.001)
FLAT_END = dict(name="CosineAnnealing", warmup_steps=2, constant_steps=3, min_lr=0.0005)


def optim(lr, weight_decay, sched, betas=(0.9, 0.98)):
    return dict(name="fused_adam", lr=lr, weight_decay=weight_decay, betas=list(betas), sched=sched)


# Encoder (None: prompt tuning), its keys, rows of a micro-batch, limit of the norm, optimizer.
CASES = {
    "prompt_tuning": (None, {}, 2, 0.3, optim(0.02, 0.01, COSINE)),
    "prompt_tuning_without_clipping": (None, {}, 6, 0.0, optim(0.05, 0.1, FLAT_END, (0.8, 0.99))),
    "mlp": ("mlp", dict(encoder_hidden=24, num_layers=3), 3, 1.0, optim(0.005, 0.0, COSINE)),
    "tpmlp": ("tpmlp", dict(encoder_hidden=18, init_std=0.2), 2, 0.5, optim(0.01, 0.05, COSINE)),
    "lstm": ("lstm", dict(encoder_hidden=7, num_layers=2), 3, 0.2, optim(0.01, 0.01, FLAT_END)),
    "biglstm": ("biglstm", dict(encoder_hidden=10, num_layers=2), 2, 0.2, optim(0.01, 0.01, COSINE)),
    "embedding": ("embedding", {}, 3, 0.4, optim(0.02, 0.02, COSINE)),
}

# Where a start of another number is less at the mercy of rounding.
SEEDS = {"mlp": 21}


# -- data -----------------------------------------------------------------------------------------------------------------

def vocabulary(kind):
    return SPECIAL[kind] + [("\u0120" if character == " " else character) for character in CHARACTERS]


def encode(kind, text):
    ids = {token: index for index, token in enumerate(vocabulary(kind))}
    return [ids["\u0120" if character == " " else character] for character in text]


def write_tokenizer(kind):
    folder = HERE / kind
    folder.mkdir(exist_ok=True)
    tokens = vocabulary(kind)
    added = [dict(id=index, content=token, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for index, token in enumerate(SPECIAL[kind])]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer = dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None,
                     pre_tokenizer=byte_level, post_processor=None, decoder=byte_level,
                     model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None,
                                end_of_word_suffix=None, fuse_unk=False, byte_fallback=False,
                                vocab={token: index for index, token in enumerate(tokens)}, merges=[]))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer) + "\n")
    names = dict(eos_token="<|endoftext|>") if kind == "gpt2" else dict(eos_token="</s>", pad_token="<pad>",
                                                                       unk_token="<unk>")
    (folder / "tokenizer_config.json").write_text(json.dumps(names) + "\n")
    config = json.loads((HERE.parent / "fixtures" / WEIGHTS[kind] / "config.json").read_text())
    if kind == "gpt2":
        config |= dict(bos_token_id=0, eos_token_id=0)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def write_rows():
    words = ["one", "two", "three", "four", "a long way home", "x", "seven 7"]
    rows = [dict(taskname=TASKS[0 if index % 3 else 1], question=f"{words[index % 7]} {index}?",
                 answer=words[(3 * index + 1) % 6]) for index in range(14)]
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def pieces(kind, task, row, splits):
    """The row as token ids and numbers of virtual tokens as (None, number), and how many ids the answer has."""
    text = TEMPLATES[task]["prompt_template"]
    answer = row["answer"]
    text = text.replace("{question}", row["question"]).replace("{answer}", "" if kind == "t5" else answer)
    text = text.strip(" ")
    ids, virtual = [], 0
    for index, split in enumerate(splits):
        before, text = text.split(f"<|VIRTUAL_PROMPT_{index}|>")
        ids += encode(kind, before)
        ids += [("virtual", virtual + place) for place in range(split)]
        virtual += split
    ids += encode(kind, text)
    blank = " " if " {answer}" in TEMPLATES[task]["prompt_template"] else ""
    return ids, len(encode(kind, blank + answer))


# -- encoders -------------------------------------------------------------------------------------------------------------

class Encoder(nn.Module):
    def __init__(self, kind, virtual_tokens, encoder_hidden=None, num_layers=2, init_std=None):
        super().__init__()
        self.kind = kind
        width = encoder_hidden if kind == "biglstm" else HIDDEN
        self.embedding = nn.Embedding(virtual_tokens, width)
        if kind == "mlp":
            layers = [nn.Linear(HIDDEN, encoder_hidden), nn.ReLU()]
            for _ in range(num_layers - 2):
                layers += [nn.Linear(encoder_hidden, encoder_hidden), nn.ReLU()]
            self.mlp_head = nn.Sequential(*layers, nn.Linear(encoder_hidden, HIDDEN))
        elif kind == "tpmlp":
            self.first = nn.Linear(HIDDEN, encoder_hidden)
            self.second = nn.Linear(encoder_hidden, HIDDEN)
            for linear in (self.first, self.second):
                nn.init.normal_(linear.weight, std=init_std)
                nn.init.zeros_(linear.bias)
        elif kind in ("lstm", "biglstm"):
            units = encoder_hidden if kind == "lstm" else encoder_hidden // 2
            self.lstm_head = nn.LSTM(width, units, num_layers, bidirectional=True, batch_first=True)
            self.mlp_head = nn.Sequential(nn.Linear(2 * units, 2 * units), nn.ReLU(), nn.Linear(2 * units, HIDDEN))
        elif kind == "embedding":
            nn.init.xavier_normal_(self.embedding.weight)

    def forward(self, name):
        x = self.embedding.weight
        if self.kind == "embedding":
            return x
        if self.kind == "biglstm":
            name = name @ self.mlp_head[-1].weight
        x = torch.cat([name[: len(x)], x[len(name):]])
        if self.kind == "tpmlp":
            return self.second(nn.functional.gelu(self.first(x), approximate="tanh"))
        if self.kind in ("lstm", "biglstm"):
            x = self.lstm_head(x[None])[0][0]
        return self.mlp_head(x)


def write_start(kind, tables, encoder):
    weights = {"prompt_table": {}}
    for task, rows in tables.items():
        weights["prompt_table"][f"prompt_table.{task}.prompt_embeddings.weight"] = rows.clone()
        weights["prompt_table"][f"prompt_table.{task}.indices"] = torch.arange(len(rows))
    if encoder is not None:
        weights["prompt_encoder"] = {name: value.detach().float().clone() for name, value in encoder.state_dict().items()}
        weights["prompt_encoder"]["indices"] = torch.arange(len(encoder.embedding.weight))
    stored = io.BytesIO()
    torch.save(weights, stored)
    with tarfile.open(HERE / f"start_{kind}.nemo", "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [("./model_config.yaml", b"virtual_prompt_style: inference\n"),
                           ("./model_weights.ckpt", stored.getvalue())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# -- training -------------------------------------------------------------------------------------------------------------

def learning_rate(settings, step):
    lr, sched = settings["lr"], settings["sched"]
    warm, flat, low = sched["warmup_steps"], sched["constant_steps"], sched["min_lr"]
    cosine = lambda done, total: low + (lr - low) * 0.5 * (1 + math.cos(math.pi * done / total))
    if flat == 0:
        return lr * (step + 1) / (warm + 1) if step <= warm else cosine(step - warm, STEPS - warm)
    down = STEPS - flat - warm
    if step <= warm:
        return lr * step / warm
    return cosine(step - warm, down) if step <= warm + down else low


def load_model(kind, dtype):
    folder = HERE.parent / "fixtures" / WEIGHTS[kind]
    config = AutoConfig.from_pretrained(HERE / kind)
    config._attn_implementation = "eager"
    model = (GPT2LMHeadModel if kind == "gpt2" else T5ForConditionalGeneration)(config)
    weights = load_file(folder / "model.safetensors")
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("weight" in name for name in missing), (missing, unexpected)
    model.tie_weights()
    return model.to(dtype).eval().requires_grad_(False)


def micro_batch_loss(kind, model, rows, splits, prompts):
    table = model.get_input_embeddings().weight
    read, wrote, labels = [], [], []
    for row in rows:
        task = row["taskname"]
        ids, answer = pieces(kind, task, row, splits[task])
        end = 0 if kind == "gpt2" else 1
        ids = ids + [end]
        if kind == "gpt2":
            first = len(ids) - answer - 1 if TEMPLATES[task]["answer_only_loss"] else 0
            labels.append([id if at >= first and not isinstance(id, tuple) else -100 for at, id in enumerate(ids)][1:])
            ids = ids[:-1]
        else:
            target = encode(kind, row["answer"]) + [end]
            labels.append(target)
            wrote.append([0] + target[:-1])
        read.append(torch.stack([prompts[task][id[1]] if isinstance(id, tuple) else table[id] for id in ids]))
    longest = max(map(len, read))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in read])
    embedded = torch.stack([torch.cat([row, table.new_zeros(longest - len(row), HIDDEN)]) for row in read])
    longest = max(map(len, labels))
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in labels])
    if kind == "gpt2":
        logits = model(inputs_embeds=embedded, attention_mask=mask).logits
    else:
        wrote = torch.tensor([row + [0] * (longest - len(row)) for row in wrote])
        logits = model(inputs_embeds=embedded, attention_mask=mask, decoder_input_ids=wrote).logits
    loss_mask = (labels != -100).double()
    losses = nn.functional.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")
    return (losses * loss_mask).sum() / loss_mask.sum()


def train(kind, name, rows, splits, tables, encoder, dtype):
    encoder_kind, keys, micro, clip, settings = CASES[name]
    model = load_model(kind, dtype)
    table = model.get_input_embeddings().weight
    if encoder is None:
        trained = {task: nn.Parameter(rows.to(dtype, copy=True)) for task, rows in tables.items()}
        prompts = lambda: trained
        parameters = list(trained.values())
    else:
        names = {task: table[encode(kind, task)] for task in TASKS}
        prompts = lambda: {task: encoder(names[task]) for task in TASKS}
        parameters = list(encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=settings["betas"], eps=1e-8,
                                  weight_decay=settings["weight_decay"])
    steps, batches = [], len(rows) // GLOBAL_BATCH
    for step in range(STEPS):
        start = (step % batches) * GLOBAL_BATCH
        batch = rows[start: start + GLOBAL_BATCH]
        micro_batches = [batch[at: at + micro] for at in range(0, GLOBAL_BATCH, micro)]
        optimizer.zero_grad()
        loss = 0.0
        for one in micro_batches:
            part = micro_batch_loss(kind, model, one, splits, prompts()) / len(micro_batches)
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip if clip > 0 else math.inf)
        lr = learning_rate(settings, step)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        steps.append(dict(loss=loss, lr=lr, grad_norm=float(norm)))
    final = {task: [[float(f"{number:.8g}") for number in row] for row in prompts()[task].tolist()] for task in TASKS}
    return steps, final


def main():
    rows = write_rows()
    known = json.loads((HERE / "cases.json").read_text()) if sys.argv[1:] else []
    cases = []
    for kind in WEIGHTS:
        write_tokenizer(kind)
    for number, (name, (encoder_kind, keys, micro, clip, settings)) in enumerate(CASES.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            cases += [case for case in known if case["name"].endswith(f" {name}")]
            continue
        torch.manual_seed(SEEDS.get(name, number))
        virtual = dict(alpha=5, be=3) if encoder_kind is None else dict(alpha=6, be=6)
        splits = dict(alpha=[2, virtual["alpha"] - 2], be=[virtual["be"]])
        tables = {task: 0.5 * torch.randn(count, HIDDEN) for task, count in virtual.items()}
        make = lambda: Encoder(encoder_kind, 6, **keys)
        first = None if encoder_kind is None else make()
        write_start(name, tables, first)
        for kind in WEIGHTS:
            def run(dtype):
                encoder = None
                if first is not None:
                    encoder = make()
                    encoder.load_state_dict(first.state_dict())
                    encoder = encoder.to(dtype)
                return train(kind, name, rows, splits, tables, encoder, dtype)

            steps, final = run(torch.float64)
            # What rounding alone makes of it: Adam divides small gradients by themselves.
            rounded = max(abs(one["grad_norm"] / exact["grad_norm"] - 1)
                          for one, exact in zip(run(torch.float32)[0], steps))
            templates = [dict(taskname=task, **TEMPLATES[task], total_virtual_tokens=virtual[task],
                              virtual_token_splits=splits[task], answer_field="answer", truncate_field=None)
                         for task in TASKS]
            start = f"start_{name}.nemo"
            model = dict(
                virtual_prompt_style="prompt-tuning" if first is None else "p-tuning", new_tasks=TASKS,
                existing_tasks=[], restore_path=start, global_batch_size=GLOBAL_BATCH, micro_batch_size=micro,
                task_templates=templates, optim=settings,
                data=dict(train_ds=["rows.jsonl"], shuffle=False, add_eos=True, decoder_starts_with_pad=True,
                          add_eos_to_decoder_output=True, add_sentinel_to_input=False))
            if first is None:
                model["prompt_tuning"] = dict(new_prompt_init_methods=["task", "task"], new_prompt_init_task=TASKS)
            else:
                model["p_tuning"] = dict(encoder_type=encoder_kind, **keys)
            job = dict(trainer=dict(max_steps=STEPS, gradient_clip_val=clip), model=model)
            cases.append(dict(name=f"{kind} {name}", model=kind, weights=WEIGHTS[kind], job=job, steps=steps,
                              prompts=final))
            print(cases[-1]["name"], steps[0], steps[-1], f"PyTorch's own f32: gradient norm {rounded:.1e}", flush=True)
    (HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


main()
