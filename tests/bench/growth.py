"""How ptune's time and memory grow: with the rows of the data, with the batch, with the model. See tests/bench/README.md.

    venv/bin/python tests/bench/growth.py target/release/ptune --squad xquad.en.json --t5 T5_FOLDER [--only data,batch,large] [--precision bf16]

Each line is the median of `--repeat` runs of the whole command, each in a process of its own; the rows are XQuAD's. Needs NumPy.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path

from peft_pair import Bench

ROWS = 64


class Growth(Bench):
    """Steps of ptune alone, over data of any length."""

    def prepare(self):
        super().prepare()
        rows = [json.loads(line) for line in (self.rows / "squad_train.jsonl").read_text().splitlines()]
        random.Random(1234).shuffle(rows)
        self.texts = rows

    def write(self, count):
        """`count` rows; the first of them are always the same. Further turns through the questions are told apart by a number."""
        self.train = self.work / f"rows_{count}.jsonl"
        with open(self.train, "w") as file:
            for index in range(count):
                turn, place = divmod(index, len(self.texts))
                row = dict(self.texts[place])
                if turn:
                    row["question"] = f"{turn}. {row['question']}"
                file.write(json.dumps(row) + "\n")

    def measure(self, kind, steps, batch):
        """Median over the runs of tokens a second (after two steps of warm-up where there are more than four), and of the peak."""
        words = list(self.arguments.words)
        word = "prompt_learning.model."
        self.arguments.words = [*words, f"{word}global_batch_size={batch}", f"{word}micro_batch_size={batch}",
                                f"{word}save_nemo_on_validation_end=False"]
        speeds, peaks, starts = [], [], []
        precision = self.arguments.precision
        name = kind if kind.endswith("large") or precision == "32" else kind + "-bf16"
        for _ in range(self.arguments.repeat):
            done, memory, wall = self.ptune_train(name, precision, steps)
            # The last batches of an epoch may be smaller: every run takes whole ones only.
            counted = done[2:] if len(done) > 4 else done[1:]
            speeds.append(sum(s["tokens"] for s in counted) / sum(s["seconds"] for s in counted))
            peaks.append(memory)
            starts.append(wall - sum(s["seconds"] for s in done))
        self.arguments.words = words
        middle = statistics.median
        return middle(speeds), middle(peaks), middle(starts), max(s["tokens"] for s in done), done

    def data(self, kind):
        print(f"\n{kind}: batch 8, the same first {ROWS} rows, more rows behind them")
        for count in (64, 256, 1024, 4096):
            self.write(count)
            speed, memory, rest, _, _ = self.measure(kind, ROWS // 8, 8)
            print(f"  {count:5} rows: {speed:6.0f} tokens/s, peak {memory:.2f} GB, {rest:.2f} s besides the steps", flush=True)

    def batch(self, kind):
        print(f"\n{kind}: the same {ROWS} rows in batches of")
        self.write(ROWS)
        points = []
        for batch in (1, 2, 4, 8, 16, 32):
            speed, memory, _, tokens, _ = self.measure(kind, ROWS // batch, batch)
            points.append((tokens, memory * 1e9))
            print(f"  {batch:5}: {speed:6.0f} tokens/s, peak {memory:.2f} GB, {tokens} tokens in the largest", flush=True)
        slope, base, worst = line_through(points)
        print(f"  memory: {base / 1e6:.0f} MB and {slope / 1e3:.1f} kB a token of the micro batch; no point is off by more than "
              f"{100 * worst:.0f} %", flush=True)

    def large(self):
        folder = self.work / "gpt_1.3b"
        if not (folder / "model.safetensors").exists():
            subprocess.run([sys.executable, Path(__file__).with_name("big_checkpoint.py"), str(folder), "--gigabytes", "2.65",
                            "--dtype", "bfloat16"], check=True)
        self.models["gpt-large"] = folder
        self.write(ROWS)
        size = (folder / "model.safetensors").stat().st_size
        precision, self.arguments.precision = self.arguments.precision, "bf16"
        speed, memory, rest, tokens, done = self.measure("gpt-large", 7, 1)
        self.arguments.precision = precision
        print(f"\nGPT of {size / 2e9:.2f} B parameters, bf16, batch 1: {speed:.0f} tokens/s, peak {memory:.2f} GB = "
              f"{memory * 1e9 / size:.2f} x the file, {rest:.1f} s besides the steps, {tokens} tokens in the largest row, "
              f"losses {done[0]['loss']:.3f} … {done[-1]['loss']:.3f}", flush=True)


def line_through(points):
    """Least squares: slope, base, and the largest distance from the line as a share of the value."""
    xs, ys = zip(*points)
    x, y = statistics.mean(xs), statistics.mean(ys)
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a in xs)
    base = y - slope * x
    return slope, base, max(abs(base + slope * a - b) / b for a, b in points)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ptune", help="the program, of a release build")
    parser.add_argument("--squad", required=True, help="xquad.en.json")
    parser.add_argument("--t5", required=True, help="Hugging Face folder of a T5")
    parser.add_argument("--work", default="target/growth", help="where models, rows and results go")
    parser.add_argument("--only", default="data,batch,large")
    parser.add_argument("--models", default="t5,gpt")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--words", nargs="*", default=[], help="further words for ptune's training")
    arguments = parser.parse_args()
    arguments.ptune, arguments.steps = str(Path(arguments.ptune).resolve()), 5
    growth = Growth(arguments)
    growth.prepare()
    for what in arguments.only.split(","):
        if what == "large":
            growth.large()
            continue
        for kind in arguments.models.split(","):
            {"data": growth.data, "batch": growth.batch}[what](kind)


if __name__ == "__main__":
    main()
