//! The report for people.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{Facts, Report};

/// Width of the column of names.
const COLUMN: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.path)?;
        let kind = format!("{} ({}, {})", self.kind, self.container, size(self.bytes));
        line(f, "kind", &kind)?;
        for (name, value) in &self.about {
            line(f, name, &plain(value))?;
        }
        for note in &self.notes {
            line(f, "note", &note.replace('\n', "\n    "))?;
        }
        section(f, "model", &self.architecture)?;
        if !self.dtypes.is_empty() {
            writeln!(f, "weights")?;
            let tensors: usize = self.dtypes.iter().map(|total| total.tensors).sum();
            let numbers = grouped(self.parameters);
            line(f, "parameters", &format!("{numbers} in {tensors} tensors"))?;
            for total in &self.dtypes {
                let plural = if total.tensors == 1 { "" } else { "s" };
                let text = format!(
                    "{} in {} tensor{plural}",
                    grouped(total.numbers),
                    total.tensors
                );
                line(f, &total.dtype, &text)?;
            }
            if let Some(partition) = self.partition {
                let text = format!(
                    "tensor {} x pipeline {}",
                    partition.tensor, partition.pipeline
                );
                line(f, "partition", &text)?;
            }
        }
        section(f, "tokenizer", &self.tokenizer)?;
        if !self.tasks.is_empty() {
            writeln!(f, "tasks")?;
        }
        for task in &self.tasks {
            let mut text = match (task.virtual_tokens, task.hidden_size) {
                (Some(rows), Some(width)) => format!("{rows} virtual tokens, hidden size {width}"),
                _ => "no table".to_owned(),
            };
            if task.virtual_token_splits.len() > 1 {
                write!(text, ", split {:?}", task.virtual_token_splits)?;
            }
            for (name, field) in [
                ("answer", &task.answer_field),
                ("cut where too long", &task.truncate_field),
            ] {
                if let Some(field) = field {
                    write!(text, ", {name}: {field}")?;
                }
            }
            line(f, &task.name, &text)?;
            if let Some(template) = &task.prompt_template {
                line(f, "", &format!("{template:?}"))?;
            }
            if let Some(hash) = &task.sha256 {
                line(f, "", &format!("sha256 {hash}"))?;
            }
        }
        if self.files.iter().any(|file| file.sha256.is_some()) {
            writeln!(f, "files")?;
            for file in &self.files {
                let hash = file.sha256.as_deref().unwrap_or("-");
                writeln!(f, "  {hash}  {} ({})", file.name, size(file.bytes))?;
            }
        }
        if !self.tensors.is_empty() {
            writeln!(f, "tensors")?;
            let names = self
                .tensors
                .iter()
                .map(|tensor| tensor.name.chars().count());
            let width = names.max().unwrap_or(0);
            for tensor in &self.tensors {
                let hash = tensor.sha256.as_deref().unwrap_or_default();
                let row = format!(
                    "  {:width$}  {:4}  {:?}  {hash}",
                    tensor.name, tensor.dtype, tensor.shape
                );
                writeln!(f, "{}", row.trim_end())?;
            }
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, facts: &Facts) -> fmt::Result {
    if facts.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}")?;
    facts
        .iter()
        .try_for_each(|(name, value)| line(f, &name.replace('_', " "), &plain(value)))
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {name:COLUMN$}  {text}")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units, as disks and downloads are counted.
fn size(bytes: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match units.iter().find(|(_, unit)| bytes as f64 >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_their_unit() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(124_439_808), "124,439,808");
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(2_457_600), "2.5 MB");
    }
}
