"""A small GPT-2 in plain torch, for the quickstart's recipe: the same architecture, names and numbers as transformers'.

What it is for: `pretrain.py` trains it and `ptune_reference.py` tunes virtual tokens over it, both without transformers.
What it is not: the code of ptune (that is Rust, in `src/model`).
"""

import json
import math
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Pre-norm block; `c_attn` and `c_proj` are stored transposed on disk (Conv1D), see `save`."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(hidden, eps=1e-5)
        self.c_attn = nn.Linear(hidden, 3 * hidden)
        self.c_proj = nn.Linear(hidden, hidden)
        self.ln_2 = nn.LayerNorm(hidden, eps=1e-5)
        self.c_fc = nn.Linear(hidden, 4 * hidden)
        self.mlp_proj = nn.Linear(4 * hidden, hidden)

    def forward(self, x):  # [B, T, H]
        b, t, h = x.shape
        q, k, v = self.c_attn(self.ln_1(x)).view(b, t, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        with torch.autocast("cpu", enabled=False):  # torch's bf16 attention is four times slower than its f32 one
            mixed = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
        x = x + self.c_proj(mixed.transpose(1, 2).reshape(b, t, h))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self, vocab, hidden, layers, heads, positions):
        super().__init__()
        self.config = dict(vocab=vocab, hidden=hidden, layers=layers, heads=heads, positions=positions)
        self.wte = nn.Embedding(vocab, hidden)
        self.wpe = nn.Embedding(positions, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(hidden, eps=1e-5)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 / math.sqrt(2 * layers) if name.endswith("proj.weight") else 0.02
                nn.init.normal_(parameter, std=scale if "blocks" not in name or "proj" in name else hidden ** -0.5)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        # Learned positions that start as waves: a head that looks at the previous token is then a rotation away.
        place = torch.arange(positions)[:, None] * torch.exp(-math.log(2000) * torch.arange(0, hidden, 2) / hidden)
        with torch.no_grad():
            self.wpe.weight.copy_(0.03 * torch.cat([place.sin(), place.cos()], 1))

    def hidden(self, embedded):  # [B, T, H] word embeddings -> [B, T, H]
        x = embedded + self.wpe.weight[: embedded.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.ln_f(x)

    def forward(self, ids):
        return self.hidden(self.wte(ids))

    def logits(self, hidden):
        return hidden @ self.wte.weight.T


ON_DISK = {"c_attn": "attn.c_attn", "c_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "mlp_proj": "mlp.c_proj"}


def save(model, folder, eos, dtype=torch.float16):
    """Write config.json and model.safetensors as transformers' GPT2LMHeadModel names them."""
    from safetensors.torch import save_file

    folder, c, tensors = Path(folder), model.config, {}
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in model.state_dict().items():
        parts = name.split(".")
        if parts[0] == "blocks":
            layer, module, leaf = parts[1:]
            if module in ON_DISK and leaf == "weight":
                value = value.T  # Conv1D: [in, out]
            name = f"h.{layer}.{ON_DISK.get(module, module)}.{leaf}"
        tensors[f"transformer.{name}"] = value.detach().to(dtype).contiguous().clone()
    save_file(tensors, folder / "model.safetensors.new", metadata={"format": "pt"})
    (folder / "model.safetensors.new").replace(folder / "model.safetensors")
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": c["vocab"], "n_positions": c["positions"],
        "n_ctx": c["positions"], "n_embd": c["hidden"], "n_layer": c["layers"], "n_head": c["heads"], "n_inner": None,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.0, "embd_pdrop": 0.0,
        "resid_pdrop": 0.0, "initializer_range": 0.02, "scale_attn_weights": True, "tie_word_embeddings": True,
        "bos_token_id": eos, "eos_token_id": eos, "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(folder):
    """Read back what `save` wrote, in f32."""
    from safetensors.torch import load_file

    folder = Path(folder)
    c = json.loads((folder / "config.json").read_text())
    model = Gpt(c["vocab_size"], c["n_embd"], c["n_layer"], c["n_head"], c["n_positions"])
    tensors, state = load_file(folder / "model.safetensors"), {}
    for name in model.state_dict():
        parts = name.split(".")
        disk = f"transformer.{name}"
        if parts[0] == "blocks":
            disk = f"transformer.h.{parts[1]}.{ON_DISK.get(parts[2], parts[2])}.{parts[3]}"
        value = tensors[disk].float()
        state[name] = value.T.contiguous() if len(parts) == 4 and parts[2] in ON_DISK and parts[3] == "weight" else value
    model.load_state_dict(state)
    return model.eval()
