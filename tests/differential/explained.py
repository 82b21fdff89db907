"""Differences from Hydra that are meant. Each has a reason, and the page on compatibility says the same to users."""

import json
import re


def texts(difference):
    """(found, wanted) of a difference in `stdout`."""
    match = re.search(r"(?s)stdout:\n  found  (\".*?\")\n  wanted (\".*?\")\n?$", difference)
    return (json.loads(match.group(1)), json.loads(match.group(2))) if match else (None, None)


def without_help(text):
    """A printed configuration without times and `hydra.help` and `hydra.hydra_help`."""
    text = re.sub(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", "TIME", text)
    return re.sub(r"(?m)^  (help|hydra_help):\n(?:(?:    .*)?\n)+", "", text)


def reason(row, difference):
    """Why this difference is meant, or None."""
    found, wanted = texts(difference)
    if found is not None and found != wanted and without_help(found) == without_help(wanted):
        return "the texts of hydra.help and hydra.hydra_help are ptune's own"
    if row["expect"].get("error", {}).get("type") == "RecursionError" and difference.startswith("found error"):
        return "endless recursion is an error of its own in ptune, not Python's RecursionError"
    if row["kind"] == "override_parse" and "QuotedString(text=" in difference:
        return "quoted patterns in a list of glob() work in ptune; Hydra keeps their quotes and then fails"
    error = row["expect"].get("error", {})
    if "options are texts" in difference:
        return "numbers and mappings among the options of a group are refused at once; Hydra fails on them later, or with a TypeError"
    if error.get("type") == "AttributeError" and "object has no attribute" in error["message"]:
        return "a value that Hydra's own code cannot use makes it fail with an AttributeError"
    if "InterpolationValidationError" in str(error):
        return "what an interpolation gives to a value of the hydra part is not checked against its type"
    if difference.startswith("found error ValidationError") and "a sweep cannot stand inside" in difference:
        return "a sweep inside of a list or a dict is refused where the word is read; Hydra notices when it merges it"
    if row["expect"].get("error", {}).get("message") == "Empty Stack":
        return "the reader of ANTLR itself fails on an unmatched `}`; ptune says what is wrong"
    if row["expect"].get("error", {}).get("type") == "AssertionError" and difference.startswith("found error"):
        return "an assertion inside of Hydra fails; ptune says what is wrong"
    if "hydra.sweeper.params" in str(row.get("args")) and "Unexpected type for root: NoneType" in str(row["expect"]):
        return "hydra.sweeper.params can be given by a word; Hydra fails on it"
    if row["expect"].get("error", {}).get("type") == "AttributeError" and "'NoneType' object has no attribute 'get'" in row["expect"]["error"]["message"]:
        return "hydra.sweeper.params can be given by a word; Hydra fails on it"
    wanted = json.dumps(row["expect"])
    if row["kind"] == "override_parse" and '"glob"' in wanted and ("found error ValidationError" in difference or "sweep_strings" in difference):
        return "a glob() inside of a list is refused; Hydra puts its Python object into the configuration"
    return None
