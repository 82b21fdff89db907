//! The kinds that the library answers without the command line.

use std::sync::Mutex;

use ptune::config::interpolation::grammar::{parse_element, parse_text};
use ptune::config::interpolation::resolve::{ResolveError, ResolveErrorKind};
use ptune::config::interpolation::{Graph, ResolverContext, Resolvers};
use ptune::config::override_grammar::{
    Element, OverrideKind, OverrideValue, Rule, parse_key, parse_override, parse_rule,
};
use ptune::config::{ComposeRequest, ConfigRepository, ConfigSource, SearchPathEntry, load_text};
use ptune::diag::Diagnostic;
use ptune::diag::source::SourceMap;
use ptune::yaml::{Node, Value, to_yaml};
use serde_json::{Value as Json, json};

use crate::Corpus;
use crate::values::{from_json, override_to_json, to_json};

/// What a case gave: a value, or the name of the exception that Hydra would raise.
type Outcome = Result<Json, String>;

pub(crate) fn run(corpus: &Corpus, row: &Json) -> Result<(), String> {
    set_environment(corpus, row);
    let outcome = match row["kind"].as_str().unwrap_or("") {
        "yaml_load" => yaml_load(row),
        "to_yaml" => print_yaml(row),
        "override_parse" => override_parse(row),
        "interp" => interp(row),
        "arguments" => crate::arguments::outcome(row),
        "hydra_tests" if row["op"] == "defaults_list" => defaults(corpus, row),
        "launcher" | "extra" | "hydra_tests" | "cli" | "run" => {
            return crate::commands::check(corpus, row);
        }
        "completion" => Ok(crate::completion::completion(corpus, row)),
        kind => Err(format!("the kind `{kind}` is not built yet")),
    };
    compare(row, &outcome)
}

fn compare(row: &Json, outcome: &Outcome) -> Result<(), String> {
    let expect = &row["expect"];
    match (outcome, expect.get("ok")) {
        (Ok(value), Some(ok)) => {
            let mut problems = vec![];
            let Some(object) = ok.as_object() else {
                return Err("no expectation".to_owned());
            };
            for (key, wanted) in object {
                if key == "warnings" || key == "stderr" {
                    continue;
                }
                let found = value.get(key).cloned().unwrap_or(Json::Null);
                if key == "sweep_error" && !found.is_null() {
                    continue;
                }
                if &found != wanted {
                    problems.push(format!("{key}:\n  found  {found}\n  wanted {wanted}"));
                }
            }
            if problems.is_empty() || row["nondeterministic"].as_bool() == Some(true) {
                Ok(())
            } else {
                Err(problems.join("\n"))
            }
        }
        (Err(code), None) => {
            let wanted = expect["error"]["type"].as_str().unwrap_or("?");
            let first = code.lines().next().unwrap_or("");
            if first == wanted {
                Ok(())
            } else {
                Err(format!("found error {code}\nwanted {}", expect["error"]))
            }
        }
        (Ok(value), None) => Err(format!("found {value}\nwanted {}", expect["error"])),
        (Err(code), Some(ok)) => Err(format!("found error {code}\nwanted {ok}")),
    }
}

#[expect(unsafe_code, reason = "the cases say what the environment is")]
fn set_environment(corpus: &Corpus, row: &Json) {
    let mut variables = vec![
        ("HO_ROOT", corpus.root.display().to_string()),
        ("HO_SET", "envval".to_owned()),
        ("HO_NUM", "42".to_owned()),
        ("HO_EMPTY", String::new()),
        ("HO_LIST", "[1, 2, {a: b}]".to_owned()),
        ("HO_INTERP", "${str}".to_owned()),
    ];
    static OF_EARLIER_CASES: Mutex<Vec<String>> = Mutex::new(vec![]);
    let mut earlier = OF_EARLIER_CASES.lock().unwrap();
    let removed = ["HO_UNSET", "HO_MBS", "HO_DB", "COMP_LINE", "COMP_POINT"];
    if let Some(extra) = row["env"].as_object() {
        for (name, value) in extra {
            variables.push((
                name,
                value
                    .as_str()
                    .unwrap_or("")
                    .replace("{ROOT}", &corpus.root.display().to_string()),
            ));
        }
    }
    // SAFETY: the cases run one after another on the only thread.
    unsafe {
        for name in removed
            .into_iter()
            .map(str::to_owned)
            .chain(earlier.drain(..))
        {
            std::env::remove_var(name);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
            earlier.push(name.to_owned());
        }
    }
}

fn code_of(diagnostic: &Diagnostic) -> String {
    format!("{}\n{diagnostic}", diagnostic.code.unwrap_or("no code"))
}

fn load(text: &str) -> Result<Node, String> {
    let texts = SourceMap::new();
    let source = texts.add("case.yaml", text);
    load_text(text, source, &texts).map_err(|diagnostic| code_of(&diagnostic))
}

fn yaml_load(row: &Json) -> Outcome {
    let node = load(row["yaml"].as_str().unwrap_or(""))?;
    Ok(json!({"value": to_json(&node), "to_yaml": to_yaml(&node)}))
}

fn print_yaml(row: &Json) -> Outcome {
    let node = from_json(&row["value"]);
    ptune::config::check_texts(&node).map_err(|diagnostic| code_of(&diagnostic))?;
    Ok(json!({"yaml": to_yaml(&node)}))
}

fn override_parse(row: &Json) -> Outcome {
    let input = row["input"].as_str().unwrap_or("");
    let rule = match row["rule"].as_str().unwrap_or("") {
        "override" => return whole_override(input),
        "key" => {
            return parse_key(input)
                .map(
                    |(key, package)| json!({"value": {"k": "key", "key": key, "package": package}}),
                )
                .map_err(|error| error_class(&error, false));
        }
        "package" | "packageOrGroup" => {
            return parse_key(input)
                .map(|(key, _)| json!({"value": {"k": "str", "v": key}}))
                .map_err(|error| error_class(&error, false));
        }
        "value" => Rule::Value,
        "element" => Rule::Element,
        "primitive" => Rule::Primitive,
        "function" => Rule::Function,
        "simpleChoiceSweep" => Rule::SimpleChoiceSweep,
        "listContainer" => Rule::List,
        "dictContainer" => Rule::Dict,
        other => return Err(format!("unknown rule {other}")),
    };
    parse_rule(rule, input)
        .map(|value| json!({"value": override_to_json(&value)}))
        .map_err(|error| error_class(&error, false))
}

fn error_class(error: &ptune::config::override_grammar::OverrideError, whole: bool) -> String {
    let class = if whole { error.code } else { "HydraException" };
    format!("{class}\n{error}")
}

fn whole_override(input: &str) -> Outcome {
    let parsed = parse_override(input).map_err(|error| error_class(&error, true))?;
    let kind = match parsed.kind {
        OverrideKind::Change => "CHANGE",
        OverrideKind::Add => "ADD",
        OverrideKind::ForceAdd => "FORCE_ADD",
        OverrideKind::Delete => "DEL",
    };
    let value_type = match &parsed.value {
        None => Json::Null,
        Some(OverrideValue::Element(_)) => json!("ELEMENT"),
        Some(OverrideValue::Choice(choice)) if choice.simple => json!("SIMPLE_CHOICE_SWEEP"),
        Some(OverrideValue::Choice(_)) => json!("CHOICE_SWEEP"),
        Some(OverrideValue::Range(_)) => json!("RANGE_SWEEP"),
        Some(OverrideValue::Interval(_)) => json!("INTERVAL_SWEEP"),
        Some(OverrideValue::Glob(_)) => json!("GLOB_CHOICE_SWEEP"),
    };
    let value = parsed
        .value
        .as_ref()
        .map_or(json!({"k": "null"}), override_to_json);
    let (words, sweep_error) = match parsed.value.as_ref().map(OverrideValue::sweep_words) {
        Some(Ok(words)) => (words, Json::Null),
        Some(Err(_)) => (None, json!("refused")),
        None => (None, Json::Null),
    };
    Ok(json!({
        "type": kind,
        "key": parsed.key,
        "package": parsed.package,
        "value_type": value_type,
        "value": value,
        "element_str": match &parsed.value {
            None => Some("null".to_owned()),
            Some(_) => parsed.element().map(Element::to_word),
        },
        "sweep_strings": words.map(|words| words.into_iter().take(50).collect::<Vec<_>>()),
        "sweep_error": sweep_error,
    }))
}

fn resolve_class(error: &ResolveError) -> String {
    format!("{}\n{error}", error.kind.code())
}

fn test_resolvers() -> Resolvers {
    fn same(arguments: &[Node]) -> Result<Value, ResolveError> {
        Ok(match arguments {
            [one] => one.value.clone(),
            several => Value::List(several.to_vec()),
        })
    }
    fn first(arguments: &[Node]) -> Result<Value, ResolveError> {
        let problem = || ResolveError::new(ResolveErrorKind::Type, "nothing to take the first of");
        let container = arguments.first().ok_or_else(problem)?;
        match &container.value {
            Value::List(items) => items
                .first()
                .map(|item| item.value.clone())
                .ok_or_else(problem),
            Value::Map(mapping) => mapping
                .keys()
                .next()
                .map(ptune::yaml::python_text::key_value)
                .ok_or_else(problem),
            Value::Str(text) => Ok(Value::Str(text.chars().take(1).collect())),
            _ => Err(problem()),
        }
    }
    Resolvers::from([
        (
            "test".to_owned(),
            same as ptune::config::interpolation::resolvers::Resolver,
        ),
        ("ns1.ns2.test".to_owned(), same),
        ("first".to_owned(), first),
    ])
}

fn interp(row: &Json) -> Outcome {
    let root = load(row["yaml"].as_str().unwrap_or(""))?;
    let resolvers = test_resolvers();
    let context = ResolverContext {
        extra: Some(&resolvers),
        ..ResolverContext::default()
    };
    let (mut graph, id) = Graph::new(&root, context);
    let fail = |error: ResolveError| resolve_class(&error);
    match row["op"].as_str().unwrap_or("") {
        "select" => {
            let found = graph
                .select(id, row["select"].as_str().unwrap_or(""))
                .map_err(fail)?;
            let node = match found {
                // A text that a resolver gave is not resolved again, what is inside of a container is.
                Some(found) if graph.to_node(found).is_container() => {
                    graph.resolved_copy(found).map_err(fail)?
                }
                Some(found) => graph.to_node(found),
                None => Node::computed(Value::Null),
            };
            Ok(json!({"value": to_json(&node)}))
        }
        "resolve" => {
            graph.resolve_strictly(id).map_err(fail)?;
            let node = graph.to_node(id);
            Ok(json!({"yaml": to_yaml(&node), "value": to_json(&node)}))
        }
        "to_yaml_resolve" => {
            let node = graph.resolved_copy(id).map_err(fail)?;
            Ok(json!({"yaml": to_yaml(&node)}))
        }
        "grammar" => {
            let input = row["input"].as_str().unwrap_or("");
            let grammar = |error: ptune::config::interpolation::grammar::GrammarError| {
                format!("GrammarParseError\n{error}")
            };
            let node = if row["rule"] == "configValue" {
                let pieces = parse_text(input).map_err(grammar)?;
                graph.evaluate_text(id, &pieces)
            } else {
                let element = parse_element(input).map_err(grammar)?;
                graph.evaluate_expression(id, &element)
            }
            .map_err(fail)?;
            Ok(json!({"value": to_json(&node)}))
        }
        other => Err(format!("unknown op {other}")),
    }
}

/// The defaults list alone.
fn defaults(corpus: &Corpus, row: &Json) -> Outcome {
    let overrides: Vec<String> = row["args"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|word| word.as_str().unwrap_or("").to_owned())
        .collect();
    let folder = row["config_dir"].as_str().unwrap_or("");
    let main = SearchPathEntry::new("main", ConfigSource::Folder(corpus.root.join(folder)));
    let request = ComposeRequest {
        repository: &ConfigRepository::with_entries(vec![main]),
        config_name: row["config_name"].as_str(),
        overrides: &overrides,
    };
    let prepend = row["prepend_hydra"].as_bool() == Some(true);
    let skip = row["skip_missing"].as_bool() == Some(true);
    let list = ptune::config::plan(&request, prepend, skip).map_err(|error| code_of(&error))?;
    let defaults: Vec<Json> = list
        .defaults
        .iter()
        .map(|default| {
            json!({
                "config_path": default.config_path,
                "package": default.package,
                "parent": default.parent,
                "is_self": default.is_self,
            })
        })
        .collect();
    Ok(json!({"defaults": defaults, "choices": list.choices}))
}
