"""What rouge_score 0.1.2 and sacrebleu give: `python scores.py > scores.json`.

Rows of a prediction and one or two references. `rouge_l` is rouge_score's rougeL F-measure of each row without stemming,
the best over its references; `bleu` sacrebleu's corpus BLEU with its defaults (13a, exponential smoothing), over the
rows with as many references as the first; `tokens` its 13a tokens of odd texts.
"""

import json
import sys

import sacrebleu
from rouge_score import rouge_scorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROWS = [
    ("the cat sat on the mat", ["a cat sat on the mat today", "there is a cat on the mat"]),
    ("It cost $1,000.50, didn't it?", ["It cost 1,000.50 dollars.", "It cost $1,000.50."]),
    ("Denver Broncos", ["The Denver Broncos", "Denver Broncos"]),
    ("in the 1990-2000 years of well-known Mr. Smith & Co.", ["in the 1990-2000 years, Mr. Smith and Co.", "1990-2000 it was"]),
    ("", ["nothing", "nothing at all"]),
    ("one two three four five six", ["six five four three two one", "one three two four six five"]),
    ("police killed the gunman quickly in the street", ["police killed the gunman", "the gunman police killed in a street"]),
    ("he said \"no!\" (twice) at 3.5% of [cases]", ["he said no twice in 3.5 % of cases", "he said: \"no!\" (twice)"]),
]
ODD = ["a.b,c", "1.5 and 2,000.", "end. ", "x-1-2-y", "&quot;hi&amp;bye&lt;&gt;", "a/b*c@d", "Zoë's “café”.", "..5,a5,.", "dash-\nline\nbreak"]


def main():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rows = [{"prediction": prediction, "references": references,
             "rouge_l": max(scorer.score(reference, prediction)["rougeL"].fmeasure for reference in references)}
            for prediction, references in ROWS]
    predictions = [row["prediction"] for row in rows]
    streams = [[row["references"][place] for row in rows] for place in range(2)]
    one = [{"start": start, "score": sacrebleu.corpus_bleu(predictions[start:], [stream[start:] for stream in streams]).score}
           for start in range(len(rows))]
    tokenizer = Tokenizer13a()
    json.dump({"rows": rows, "bleu": one, "tokens": [[text, tokenizer(text).split()] for text in ODD]}, sys.stdout, indent=1)
    print()


main()
