"""Writes the checkpoints of this folder with PyTorch (2.15.0), and checks files that ptune wrote.

    python make.py                 # makes *.pt
    python make.py check FILE.pt   # loads it with weights_only=True and prints what it holds, one line a leaf
"""
import collections
import io
import sys

import torch


def leaves(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, torch.Tensor):
        yield f"{name} {str(value.dtype)[6:]} {list(value.shape)} {value.tolist()}"
    else:
        yield f"{name} {value!r}"


def save(name, value, **options):
    torch.save(value, name, **options)


if sys.argv[1:2] == ["check"]:
    print("\n".join(leaves(torch.load(sys.argv[2], weights_only=True))))
    sys.exit()

numbers = torch.arange(-3, 3)
dtypes = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
save("dtypes.pt", {name: numbers.abs().to(getattr(torch, name)) if name == "uint8" else numbers.to(getattr(torch, name))
                   for name in dtypes})

# Views of one storage: whole, transposed, a column, a slice with an offset, expanded, empty, a single number.
base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
save("views.pt", {
    "whole": base, "transposed": base.t(), "column": base[:, 1], "slice": base[1:, 1:3], "expanded": base[0].expand(2, 4),
    "empty": base[:0], "number": base[2, 3],
})

# A module's state dict as a training checkpoint nests it: OrderedDict with metadata, parameters, an optimizer with
# whole-number keys, and the byte buffers that Transformer Engine leaves behind.
torch.manual_seed(1)
module = torch.nn.Linear(2, 3)
extra = io.BytesIO(b"extra")
save("checkpoint.pt", {
    "state_dict": module.state_dict(), "parameter": module.bias, "dtype": torch.bfloat16, "size": torch.Size([2, 3]),
    "optimizer": {"state": {0: {"step": 5, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.98)}]},
    "name": "größe", "big": 1 << 40, "negative": -7, "none": None, "flag": True,
    "tags": {"set", }, "buffer": extra, "raw": b"\x00\xff",
})

# Generation A's prompt table as NeMo nests it.
save("prompt_table.pt", {"prompt_table": collections.OrderedDict([
    ("prompt_table.squad.prompt_embeddings.weight", torch.arange(6, dtype=torch.float32).reshape(3, 2) / 4),
    ("prompt_table.squad.indices", torch.arange(3)),
])})

# Newest pickle protocol, and the format before PyTorch 1.6, which is refused by name.
save("protocol5.pt", {"x": torch.ones(2), "raw": b"\x00\xff", "name": "größe"}, pickle_protocol=5)
save("legacy.pt", {"x": torch.ones(2)}, _use_new_zipfile_serialization=False)
