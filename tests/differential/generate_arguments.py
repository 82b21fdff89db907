"""Random command lines as argparse sees them, with what Hydra would make of them.

    python generate_arguments.py --seed 1 --count 20000 --out /tmp/arguments      # writes /tmp/arguments/cases/arguments.jsonl

The answers are those of Hydra's own parser object, followed by the order of checks of its `_run_hydra`. ptune lets words
stand on both sides of an option; where argparse refuses a line for that alone, the answer is the one that argparse gives
to the same line with its words together, and the row says `"scattered": true`.
"""

import argparse
import contextlib
import io
import json
import os
import random

from hydra._internal.utils import get_args_parser

FLAGS = ["--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--shell-completion", "-sc"]
WITH_VALUE = ["--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--info", "-i"]
VALUES = ["job", "hydra", "all", "config", "defaults", "defaults-tree", "plugins", "searchpath", "nope", "db=pg", "a", "conf/x.yaml", "conf", "",
          "-1", "-.5", "-1.5", "-x", "a b", "-a b", "--", "-", "=", "x=1"]
WORDS = ["db=pg", "+a=1", "~b", "a.b=[1,2]", "x", "", "-1", "-.5", "-5.", "-1e3", "-x y", "- ", "--x y", "-", "++z=--q", "a=-1"]
ODD = ["--conf", "--config", "--config-", "--c", "--re", "--res", "--r", "--h", "--he", "--hy", "--v", "--sh", "--i", "--inf", "--p", "--m", "--mul",
       "-x", "-x=1", "-s", "-n", "--nope", "--nope=1", "-cfoo", "-cnfoo", "-cjob", "-call", "-cpx", "-cdx", "-ma", "-mr", "-mh", "-mcjob", "-rm",
       "-hm", "-mi", "-midefaults", "-idefaults", "-iall", "-ix", "-pkey", "-scx", "-scm", "-m=1", "-m=r", "-m=", "-c=", "-p=", "--cfg=", "--package=",
       "--multirun=1", "--multirun=", "--help=x", "-sc=1", "-i=", "--info=", "-hx", "--=", "-=", "--cf", "--cf=job", "--info=defaults", "-i=all",
       "-cn=x=y", "--config-name==", "---", "-–m", "—multirun"]


def line(r):
    words = []
    for _ in range(r.choice([0, 1, 1, 2, 2, 3, 3, 4, 5, 6])):
        pick = r.random()
        if pick < 0.25:
            words.append(r.choice(FLAGS))
        elif pick < 0.55:
            option, value = r.choice(WITH_VALUE), r.choice(VALUES)
            if r.random() < 0.6 and option in ("--cfg", "-c", "--info", "-i"):
                value = r.choice(VALUES[:3] if option in ("--cfg", "-c") else VALUES[2:8])
            form = r.random()
            words += [option, value] if form < 0.6 else [f"{option}={value}"] if form < 0.8 else [option + value] if form < 0.9 else [option]
        elif pick < 0.8:
            words.append(r.choice(WORDS))
        elif pick < 0.95:
            words.append(r.choice(ODD))
        else:
            words.append("--")
    if r.random() < 0.2:
        long = [option for option in FLAGS + WITH_VALUE if option.startswith("--")]
        option = r.choice(long)
        words.insert(r.randint(0, len(words)), option[: r.randint(3, len(option))] + r.choice(["", "", "=job", "=x"]))
    return words


def decide(args):
    """The order of `_run_hydra`."""
    path = args.config_path
    if path is not None and os.path.splitext(path)[1] in (".yaml", ".yml"):
        return {"error": {"type": "ValueError"}}
    mode = None
    if args.help:
        mode = "help"
    elif args.resolve and args.cfg is None:
        return {"error": {"type": "ValueError"}}
    elif args.hydra_help:
        mode = "hydra-help"
    elif args.run + (args.cfg is not None) + args.multirun + args.shell_completion + (args.info is not None) > 1:
        return {"error": {"type": "ValueError"}}
    elif args.cfg is not None:
        mode = f"cfg {args.cfg}"
    elif args.info is not None:
        mode = f"info {args.info}"
    else:
        mode = "multirun" if args.multirun else "shell-completion" if args.shell_completion else "run"
    names = ("config_path", "config_name", "config_dir", "package", "resolve")
    return {"ok": {"mode": mode, "words": list(args.overrides), **{name: getattr(args, name) for name in names}}}


def without_words():
    """Hydra's parser without its positional argument: every word is left over, in its order."""
    parser = get_args_parser()
    for action in parser._get_positional_actions():
        parser._remove_action(action)
    return parser


def answer(words):
    """(expectation, whether the words stood apart); nothing for `-cp=--`, whose value argparse loses on its way."""
    if any(word.startswith("-") and word.endswith("--") and len(word) > 2 for word in words):
        return None, False

    def parsed(parse):
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                return decide(parse()), ""
        except SystemExit as stop:
            if stop.code == 0:
                return {"ok": {"mode": "version"}}, ""
            message = said.getvalue().splitlines()[-1]
            return {"error": {"type": "SystemExit", "rc": stop.code, "message": message}}, message

    expect, message = parsed(lambda: get_args_parser().parse_args(words))
    if "unrecognized arguments" not in message:
        return expect, False
    parser = without_words()

    def together():
        args, rest = parser.parse_known_args(words)
        before = rest[: rest.index("--")] if "--" in rest else rest
        if any(parser._parse_optional(word) is not None for word in before):
            parser.error("unrecognized arguments")
        args.overrides = before + rest[len(before) + 1 :]
        return args

    return parsed(together)[0], True


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--count", type=int, default=20000)
    options.add_argument("--out", required=True)
    options = options.parse_args()
    r = random.Random(options.seed)
    folder = os.path.join(options.out, "cases")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "arguments.jsonl"), "w", encoding="utf-8") as out:
        for number in range(options.count):
            expect = None
            while expect is None:
                words = line(r)
                expect, scattered = answer(words)
            row = {"id": f"arguments-{number:05}", "kind": "arguments", "argv": words, "scattered": scattered, "expect": expect}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


main()
