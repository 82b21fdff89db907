//! Any text as a YAML file: read, written, read again. What is written must be readable and the same value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ptune::config::load_text;
use ptune::diag::source::SourceMap;
use ptune::yaml::to_yaml;

fuzz_target!(|text: &str| {
    let texts = SourceMap::new();
    let source = texts.add("fuzz.yaml", text);
    let Ok(node) = load_text(text, source, &texts) else {
        return;
    };
    let written = to_yaml(&node);
    let again = texts.add("written.yaml", written.as_str());
    let node = match load_text(&written, again, &texts) {
        Ok(node) => node,
        Err(error) => panic!("what was written is refused: {error}\n{written:?}"),
    };
    // PyYAML writes this line break as it is and reads it as another one.
    if !written.contains('\u{85}') {
        assert_eq!(written, to_yaml(&node), "written twice, and different");
    }
});
