//! Any text as an expression, as the text of a value, and as a document whose interpolations are resolved.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ptune::config::interpolation::grammar::{parse_element, parse_text};
use ptune::config::interpolation::{Graph, ResolverContext};
use ptune::config::load_text;
use ptune::diag::source::SourceMap;
use ptune::yaml::{Key, Mapping, Node, Value};

/// Something for the expressions to refer to.
const DOCUMENT: &str = "a: {b: 1, c: '${.b}', l: [1, '${..b}', {x: '${str}'}]}\nstr: b\nmiss: ???\nnul: null\n";

fuzz_target!(|text: &str| {
    let _ = parse_element(text);
    let _ = parse_text(text);
    let texts = SourceMap::new();
    let source = texts.add("document.yaml", DOCUMENT);
    let document = load_text(DOCUMENT, source, &texts).expect("the document is well-formed");
    if parse_text(text).is_ok() {
        let mut root = document.clone();
        if let Value::Map(mapping) = &mut root.value {
            mapping.insert(Key::from("v"), Node::text(text.to_owned()));
            let inner = Mapping::from_iter([(Key::from("w"), Node::text(text.to_owned()))]);
            mapping.insert(Key::from("m"), Node::computed(Value::Map(inner)));
        }
        try_all(&root, text);
    }
    let source = texts.add("fuzz.yaml", text);
    if let Ok(root) = load_text(text, source, &texts) {
        try_all(&root, text);
    }
});

fn try_all(root: &Node, text: &str) {
    let (mut graph, id) = Graph::new(root, ResolverContext::default());
    let _ = graph.select(id, text);
    let _ = graph.select(id, "v");
    let (mut graph, id) = Graph::new(root, ResolverContext::default());
    let _ = graph.resolved_copy(id);
    let (mut graph, id) = Graph::new(root, ResolverContext::default());
    let _ = graph.resolve_strictly(id);
    let (mut graph, id) = Graph::new(root, ResolverContext::default());
    let _ = graph.resolve_in_place(id);
}
