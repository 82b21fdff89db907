//! Any text as a word of the command line, and the words of the jobs of its sweep.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ptune::config::override_grammar::{Rule, parse_key, parse_override, parse_rule};

fuzz_target!(|text: &str| {
    let _ = parse_key(text);
    for rule in [
        Rule::Value,
        Rule::Element,
        Rule::Primitive,
        Rule::Function,
        Rule::SimpleChoiceSweep,
        Rule::List,
        Rule::Dict,
    ] {
        let _ = parse_rule(rule, text);
    }
    let Ok(parsed) = parse_override(text) else {
        return;
    };
    if let Some(element) = parsed.element() {
        let _ = element.to_node();
        let _ = element.to_word();
    }
    let words = parsed.value.as_ref().map(|value| value.sweep_words());
    if let Some(Ok(Some(words))) = words {
        // Not all of them are words: a quoted text may hold what no text without quotes may, and Hydra writes the
        // arguments of functions without their quotes.
        for word in words.iter().take(100) {
            let _ = parse_override(&format!("a={word}"));
        }
    }
});
