//! Lines of a text with the place of a mistake underlined.

use super::source::{Origin, SourceMap};

/// Longer lines, such as those of a command line, are shown around the place.
const WIDTH: usize = 100;

/// The line of a place, with carets under it; nothing where nobody wrote it.
pub fn draw(texts: &SourceMap, origin: Origin) -> Option<String> {
    if !origin.is_written() {
        return None;
    }
    let source = texts.get(origin.source)?;
    let line: Vec<char> = source
        .text
        .lines()
        .nth(origin.line as usize - 1)?
        .chars()
        .collect();
    let number = origin.line.to_string();
    let margin = " ".repeat(number.len());
    let column = (origin.column as usize - 1).min(line.len());
    let length = (origin.length as usize).clamp(1, (line.len() - column).max(1));
    let (mut from, mut to) = (0, line.len());
    if line.len() > WIDTH {
        let around = WIDTH.saturating_sub(length) / 2;
        from = column.saturating_sub(around);
        to = line.len().min(from + WIDTH);
        from = from.min(to.saturating_sub(WIDTH));
    }
    let ellipsis = |cut: bool| if cut { "…" } else { "" };
    let shown: String = line[from..to].iter().collect();
    let before: String = line[from..column]
        .iter()
        .map(|c| if *c == '\t' { '\t' } else { ' ' })
        .collect();
    let carets = "^".repeat(length.min((to - column).max(1)));
    let (first, last) = (ellipsis(from > 0), ellipsis(to < line.len()));
    let indent = if from > 0 { " " } else { "" };
    Some(format!(
        "{margin} |\n{number} | {first}{shown}{last}\n{margin} | {indent}{before}{carets}"
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

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let texts = SourceMap::new();
        let line = format!("{}WRONG{}", "a".repeat(200), "b".repeat(200));
        let source = texts.add("<command line>", line);
        let origin = Origin {
            source,
            line: 1,
            column: 201,
            length: 5,
        };
        let drawn = draw(&texts, origin).unwrap();
        let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
        assert!(lines[1].len() < 110, "{drawn}");
        let at = lines[2].iter().position(|c| *c == '^').unwrap();
        let text: String = lines[1][at..at + 5].iter().collect();
        assert_eq!(text, "WRONG", "{drawn}");
    }
}
