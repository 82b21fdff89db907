"""What transformers writes on the tiny models of tests/golden/fixtures: `python make.py > transformers.json`.

Eager attention, since others leave `scale_attn_by_inverse_layer_idx` out.

Made with transformers 4.57.6 and torch 2.15 (CPU, f32). Each case: a model folder, prompts of different lengths, the
settings of `generate`, and the ids written, without the prompt and from the end token on cut. `end` is a token that the
model likes, so that rows end at different steps. `distributions`: probabilities after temperature, top-k and top-p for
numbers that stand in the file.
"""

import json
import pathlib
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.generation.logits_process import (
    LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

FIXTURES = pathlib.Path(__file__).parents[2] / "golden" / "fixtures"
MODELS = ["gpt2_gelu_scaled_by_layer", "gpt_neox_parallel", "qwen2", "t5_gated_silu", "mt5_far_distances"]
SETTINGS = [
    {},
    {"repetition_penalty": 1.3},
    {"min_new_tokens": 5},
    {"num_beams": 4},
    {"num_beams": 4, "length_penalty": 2.0},
    {"num_beams": 4, "length_penalty": -1.0, "early_stopping": True},
    {"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never", "repetition_penalty": 1.3},
]
NEW = 10


def main():
    transformers.logging.set_verbosity_error()
    torch.manual_seed(3)
    cases = []
    for name in MODELS:
        is_t5 = "t5" in name
        auto = AutoModelForSeq2SeqLM if is_t5 else AutoModelForCausalLM
        model = auto.from_pretrained(FIXTURES / name, dtype=torch.float32, attn_implementation="eager").eval()
        vocabulary = model.config.vocab_size
        prompts = [torch.randint(3, vocabulary, (length,)).tolist() for length in (5, 1, 8, 3)]
        width = max(map(len, prompts))
        pad = lambda row: [0] * (width - len(row))
        if is_t5:
            ids = torch.tensor([row + pad(row) for row in prompts])
            mask = torch.tensor([[1] * len(row) + pad(row) for row in prompts])
        else:
            ids = torch.tensor([pad(row) + row for row in prompts])
            mask = torch.tensor([pad(row) + [1] * len(row) for row in prompts])
        run = lambda **settings: model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0,
            **({"decoder_start_token_id": 0} if is_t5 else {}), **settings)
        start = 1 if is_t5 else width
        free = run(eos_token_id=vocabulary - 1, num_beams=4)[:, start:]
        counts = torch.bincount(free.flatten(), minlength=vocabulary)
        counts[0] = 0
        end = int(counts.argmax())
        for settings in SETTINGS:
            written = []
            # Row by row: the padding of a batch must not matter, and for beams the end of one row's search is its own.
            for row in prompts:
                one = torch.tensor([row])
                # A GPT's penalty counts the prompt, as ours does.
                out = model.generate(
                    input_ids=one, attention_mask=torch.ones_like(one), max_new_tokens=NEW, do_sample=False,
                    pad_token_id=0, eos_token_id=end, **({"decoder_start_token_id": 0} if is_t5 else {}), **settings)
                out = out[0, 1 if is_t5 else len(row):].tolist()
                written.append(out[:out.index(end)] if end in out else out)
            cases.append({"model": name, "prompts": prompts, "end": end, "new": NEW, "settings": settings,
                          "written": written})
    distributions = []
    for temperature, top_k, top_p in [(1.0, 0, 0.9), (0.7, 5, 1.0), (1.5, 8, 0.8), (0.3, 0, 0.5), (2.0, 3, 0.99), (1.0, 1, 0.9)]:
        logits = (torch.randn(1, 24) * 3)
        used = torch.tensor([[1, 5, 5, 7]])
        steps = [RepetitionPenaltyLogitsProcessor(1.2), TemperatureLogitsWarper(temperature)]
        if top_k:
            steps.append(TopKLogitsWarper(top_k))
        if top_p < 1:
            steps.append(TopPLogitsWarper(top_p))
        scores = LogitsProcessorList(steps)(used, logits.clone())
        distributions.append({"temperature": temperature, "top_k": top_k, "top_p": top_p, "used": used[0].tolist(),
                              "penalty": 1.2, "logits": logits[0].tolist(),
                              "probabilities": torch.softmax(scores, -1)[0].tolist()})
    json.dump({"cases": cases, "distributions": distributions}, sys.stdout)
    print()


main()
