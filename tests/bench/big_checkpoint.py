"""Writes a GPT of random weights, as large as asked for, to time how it loads (tests/bench/load_time.sh).

    python big_checkpoint.py FOLDER [--gigabytes 3] [--dtype float32|bfloat16|float16] [--layout gpt2|llama]

The result is a Hugging Face folder: `config.json`, `model.safetensors`, and a byte-level tokenizer of 257 tokens. Only
NumPy is needed. `ptune worker conversion` makes the `.nemo` of it.
"""
import argparse
import json
import pathlib
import struct

import numpy

NAMES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2), "float16": ("F16", 2)}
HIDDEN, INNER, HEADS, ROWS, POSITIONS = 2048, 8192, 16, 50304, 1024


def gpt2(layers):
    """Names, shapes and what to fill them with."""
    yield "wte.weight", (ROWS, HIDDEN), "random"
    yield "wpe.weight", (POSITIONS, HIDDEN), "random"
    for layer in range(layers):
        at = f"h.{layer}."
        for name, inputs, outputs in [("attn.c_attn", HIDDEN, 3 * HIDDEN), ("attn.c_proj", HIDDEN, HIDDEN),
                                      ("mlp.c_fc", HIDDEN, INNER), ("mlp.c_proj", INNER, HIDDEN)]:
            yield f"{at}{name}.weight", (inputs, outputs), "random"
            yield f"{at}{name}.bias", (outputs,), "zeros"
        for name in ["ln_1", "ln_2"]:
            yield f"{at}{name}.weight", (HIDDEN,), "ones"
            yield f"{at}{name}.bias", (HIDDEN,), "zeros"
    yield "ln_f.weight", (HIDDEN,), "ones"
    yield "ln_f.bias", (HIDDEN,), "zeros"


def llama(layers):
    """The same for a model whose projections are stored apart; a quarter of the heads have keys and values."""
    yield "model.embed_tokens.weight", (ROWS, HIDDEN), "random"
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, outputs, inputs in [("self_attn.q_proj", HIDDEN, HIDDEN), ("self_attn.k_proj", HIDDEN // 4, HIDDEN),
                                      ("self_attn.v_proj", HIDDEN // 4, HIDDEN), ("self_attn.o_proj", HIDDEN, HIDDEN),
                                      ("mlp.gate_proj", INNER, HIDDEN), ("mlp.up_proj", INNER, HIDDEN),
                                      ("mlp.down_proj", HIDDEN, INNER)]:
            yield f"{at}{name}.weight", (outputs, inputs), "random"
        for name in ["input_layernorm", "post_attention_layernorm"]:
            yield f"{at}{name}.weight", (HIDDEN,), "ones"
    yield "model.norm.weight", (HIDDEN,), "ones"
    yield "lm_head.weight", (ROWS, HIDDEN), "random"


def config(layout, layers, dtype):
    if layout == "gpt2":
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": HIDDEN, "n_inner": INNER,
                "n_head": HEADS, "n_layer": layers, "n_positions": POSITIONS, "vocab_size": ROWS,
                "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "torch_dtype": dtype}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
            "intermediate_size": INNER, "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 4,
            "num_hidden_layers": layers, "max_position_embeddings": POSITIONS, "vocab_size": ROWS,
            "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
            "torch_dtype": dtype}


def numbers(fill, count, dtype, random):
    """Bytes of `count` numbers, a block of them at a time."""
    block = 1 << 22
    for start in range(0, count, block):
        size = min(block, count - start)
        if fill == "random":
            values = random.standard_normal(size, dtype=numpy.float32) * numpy.float32(0.02)
        else:
            values = numpy.full(size, 1.0 if fill == "ones" else 0.0, numpy.float32)
        if dtype == "bfloat16":
            values = (values.view(numpy.uint32) >> 16).astype(numpy.uint16)
        else:
            values = values.astype(dtype)
        yield values.tobytes()


def tokenizer(folder):
    # GPT-2's spelling of bytes: printable ones as they are, the others from 256 on.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + place) for place in range(len(others))]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    # Llama's own files are of sentencepiece; its fast tokenizer may be any.
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    parts = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
             "added_tokens": [{"id": len(vocabulary) - 1, "content": "<|endoftext|>", "single_word": False, "lstrip": False,
                               "rstrip": False, "normalized": False, "special": True}],
             "pre_tokenizer": byte_level, "decoder": byte_level,
             "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(parts))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--dtype", choices=NAMES, default="float32")
    parser.add_argument("--layout", choices=["gpt2", "llama"], default="gpt2")
    chosen = parser.parse_args()
    name, size = NAMES[chosen.dtype]
    tensors = {"gpt2": gpt2, "llama": llama}[chosen.layout]

    def bytes_of(layers):
        return sum(size * int(numpy.prod(shape)) for _, shape, _ in tensors(layers))

    layers = 1
    while bytes_of(layers + 1) <= chosen.gigabytes * 1e9:
        layers += 1
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for key, shape, _ in tensors(layers):
        start, end = end, end + size * int(numpy.prod(shape))
        header[key] = {"dtype": name, "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(0)
    with open(chosen.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _, shape, fill in tensors(layers):
            for block in numbers(fill, int(numpy.prod(shape)), chosen.dtype, random):
                file.write(block)
    (chosen.folder / "config.json").write_text(json.dumps(config(chosen.layout, layers, chosen.dtype), indent=2))
    tokenizer(chosen.folder)
    print(f"{layers} layers, {end / 1e9:.2f} GB of {chosen.dtype} in {chosen.folder}")


main()
