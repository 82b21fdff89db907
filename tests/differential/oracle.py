"""What real Hydra and OmegaConf answer to a case, in the rows of the conformance corpus.

    python oracle.py --check CORPUS       # re-answers the rows of CORPUS/cases and says where the oracle itself differs
    python oracle.py --fill ROWS.jsonl    # prints the rows of a file with `expect` filled in (ROOT = --root)

Everything runs in this one process: a command line goes through Hydra's own `_run_hydra` with its standard output
captured, so that thousands of cases take minutes. Needs hydra-core 1.3.8 and omegaconf 2.3.1 (README.md).
"""

import argparse
import contextlib
import io
import itertools
import json
import logging
import os
import sys
import tempfile
import types
import warnings

import hydra
from antlr4.error.ErrorListener import ErrorListener
from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from hydra.core.override_parser import types as override_types
from hydra.core.override_parser.overrides_parser import (
    KEY_RULES,
    CommonTokenStream,
    InputStream,
    OverrideLexer,
    OverrideParser,
    OverridesParser,
)
from omegaconf import Container, Node, OmegaConf
from omegaconf.grammar_parser import parse as parse_interpolation
from omegaconf.grammar_visitor import GrammarVisitor

ENVIRONMENT = {
    "HO_SET": "envval",
    "HO_NUM": "42",
    "HO_EMPTY": "",
    "HO_LIST": "[1, 2, {a: b}]",
    "HO_INTERP": "${str}",
}
REMOVED = ("HO_UNSET", "HO_MBS", "HO_DB", "COMP_LINE", "COMP_POINT")
MOST_SWEEP_WORDS = 50
QUOTES = {"single": "'", "double": '"'}


def typed(value):
    """A Python value in the corpus' `{"k": …, "v": …}` form."""
    if value is None:
        return {"k": "null"}
    if isinstance(value, bool):
        return {"k": "bool", "v": value}
    if isinstance(value, int):
        return {"k": "int", "v": str(value)}
    if isinstance(value, float):
        return {"k": "float", "v": repr(value)}
    if isinstance(value, str):
        return {"k": "str", "v": value}
    if isinstance(value, bytes):
        return {"k": "bytes", "v": list(value)}
    if isinstance(value, override_types.QuotedString):
        return {"k": "quoted", "v": value.text, "q": QUOTES[value.quote.name]}
    if isinstance(value, override_types.ChoiceSweep):
        return {
            "k": "choice",
            "v": [typed(item) for item in value.list],
            "simple": value.simple_form,
            "shuffle": value.shuffle,
            "tags": sorted(value.tags),
        }
    if isinstance(value, override_types.RangeSweep):
        return {
            "k": "range",
            "start": typed(value.start),
            "stop": typed(value.stop),
            "step": typed(value.step),
            "shuffle": value.shuffle,
            "tags": sorted(value.tags),
        }
    if isinstance(value, override_types.IntervalSweep):
        return {"k": "interval", "start": typed(value.start), "end": typed(value.end), "tags": sorted(value.tags)}
    if isinstance(value, override_types.Glob):
        return {"k": "glob", "include": [str(i) for i in value.include], "exclude": [str(i) for i in value.exclude]}
    if isinstance(value, override_types.Key):
        return {"k": "key", "key": value.key_or_group, "package": value.package}
    if isinstance(value, (list, tuple)):
        return {"k": "list", "v": [typed(item) for item in value]}
    if isinstance(value, dict):
        return {"k": "dict", "v": [[typed(key), typed(item)] for key, item in value.items()]}
    raise Dropped  # a configuration inside of a plain list has no form in the corpus


def plain(value):
    """A selected container with its interpolations resolved."""
    return OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value


def untyped(value):
    """The Python value of a typed form."""
    kind, content = value["k"], value.get("v")
    if kind == "list":
        return [untyped(item) for item in content]
    if kind == "dict":
        return {untyped(key): untyped(item) for key, item in content}
    convert = {"int": int, "float": float, "bytes": bytes, "null": lambda _: None}
    return convert.get(kind, lambda same: same)(content)


def register_resolvers(for_commands):
    """The launcher's resolvers, and for interpolation rows the three that the corpus adds."""

    def same(*arguments):
        return arguments[0] if len(arguments) == 1 else list(arguments)

    def first(argument, *_):
        return next(iter(argument))

    OmegaConf.register_new_resolver("multiply", lambda x, y: x * y, replace=True)
    OmegaConf.register_new_resolver("divide_ceil", lambda x, y: int(-(-(x / y) // 1)), replace=True)
    OmegaConf.register_new_resolver("divide_floor", lambda x, y: int((x / y) // 1), replace=True)
    for name, resolver in (("test", same), ("ns1.ns2.test", same), ("first", first)):
        if for_commands:
            OmegaConf.clear_resolver(name)
        else:
            OmegaConf.register_new_resolver(name, resolver, replace=True)


class Dropped(BaseException):
    """This row asks nothing that a user could ask."""


class Strict(ErrorListener):
    """Ends the reading at a character that makes no token."""

    def syntaxError(self, *_):
        raise Dropped


def consumes_all(text, rule):
    lexer = OverrideLexer(InputStream(text))
    lexer.removeErrorListeners()
    lexer.addErrorListener(Strict())
    if rule not in KEY_RULES:
        lexer.mode(OverrideLexer.VALUE_MODE)
    stream = CommonTokenStream(lexer)
    parser = OverrideParser(stream)
    parser.removeErrorListeners()
    try:
        getattr(parser, rule)()
    except Dropped:
        return False
    return stream.LA(1) == -1


class Oracle:
    def __init__(self, root):
        self.root = root
        self.cwd = os.path.realpath(tempfile.mkdtemp(prefix="oracle-cwd-"))
        self.parser = OverridesParser.create()
        self.app = self._app()
        os.environ["HYDRA_FULL_ERROR"] = "1"
        version.setbase("1.3")
        setup_globals()

    def _app(self):
        """A task function in a file `app.py`, as a user's program would have."""
        folder = tempfile.mkdtemp(prefix="oracle-app-")
        path = os.path.join(folder, "app.py")
        text = "def app(config):\n    pass\n"
        with open(path, "w") as file:
            file.write(text)
        module = types.ModuleType("__main__")
        module.__file__ = path
        exec(compile(text, path, "exec"), module.__dict__)
        return module.app

    def expect(self, row):
        """The row's `expect`: `{"ok": …}` or `{"error": …}`."""
        names = dict(ENVIRONMENT, HO_ROOT=self.root)
        names.update({k: v.replace("{ROOT}", self.root) for k, v in (row.get("env") or {}).items()})
        for name in REMOVED:
            os.environ.pop(name, None)
        os.environ.update(names)
        answer = {
            "yaml_load": self.yaml_load,
            "to_yaml": self.to_yaml,
            "override_parse": self.override_parse,
            "interp": self.interp,
        }.get(row["kind"], self.command)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ok = answer(row)
        except Dropped:
            return None
        except RecursionError as error:
            return {"error": {"type": "RecursionError", "message": str(error)[:200]}}
        except SystemExit as error:
            return {"error": {"rc": error.code, "type": "SystemExit", "message": ""}}
        except Exception as error:  # every class of exception is an answer
            if "StopIteration" in type(error).__name__ + str(error)[:100]:
                return None  # the corpus' own resolver `first`, of nothing
            causes = []
            cause = error.__cause__
            while cause is not None and len(causes) < 4:
                causes.append({"type": type(cause).__name__, "message": str(cause)[:500]})
                cause = cause.__cause__
            found = {"type": type(error).__name__, "message": str(error)[:1000]}
            if causes:
                found["cause"] = causes
            return {"error": found}
        finally:
            for name in names:
                os.environ.pop(name, None)
        return {"ok": ok}

    def yaml_load(self, row):
        config = OmegaConf.load(io.StringIO(row["yaml"]))
        value = OmegaConf.to_container(config, resolve=False)
        return {"value": typed(value), "to_yaml": OmegaConf.to_yaml(config)}

    def to_yaml(self, row):
        return {"yaml": OmegaConf.to_yaml(OmegaConf.create(untyped(row["value"])))}

    def override_parse(self, row):
        rule, text = row["rule"], row["input"]
        if rule != "override":
            # A rule below `override` takes what it can and leaves the rest, which nobody can type: rows like that are dropped.
            if not consumes_all(text, rule):
                raise Dropped
            return {"value": typed(self.parser.parse_rule(text, rule))}
        parsed = self.parser.parse_overrides([text])[0]
        ok = {
            "type": parsed.type.name,
            "key": parsed.key_or_group,
            "package": parsed.package,
            "value_type": parsed.value_type.name if parsed.value_type else None,
            "value": typed(parsed._value),
        }
        if not parsed.is_sweep_override():
            ok["element_str"] = override_types.Override._get_value_element_as_str(parsed._value)
        elif parsed.value_type.name not in ("INTERVAL_SWEEP", "GLOB_CHOICE_SWEEP") and not parsed._value.shuffle:
            try:
                ok["sweep_strings"] = list(itertools.islice(parsed.sweep_string_iterator(), MOST_SWEEP_WORDS))
            except Exception as error:
                ok["sweep_error"] = {"type": type(error).__name__, "message": str(error)[:300]}
        return ok

    def interp(self, row):
        register_resolvers(for_commands=False)
        config = OmegaConf.load(io.StringIO(row["yaml"]))
        operation = row["op"]
        if operation == "select":
            value = OmegaConf.select(config, row["select"])
            return {"value": typed(plain(value))}
        if operation == "resolve":
            OmegaConf.resolve(config)
            return {
                "yaml": OmegaConf.to_yaml(config),
                "value": typed(OmegaConf.to_container(config, resolve=False)),
            }
        if operation == "to_yaml_resolve":
            return {"yaml": OmegaConf.to_yaml(config, resolve=True)}
        tree = parse_interpolation(row["input"], parser_rule=row["rule"], lexer_mode=(
            "VALUE_MODE" if row["rule"] == "singleElement" else "DEFAULT_MODE"
        ))

        def node_of(inter_key, memo):
            return config._resolve_node_interpolation(inter_key=inter_key, memo=memo)

        def resolver_of(name, args, args_str):
            return config._evaluate_custom_resolver(
                key=None, node=config, inter_type=name, inter_args=args, inter_args_str=args_str
            )

        visitor = GrammarVisitor(
            node_interpolation_callback=node_of, resolver_interpolation_callback=resolver_of, memo=None
        )
        value = visitor.visit(tree)
        if isinstance(value, Node) and not isinstance(value, Container):
            value = value._value()
        return {"value": typed(plain(value))}

    def argv(self, row):
        """The words after the program's name."""
        words = []
        if row.get("config_dir"):
            words += ["-cp", "{ROOT}/" + row["config_dir"]]
        if row.get("config_name") is not None:
            words += ["-cn", row["config_name"]]
        return words + list(row["flags"]) + list(row["args"])

    def command(self, row):
        register_resolvers(for_commands=True)
        words = [word.replace("{ROOT}", self.root) for word in (row.get("argv") or self.argv(row))]
        parser = get_args_parser()
        out = io.StringIO()
        before = os.getcwd()
        os.chdir(self.cwd)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
                arguments = parser.parse_args(words)
                _run_hydra(
                    args=arguments,
                    args_parser=parser,
                    task_function=self.app,
                    config_path=None,
                    config_name=None,
                )
        except SystemExit as error:
            if error.code not in (0, None):
                raise
        finally:
            os.chdir(before)
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
            logger = logging.getLogger()
            logger.setLevel(logging.WARNING)
            for handler in list(logger.handlers):
                logger.removeHandler(handler)
        text = out.getvalue().replace(self.root, "{ROOT}").replace(self.cwd, "{CWD}")
        return {"stdout": text.replace(f"version: {hydra.__version__}\n", "version: {HYDRA_VERSION}\n")}


def check(corpus):
    """Re-answers the given rows: an oracle that is wrong would only find its own faults."""
    oracle = Oracle(os.path.realpath(corpus))
    for name in sorted(os.listdir(os.path.join(corpus, "cases"))):
        kind = name.removesuffix(".jsonl")
        if kind in ("completion", "run", "cli"):
            continue
        rows = [json.loads(line) for line in open(os.path.join(corpus, "cases", name), encoding="utf-8")]
        bad = []
        for row in rows:
            if row.get("op") == "defaults_list":
                continue
            found, wanted = oracle.expect(row), row["expect"]
            if "ok" in wanted:
                keys = [key for key in wanted["ok"] if key not in ("stderr", "warnings", "sweep_error")]
                same = "ok" in found and all(squeezed(found["ok"].get(key)) == squeezed(wanted["ok"][key]) for key in keys)
            else:
                same = "error" in found and found["error"]["type"] == wanted["error"]["type"]
            if not same and not row.get("nondeterministic"):
                bad.append((row["id"], found, wanted))
        print(kind, len(rows) - len(bad), "of", len(rows))
        for one, found, wanted in bad[:5]:
            print("  ", one, json.dumps(found)[:600], "\n      ", json.dumps(wanted)[:600])


def squeezed(value):
    import re

    if isinstance(value, str) and ("{ROOT}" in value or "{CWD}" in value):
        return re.sub(r"-{2,}", "-", re.sub(r" {2,}", " ", value))
    return value


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", metavar="CORPUS")
    arguments.add_argument("--fill", metavar="ROWS")
    arguments.add_argument("--root", default=".")
    given = arguments.parse_args()
    if given.check:
        check(given.check)
    if given.fill:
        oracle = Oracle(os.path.realpath(given.root))
        for line in open(given.fill, encoding="utf-8"):
            row = json.loads(line)
            row["expect"] = oracle.expect(row)
            print(json.dumps(row, ensure_ascii=False))


if __name__ == "__main__":
    sys.setrecursionlimit(1000)
    main()
