"""Writes random cases with the answers of real Hydra, in the format of the conformance corpus, and runs ptune over them.

    python fuzz.py --seed 1 --count 2000 --out /tmp/fuzz            # 2,000 cases of every kind together
    python fuzz.py --seed 1 --count 2000 --out /tmp/fuzz --run BINARY   # and the comparison (BINARY: the hydra_corpus test program)

The same seed gives the same cases. `--mutate CORPUS` takes rows of an existing corpus and changes a few characters of each.
"""

import argparse
import collections
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time

import explained
import generate_interpolations
import generate_overrides
import generate_trees
import generate_yaml

SHARES = {"trees": 30, "hydra": 5, "override": 20, "interp": 20, "yaml": 15, "to_yaml": 10}
COMMANDS_OF_A_TREE = 8


def cases(seed, count, kinds):
    """(rows, files of the trees by path)."""
    rows, files = [], {}
    total = sum(SHARES[kind] for kind in kinds)
    for kind in kinds:
        r = random.Random(f"{seed}-{kind}")
        wanted = count * SHARES[kind] // total
        if kind == "hydra":
            for number in range(10000, 10000 + (wanted + COMMANDS_OF_A_TREE - 1) // COMMANDS_OF_A_TREE):
                tree = generate_trees.HydraTree(r, number)
                files.update({f"{tree.folder}/{path}": text for path, text in tree.files.items()})
                rows += [tree.command(hydra=True) for _ in range(COMMANDS_OF_A_TREE)]
            continue
        if kind == "trees":
            for number in range((wanted + COMMANDS_OF_A_TREE - 1) // COMMANDS_OF_A_TREE):
                tree = generate_trees.Tree(r, number)
                files.update({f"{tree.folder}/{path}": text for path, text in tree.files.items()})
                rows += [tree.command() for _ in range(COMMANDS_OF_A_TREE)]
            continue
        make = {
            "override": generate_overrides.override_row,
            "interp": generate_interpolations.interp_row,
            "yaml": generate_yaml.yaml_row,
            "to_yaml": generate_yaml.to_yaml_row,
        }[kind]
        rows += [make(r) for _ in range(wanted)]
    return rows, files


def mutations(seed, count, corpus):
    """Rows of a corpus with a few characters changed: what is one slip away from a case that somebody thought of."""
    r = random.Random(f"{seed}-mutate")
    rows = []
    for name in ("override_parse", "interp", "yaml_load", "extra", "launcher", "hydra_tests"):
        path = os.path.join(corpus, "cases", name + ".jsonl")
        rows += [json.loads(line) for line in open(path, encoding="utf-8")]
    rows = [row for row in rows if row.get("op") != "defaults_list"]
    alphabet = list(" \t\n:-,#[]{}()&*!|>'\"%@`$.=~+?\\/_01abex") + ["${", "}", "null", "true", "???", "é", "- ", ": ", "\n  ", "1e3", "_self_", "<<"]
    donors = [row[key] for row in rows for key in ("input", "yaml") if row.get(key)]

    def change(text):
        for _ in range(r.choice([1, 1, 1, 2, 3])):
            at = r.randint(0, len(text))
            pick = r.random()
            if pick < 0.4:
                text = text[:at] + r.choice(alphabet) + text[at:]
            elif pick < 0.6:
                text = text[:at] + text[at + r.randint(1, 3):]
            elif pick < 0.8:
                text = text[:at] + r.choice(alphabet) + text[at + 1:]
            else:
                donor = r.choice(donors)
                start = r.randint(0, len(donor))
                text = text[:at] + donor[start:start + r.randint(1, 8)] + text[at:]
        return text

    out = []
    while len(out) < count:
        row = dict(r.choice(rows))
        row.pop("expect"), row.pop("argv", None), row.pop("nondeterministic", None)
        key = {"override_parse": "input", "yaml_load": "yaml"}.get(row["kind"])
        if row["kind"] == "interp":
            key = "input" if row["op"] == "grammar" else "yaml"
        if key:
            row[key] = change(row[key])
        else:
            args = list(row["args"])
            others = [word for other in rows if other.get("config_dir") == row["config_dir"] for word in other["args"]]
            pick = r.random()
            if args and pick < 0.4:
                at = r.randrange(len(args))
                args[at] = change(args[at])
            elif others and pick < 0.9:
                args.insert(r.randint(0, len(args)), r.choice(others))
            elif args:
                args.pop(r.randrange(len(args)))
            row["args"] = [word for word in args if not word.startswith("-") and "\0" not in word]
        if "shuffle" in json.dumps(row):
            continue
        if "\0" in json.dumps(row):
            continue
        out.append(row)
    return out


def write_tree(out, files):
    for path, text in files.items():
        path = os.path.join(out, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)


_ORACLE = None


def _start(root):
    global _ORACLE
    import oracle

    _ORACLE = oracle.Oracle(root)


def _answer(row):
    if "flags" in row:
        row.setdefault("argv", _ORACLE.argv(row))
    row["expect"] = _ORACLE.expect(row)
    return row


def answered(rows, root, jobs):
    """The rows with their `expect`; those that ask nothing are left out."""
    if jobs <= 1:
        _start(root)
        found = [_answer(row) for row in rows]
    else:
        with multiprocessing.Pool(jobs, _start, (root,)) as pool:
            found = pool.map(_answer, rows, chunksize=50)
    return [row for row in found if row["expect"] is not None]


def write_cases(out, rows):
    folder = os.path.join(out, "cases")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    by_kind = collections.defaultdict(list)
    for number, row in enumerate(rows):
        row.setdefault("id", f"{row['kind']}-{number:05}")
        by_kind[row["kind"]].append(row)
    for kind, members in by_kind.items():
        with open(os.path.join(folder, kind + ".jsonl"), "w", encoding="utf-8") as file:
            for row in members:
                base = {"config_dir": None, "config_name": None, "args": [], "resolve": False, "src": "fuzz"}
                file.write(json.dumps({**base, **row}, ensure_ascii=True) + "\n")


def run(binary, out, trees=None):
    """Ids that fail with what differs, as the test program says it; None when it died."""
    names = dict(os.environ, PTUNE_HYDRA_CORPUS=out, PTUNE_HYDRA_VERBOSE="1")
    if trees:
        names["PTUNE_HYDRA_TREES"] = trees
    done = subprocess.run([binary], env=names, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text = done.stdout.decode("utf-8", "replace")
    failing = {}
    for piece in re.split(r"(?m)^--- (?=\S+ \{)", text)[1:]:
        lines = piece.split("\n")
        body = [line for line in lines[1:] if not re.match(r"^(\w+ \d+/\d+$|  failing: |\d+ passed, )", line)]
        failing[lines[0].split(" ")[0]] = "\n".join(body)
    if not re.search(r"(?m)^\d+ passed, \d+ failed$", text):
        print(f"the test program ended with {done.returncode}:\n{done.stderr.decode('utf-8', 'replace')[-2000:]}")
        return None
    return failing


def class_of(row, difference):
    """A short name for a difference, to count by."""
    if difference == "panicked":
        return f"{row['kind']}: PANIC"
    found = re.match(r"found error (\S+)", difference)
    wanted = row["expect"].get("error", {}).get("type", "ok")
    return f"{row['kind']}/{row.get('op') or row.get('rule') or ' '.join(f for f in row.get('flags', []) if f.startswith('--'))}: ptune {found.group(1) if found else 'ok'}, hydra {wanted}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", default="1")
    arguments.add_argument("--count", type=int, default=2000)
    arguments.add_argument("--out", required=True)
    arguments.add_argument("--kinds", default=",".join(SHARES))
    arguments.add_argument("--jobs", type=int, default=1)
    arguments.add_argument("--run", metavar="BINARY", help="the built hydra_corpus test program, to compare at once")
    arguments.add_argument("--mutate", metavar="CORPUS", help="rows of this corpus with small changes, instead of generated ones")
    arguments.add_argument("--show", type=int, default=2, help="differences to show of each class")
    given = arguments.parse_args()
    out = os.path.realpath(given.out)
    os.makedirs(out, exist_ok=True)
    started = time.time()
    trees = None
    if given.mutate:
        rows = mutations(given.seed, given.count, given.mutate)
        root = os.path.realpath(given.mutate)
        trees = os.path.join(root, "trees")
    else:
        rows, files = cases(given.seed, given.count, given.kinds.split(","))
        shutil.rmtree(os.path.join(out, "trees"), ignore_errors=True)
        os.makedirs(os.path.join(out, "trees"))
        write_tree(out, files)
        root = out
    for row in rows:
        row.pop("id", None)
    rows = answered(rows, root, given.jobs)
    write_cases(out, rows)
    refused = sum("error" in row["expect"] for row in rows)
    print(f"{len(rows)} cases, {refused} of them errors, in {time.time() - started:.0f} s")
    if not given.run:
        return
    failing = run(given.run, out, trees)
    if failing is None:
        sys.exit(2)
    sys.exit(1 if report(rows, failing, given.show) else 0)


def report(rows, failing, show):
    by_id = {row["id"]: row for row in rows}
    reasons = {one: explained.reason(by_id[one], difference) for one, difference in failing.items()}
    failing = {one: difference for one, difference in failing.items() if reasons[one] is None}
    classes = collections.defaultdict(list)
    for one, difference in failing.items():
        classes[class_of(by_id[one], difference)].append(one)
    for name, ids in sorted(classes.items(), key=lambda item: -len(item[1])):
        print(f"\n## {len(ids)} x {name}: {' '.join(ids[:12])}")
        for one in ids[:show]:
            row = by_id[one]
            asked = {key: row[key] for key in ("input", "rule", "yaml", "select", "value", "config_dir", "config_name", "flags", "args") if row.get(key)}
            if row["kind"] == "override_parse":
                asked.pop("args", None)
            print(f"-- {one} {json.dumps(asked, ensure_ascii=False)[:900]}")
            print("   " + failing[one][:900].replace("\n", "\n   "))
    for why, count in collections.Counter(why for why in reasons.values() if why).items():
        print(f"\nmeant: {count} x {why}")
    print(f"\n{len(by_id) - len(reasons)} equal, {len(reasons) - len(failing)} different on purpose, {len(failing)} different")
    return failing


if __name__ == "__main__":
    main()
