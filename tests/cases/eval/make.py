"""Prints the answers and normalised answers of the table in src/eval/squad.rs, by the rules of SQuAD's
evaluate-v1.1.py written out once more: lower case, no ASCII punctuation, no articles, single spaces."""
import re
import string

ANSWERS = [
    "The  Denver Broncos!", "a.", "An apple a day, the doctor", "t.h.e cat", "Theory of A", "the-end", "U.S.A.",
    "Café “Zoë”", "über the “a” hill", "1,000\u00a0m\u001fx\ty", "ÀÉ", "",
]


def normalised(answer):
    plain = "".join(character for character in answer.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


for answer in ANSWERS:
    print(repr(answer), repr(normalised(answer)))
