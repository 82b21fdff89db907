"""Tiny models with random weights, written as Hugging Face folders: a GPT-2, a Llama with grouped queries, a T5.

Their tokenizer has a token for every byte and no merges, so nothing is fetched and every text has ids. Weights are larger
than a fresh model's, so that the virtual tokens change what is written.
"""

import json
from pathlib import Path

import torch
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration)


def bytes_as_characters():
    """The character that GPT-2's byte-level tokenizers write for each byte."""
    following = iter(range(0x100, 0x200))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(byte) if byte in printable else chr(next(following)) for byte in range(256)]


def write_tokenizer(folder, special):
    vocabulary = {token: number for number, token in enumerate([*special, *bytes_as_characters()])}
    added = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for number, token in enumerate(special)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocabulary, "merges": []},
    }))
    return len(vocabulary)


def tiny(kind, folder):
    """Writes the model of that kind into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    torch.manual_seed(5)
    if kind == "gpt2":
        size = write_tokenizer(folder, ["<|endoftext|>"])
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_positions=160, n_embd=32, n_layer=2, n_head=4, bos_token_id=0,
                                           eos_token_id=0))
    elif kind == "llama":
        size = write_tokenizer(folder, ["<unk>", "<s>", "</s>"])
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=160, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False))
    else:
        size = write_tokenizer(folder, ["<pad>", "</s>", "<unk>"])
        model = T5ForConditionalGeneration(T5Config(
            vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4,
            relative_attention_num_buckets=8, relative_attention_max_distance=20, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                weight.normal_(0.0, 0.5 if "relative" in name or "wte" in name else 0.25)
    model.eval().save_pretrained(folder)
    return folder
