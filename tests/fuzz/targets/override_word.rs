//! Any text as a word of the command line. The words of a sweep's jobs must be words again.

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
        for word in words.iter().take(100) {
            // An interpolation may hold what a text may not; its escaped form is then refused, by Hydra too.
            if word.contains('$') {
                continue;
            }
            let word = format!("a={word}");
            if let Err(error) = parse_override(&word) {
                panic!("a job gets `{word}`, which is refused: {error}");
            }
        }
    }
});
