"""Makes optimizers.json: parameters after each of six steps of PyTorch's and transformers' optimizers in float32.

    python make_optimizers.py > optimizers.json      (torch 2.15.0, transformers 4.57.6)

Gradients and learning rates are simple formulas, so that the test can make them again:
gradient[i] = sin(0.7 * (i + 1) * step) * 0.3 * step for element i (in row order) of the step-th step, from 1;
learning rate = lr * (1 + 0.25 * step).
"""

import json
import math

import torch
from transformers.optimization import Adafactor

STEPS = 6
SHAPES = {"matrix": [3, 4], "vector": [5]}

ADAFACTOR = {"lr": 0.3, "relative_step": False, "scale_parameter": False}
CASES = {
    "adamw": (torch.optim.AdamW, {"lr": 0.1, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"lr": 0.1, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.01}),
    "sgd": (torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    "sgd_momentum": (
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01},
    ),
    "sgd_nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adafactor": (Adafactor, {**ADAFACTOR, "weight_decay": 1e-5}),
    "adafactor_scaled": (Adafactor, {**ADAFACTOR, "lr": 0.05, "scale_parameter": True}),
    "adafactor_first_moment": (
        Adafactor,
        {**ADAFACTOR, "beta1": 0.9, "clip_threshold": 0.5, "decay_rate": -0.6, "eps": (1e-20, 1e-3)},
    ),
    "adafactor_relative": (
        Adafactor,
        {"lr": None, "relative_step": True, "warmup_init": True, "scale_parameter": True, "weight_decay": 0.01},
    ),
}


def first(shape):
    count = math.prod(shape)
    return torch.tensor([0.5 * math.cos(index + 1) for index in range(count)], dtype=torch.float64).float().view(shape)


def gradient(shape, step):
    count = math.prod(shape)
    values = [math.sin(0.7 * (index + 1) * step) * 0.3 * step for index in range(count)]
    return torch.tensor(values, dtype=torch.float64).float().view(shape)


def run(kind, options):
    parameters = {name: torch.nn.Parameter(first(shape)) for name, shape in SHAPES.items()}
    optimizer = kind(list(parameters.values()), **options)
    history = {name: [] for name in SHAPES}
    for step in range(1, STEPS + 1):
        for name, parameter in parameters.items():
            parameter.grad = gradient(SHAPES[name], step)
        if options["lr"] is not None:
            for group in optimizer.param_groups:
                group["lr"] = options["lr"] * (1 + 0.25 * step)
        optimizer.step()
        for name, parameter in parameters.items():
            history[name].append([float(value) for value in parameter.detach().flatten()])
    return history


print(json.dumps({name: run(kind, options) for name, (kind, options) in CASES.items()}))
