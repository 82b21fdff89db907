"""Adapters exchanged with real PEFT: a development tool, not part of `cargo test`.

    python -m venv venv && venv/bin/pip install torch transformers peft safetensors sentencepiece
    venv/bin/python tests/peft/compare.py PTUNE MODEL_FOLDER PROMPT.nemo [--rows N]

PTUNE is the binary, MODEL_FOLDER the Hugging Face folder of the frozen model, PROMPT.nemo an archive of ptune tuned over it whose
template begins with its virtual tokens. Checked:

1. `ptune export --to peft`, loaded by PeftModel.from_pretrained, gives the logits that transformers gives for the virtual tokens
   of the archive in front of the text's word embeddings (read here from the archive by torch.load), within 1e-4.
2. PEFT's greedy answers for rows are those that ptune's evaluation wrote.
3. An adapter trained here by PEFT for a few steps, taken over by `ptune import`, gives the same answers in ptune as in PEFT.
"""

import argparse
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import torch
import yaml
from peft import PeftModel, PromptTuningConfig, PromptTuningInit, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast


def load(folder):
    config = AutoConfig.from_pretrained(folder)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
    return model, tokenizer, config.is_encoder_decoder


def read_archive(path):
    with tarfile.open(path) as tar:
        config = yaml.safe_load(tar.extractfile("./model_config.yaml"))
        weights = torch.load(io.BytesIO(tar.extractfile("./model_weights.ckpt").read()), weights_only=True)
    table = weights["prompt_table"]
    task = config["existing_tasks"][0]
    template = next(t for t in config["task_templates"] if t["taskname"] == task)
    return task, template, table[f"prompt_table.{task}.prompt_embeddings.weight"], config


def text_of(template, row):
    """The row as text behind the virtual tokens, without the answer."""
    text = template["prompt_template"].removeprefix("<|VIRTUAL_PROMPT_0|>")
    for field, value in row.items():
        if field != template["answer_field"] and isinstance(value, str):
            text = text.replace("{" + field + "}", value)
    return text.replace("{" + template["answer_field"] + "}", "").rstrip()


def ids_of(tokenizer, text, is_t5):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return torch.tensor([ids + ([tokenizer.eos_token_id] if is_t5 else [])])


def answers(peft, tokenizer, template, rows, is_t5, new_tokens):
    eos = peft.config.eos_token_id if peft.config.eos_token_id is not None else tokenizer.eos_token_id
    found = []
    for row in rows:
        ids = ids_of(tokenizer, text_of(template, row), is_t5)
        with torch.no_grad():
            out = peft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens,
                                do_sample=False, num_beams=1, pad_token_id=eos, eos_token_id=eos)
        new = out[0] if is_t5 else out[0][ids.shape[1]:] if out.shape[1] > ids.shape[1] else out[0]
        found.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    return found


def ptune_answers(ptune, folder, archive, template, rows_file, is_t5, new_tokens, work):
    out = Path(work) / f"eval_{Path(archive).stem}"
    words = ["stages=[evaluation]", "cluster_type=interactive", f"evaluation.run.results_dir={out}", f"base_results_dir={work}",
             f"data_dir={work}", "evaluation.trainer.accelerator=cpu", f"evaluation.inference.tokens_to_generate={new_tokens}"]
    if is_t5:
        words += ["evaluation=prompt_t5/squad", f"evaluation.language_model_path={folder}", "evaluation.trainer.devices=1",
                  f"evaluation.virtual_prompt_model_file={archive}", f"evaluation.data.test_ds=[{rows_file}]",
                  "evaluation.ground_truth_file_path=null"]
    else:
        words += ["evaluation=prompt_gpt3/squad", f"evaluation.model.language_model_path={folder}",
                  f"evaluation.model.nemo_model={archive}", f"evaluation.model.prompt_dataset_paths={rows_file}",
                  "evaluation.model.ground_truth_file_path=null"]
    done = subprocess.run([ptune, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    predictions = next(out.rglob("predictions.jsonl"))
    return [json.loads(line)["prediction"].strip() for line in predictions.read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ptune")
    parser.add_argument("model")
    parser.add_argument("archive")
    parser.add_argument("--rows-file", required=True)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--new-tokens", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    task, template, table, _ = read_archive(args.archive)
    rows = [json.loads(line) for line in open(args.rows_file)][: args.rows]
    with tempfile.TemporaryDirectory() as work:
        rows_file = Path(work) / "rows.jsonl"
        rows_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        adapter = Path(work) / "adapter"
        subprocess.run([args.ptune, "export", args.archive, "--to", "peft", "-o", adapter, "--verify"], check=True,
                       stdout=subprocess.DEVNULL)

        model, tokenizer, is_t5 = load(args.model)
        worst = 0.0
        with torch.no_grad():
            wanted = []
            for row in rows:
                ids = ids_of(tokenizer, text_of(template, row), is_t5)
                embeds = torch.cat([table[None], model.get_input_embeddings()(ids)], 1)
                extra = {"decoder_input_ids": torch.zeros((1, 3), dtype=torch.long)} if is_t5 else {}
                wanted.append(model(inputs_embeds=embeds, **extra).logits)
            peft = PeftModel.from_pretrained(model, adapter).eval()
            for row, want in zip(rows, wanted):
                ids = ids_of(tokenizer, text_of(template, row), is_t5)
                extra = {"decoder_input_ids": torch.zeros((1, 3), dtype=torch.long)} if is_t5 else {}
                got = peft(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits
                worst = max(worst, ((got - want).abs().max() / want.abs().max()).item())
        print(f"logits through PEFT: largest difference {worst:.1e} of the largest logit, {len(rows)} rows")
        assert worst < 1e-4, worst

        theirs = answers(peft, tokenizer, template, rows, is_t5, args.new_tokens)
        ours = ptune_answers(args.ptune, args.model, args.archive, template, rows_file, is_t5, args.new_tokens, work)
        different = [(a, b) for a, b in zip(theirs, ours) if a != b]
        print(f"answers of ptune's prompt: {len(rows) - len(different)} of {len(rows)} equal", different[:3])

        model, tokenizer, is_t5 = load(args.model)
        kind = "SEQ_2_SEQ_LM" if is_t5 else "CAUSAL_LM"
        peft = get_peft_model(model, PromptTuningConfig(task_type=kind, num_virtual_tokens=7, prompt_tuning_init=PromptTuningInit.RANDOM))
        optimizer = torch.optim.AdamW([p for p in peft.parameters() if p.requires_grad], lr=0.1)
        for step in range(20):
            row = rows[step % len(rows)]
            ids = ids_of(tokenizer, text_of(template, row), is_t5)
            answer = row.get(template["answer_field"]) or ""
            target = tokenizer(answer, add_special_tokens=False)["input_ids"] or [0]
            if is_t5:
                loss = peft(input_ids=ids, labels=torch.tensor([target + [tokenizer.eos_token_id]])).loss
            else:
                both = torch.cat([ids, torch.tensor([target])], 1)
                labels = both.clone()
                labels[:, : ids.shape[1]] = -100
                loss = peft(input_ids=both, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        peft.eval()
        trained = Path(work) / "trained"
        peft.save_pretrained(trained)
        imported = Path(work) / "imported.nemo"
        subprocess.run([args.ptune, "import", trained, "-o", imported, "--task", task, "--template", template["prompt_template"],
                        "--answer-field", template["answer_field"], "--language-model-path", args.model], check=True,
                       stdout=subprocess.DEVNULL)
        theirs = answers(peft, tokenizer, template, rows, is_t5, args.new_tokens)
        ours = ptune_answers(args.ptune, args.model, imported, template, rows_file, is_t5, args.new_tokens, work)
        different = [(a, b) for a, b in zip(theirs, ours) if a != b]
        print(f"answers of PEFT's prompt: {len(rows) - len(different)} of {len(rows)} equal", different[:3])


if __name__ == "__main__":
    main()
