//! Lines of a text with the place of a mistake underlined.

use super::source::{Origin, SourceMap};

/// The line of a place, with carets under it; nothing where nobody wrote it.
pub fn draw(texts: &SourceMap, origin: Origin) -> Option<String> {
    if !origin.is_written() {
        return None;
    }
    let source = texts.get(origin.source)?;
    let line = source.text.lines().nth(origin.line as usize - 1)?;
    let number = origin.line.to_string();
    let margin = " ".repeat(number.len());
    let column = origin.column as usize - 1;
    let width = line.chars().count();
    let before: String = line
        .chars()
        .take(column)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let carets =
        "^".repeat((origin.length as usize).clamp(1, (width.saturating_sub(column)).max(1)));
    Some(format!(
        "{margin} |\n{number} | {line}\n{margin} | {before}{carets}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_underlined() {
        let texts = SourceMap::new();
        let source = texts.add("a.yaml", "x: 1\nlr: abc # c\n");
        let origin = Origin {
            source,
            line: 2,
            column: 5,
            length: 3,
        };
        assert_eq!(
            draw(&texts, origin).unwrap(),
            "  |\n2 | lr: abc # c\n  |     ^^^"
        );
    }
}
