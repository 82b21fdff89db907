"""Makes schedules.json: the learning rate of every step by the formulas of the schedules' definitions.

    python make_schedules.py > schedules.json

Written from the definitions (NeMo's documentation and lr_scheduler.py, Vaswani et al. 2017 for Noam, Kim et al. 2022 for its
variant with a hold), step by step with plain Python numbers; it shares nothing with ptune. Step 0 is the first.
"""

import json
import math

LR, LOW, M = 0.4, 0.01, 30
STEPS = 36  # six beyond the end


def rising(t, w):
    return LR * (t + 1) / (w + 1)


def usual(fall, w, hold=0, end=M):
    """Warm-up over steps 0..w, then perhaps a hold, then `fall`, and the lowest rate beyond the end."""

    def rate(t):
        if w > 0 and t <= w:
            return rising(t, w)
        if hold and t < w + hold:
            return LR
        return LOW if t > end else fall(t)

    return rate


def half_cosine(share):
    return LOW + (LR - LOW) * (1 + math.cos(math.pi * share)) / 2


def megatron_cosine(w, c):
    fall = M - w - c

    def rate(t):
        if w > 0 and t <= w:
            return LR * t / w
        return LOW if t > w + fall else half_cosine((t - w) / fall)

    return rate


def cycling(t, length, power):
    if t > 0:
        length *= math.ceil(t / length)
    return LOW + (LR - LOW) * (1 - t / length) ** power


def noam(w, d):
    def rate(t):
        t = max(t, 1)
        factor = t**-0.5 if w == 0 else min(t**-0.5, t * w**-1.5)
        value = LR * factor / math.sqrt(d)
        return value if t <= w else max(value, LOW)

    return rate


CASES = [
    ("WarmupPolicy", {"policy": "Constant", "warmup_steps": 5}, usual(lambda t: LR, 5)),
    ("WarmupPolicy without warm-up", {"policy": "Constant"}, usual(lambda t: LR, 0)),
    ("WarmupHoldPolicy", {"policy": "Constant", "warmup_steps": 4, "hold_steps": 6}, usual(lambda t: LR, 4, 6)),
    ("CosineAnnealing", {"policy": "Cosine", "warmup_steps": 5}, usual(lambda t: half_cosine((t - 5) / (M - 5)), 5)),
    ("CosineAnnealing without warm-up", {"policy": "Cosine"}, usual(lambda t: half_cosine(t / M), 0)),
    ("CosineAnnealing with constant steps", {"policy": "Cosine", "warmup_steps": 5, "constant_steps": 7}, megatron_cosine(5, 7)),
    ("CosineAnnealing with constant steps alone", {"policy": "Cosine", "constant_steps": 7}, megatron_cosine(0, 7)),
    (
        "WarmupAnnealing",
        {"policy": "Linear", "warmup_steps": 6},
        usual(lambda t: LOW + (LR - LOW) * (M - t) / (M - 6), 6),
    ),
    (
        "PolynomialDecayAnnealing",
        {"policy": "Polynomial", "warmup_steps": 3, "power": 2.0, "cycle": False},
        usual(lambda t: LOW + (LR - LOW) * ((M - t) / (M - 3)) ** 2, 3),
    ),
    (
        "PolynomialDecayAnnealing that cycles",
        {"policy": "Polynomial", "power": 1.5, "cycle": True},
        usual(lambda t: cycling(t, M, 1.5), 0),
    ),
    (
        "PolynomialHoldDecayAnnealing",
        {"policy": "Polynomial", "warmup_steps": 4, "hold_steps": 6, "power": 1.0, "cycle": False},
        usual(lambda t: LOW + (LR - LOW) * (1 - (t - 10) / (M - 10)), 4, 6),
    ),
    (
        "SquareAnnealing",
        {"policy": "Square", "warmup_steps": 5},
        usual(lambda t: max(LOW, LR * ((M - t) / (M - 5)) ** 2), 5),
    ),
    (
        "SquareRootAnnealing",
        {"policy": "SquareRoot", "warmup_steps": 5},
        usual(lambda t: max(LOW, LR * math.sqrt((M - t) / M)), 5),
    ),
    (
        "InverseSquareRootAnnealing",
        {"policy": "InverseSquareRoot", "warmup_steps": 5},
        usual(lambda t: LR / math.sqrt((t + 1) / 6), 5),
    ),
    (
        "T5InverseSquareRootAnnealing",
        {"policy": "T5InverseSquareRoot", "constant_steps": 8},
        lambda t: LOW if t > M else 1 / math.sqrt(max(t, 8)),
    ),
    ("NoamAnnealing", {"policy": "Noam", "warmup_steps": 6, "d_model": 16.0}, noam(6, 16)),
    ("NoamAnnealing without warm-up", {"policy": "Noam", "d_model": 64.0}, noam(0, 64)),
    (
        "NoamHoldAnnealing",
        {"policy": "NoamHold", "warmup_steps": 4, "hold_steps": 6, "decay_rate": 0.5},
        usual(lambda t: max(LOW, LR * math.sqrt(4) / math.sqrt(t - 6)), 4, 6),
    ),
    (
        "NoamHoldAnnealing of Squeezeformer",
        {"policy": "NoamHold", "warmup_steps": 4, "decay_rate": 1.0},
        usual(lambda t: max(LOW, LR * 4 / t), 4),
    ),
    ("StepLR", {"policy": "Steps", "step_size": 7, "gamma": 0.5}, lambda t: LR * 0.5 ** (t // 7)),
    ("ExponentialLR", {"policy": "Exponential", "epoch_steps": 10, "gamma": 0.9}, lambda t: LR * 0.9 ** (t // 10)),
]

print(
    json.dumps(
        [
            {"name": name, "lr": LR, "min_lr": LOW, "max_steps": M, **keys, "rates": [rate(t) for t in range(STEPS)]}
            for name, keys, rate in CASES
        ]
    )
)
