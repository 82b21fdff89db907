//! A task's template, parsed once: where its virtual tokens stand, its fixed text, and its fields.
//!
//! Follows NeMo's `task_templates` (`gpt_prompt_learning_dataset.py`, v1.16), with these decisions of our own:
//!
//! - Everything that can be wrong in a template is checked here, before any data is read, and told at once.
//! - A field's text is put in as it is. Where it contains `{other}` or a marker, that stays text; NeMo fills
//!   placeholders one after another in the growing string, so that data could rewrite the template.
//! - ASCII spaces are cut off both ends of the filled template, as NeMo does (v1.16), and nowhere else: spaces beside a
//!   marker in the middle are kept and tokenised with the text they belong to.

use std::ops::Range;

use crate::diag::Diagnostic;
use crate::diag::suggest::did_you_mean;
use crate::schema::TaskTemplateSection;

const MARKER: &str = "<|VIRTUAL_PROMPT_";
const MARKER_END: &str = "|>";

/// A part of a template, in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Group number `k` of the virtual tokens (`<|VIRTUAL_PROMPT_k|>`), `virtual_token_splits[k]` of them.
    Virtual(usize),
    /// Fixed text.
    Text(String),
    /// The text of a field of the data row.
    Field(String),
}

/// A task: how its rows become a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskTemplate {
    /// Key of the task in the data and in the prompt table.
    pub taskname: String,
    /// Position in the list of templates.
    pub task_id_num: usize,
    /// The parsed template.
    pub pieces: Vec<Piece>,
    /// Number of virtual tokens, `V`.
    pub total_virtual_tokens: usize,
    /// Virtual tokens for each marker; they add up to `V`.
    pub virtual_token_splits: Vec<usize>,
    /// The field that is shortened where a row is too long.
    pub truncate_field: Option<String>,
    /// GPT: only the answer is learnt. T5 learns nothing else anyway.
    pub answer_only_loss: bool,
    /// The field to be generated, last in the template.
    pub answer_field: Option<String>,
}

/// A run of the filled template: virtual tokens, or text to tokenise as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Indices of the task's virtual tokens, 0-based.
    Virtual(Range<usize>),
    /// Text, with the byte ranges that came from fields.
    Text(FilledText),
}

/// Text of a filled template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilledText {
    /// What to tokenise.
    pub text: String,
    /// Byte ranges of `text` that come from the truncate field, in order.
    pub truncatable: Vec<Range<usize>>,
    /// Where the answer begins, with the spaces in front of it: the end of the prompt as it is when the answer is
    /// not there. Only in the segment that holds the answer.
    pub answer_start: Option<usize>,
}

/// The problems of one template, or of several.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.first().map_or("", String::as_str))]
struct Problems(Vec<String>);

impl TaskTemplate {
    /// Parses and checks the list of templates of a job.
    ///
    /// # Errors
    /// One [`Diagnostic`] that tells every problem of every template.
    pub fn parse_all(sections: &[TaskTemplateSection]) -> Result<Vec<Self>, Diagnostic> {
        let mut templates: Vec<Self> = Vec::with_capacity(sections.len());
        let mut problems = Vec::new();
        for (index, section) in sections.iter().enumerate() {
            match Self::parse(index, section) {
                Ok(template) => templates.push(template),
                Err(Problems(of_template)) => {
                    problems.extend(of_template.into_iter().map(|problem| {
                        format!(
                            "model.task_templates[{index}] (task `{}`): {problem}",
                            section.taskname
                        )
                    }));
                }
            }
            if sections[..index]
                .iter()
                .any(|earlier| earlier.taskname == section.taskname)
            {
                problems.push(format!(
                    "model.task_templates[{index}]: task `{}` is described a second time",
                    section.taskname
                ));
            }
        }
        if sections.is_empty() {
            problems.push(
                "model.task_templates: the list is empty; it needs one template for each task"
                    .to_owned(),
            );
        }
        match problems.len() {
            0 => Ok(templates),
            1 => Err(Diagnostic::configuration(problems.remove(0))),
            count => {
                let title = format!("{count} problems in the task templates");
                Err(Diagnostic::configuration(title).first_notes(problems))
            }
        }
    }

    fn parse(task_id_num: usize, section: &TaskTemplateSection) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let pieces = parse_pieces(&section.prompt_template, &mut problems);
        let template = Self {
            taskname: section.taskname.clone(),
            task_id_num,
            pieces,
            total_virtual_tokens: section.total_virtual_tokens,
            virtual_token_splits: section.virtual_token_splits.clone(),
            truncate_field: section.truncate_field.clone(),
            answer_only_loss: section.answer_only_loss,
            answer_field: section.answer_field.clone(),
        };
        if template.taskname.is_empty() {
            problems.push("`taskname` is empty".to_owned());
        } else if template.taskname.contains('.') {
            // The name is a part of tensor names, whose parts are separated by dots.
            problems.push("`taskname` must not contain a dot".to_owned());
        }
        template.check_virtual_tokens(&mut problems);
        template.check_fields(&mut problems);
        if problems.is_empty() {
            Ok(template)
        } else {
            Err(Problems(problems))
        }
    }

    fn check_virtual_tokens(&self, problems: &mut Vec<String>) {
        let splits = &self.virtual_token_splits;
        let sum = splits
            .iter()
            .try_fold(0usize, |sum, split| sum.checked_add(*split));
        if sum != Some(self.total_virtual_tokens) {
            problems.push(format!(
                "`virtual_token_splits` {splits:?} adds up to {}, but `total_virtual_tokens` is {}",
                sum.map_or("too much".to_owned(), |sum| sum.to_string()),
                self.total_virtual_tokens
            ));
        }
        let mut seen = vec![0usize; splits.len()];
        let mut markers = 0;
        for piece in &self.pieces {
            if let Piece::Virtual(k) = piece {
                markers += 1;
                if let Some(count) = seen.get_mut(*k) {
                    *count += 1;
                }
            }
        }
        if markers != splits.len() {
            problems.push(format!(
                "`prompt_template` has {markers} marker{} `{MARKER}k{MARKER_END}`, but `virtual_token_splits` has {} \
                 number{}",
                plural(markers),
                splits.len(),
                plural(splits.len())
            ));
        } else if let Some(absent) = seen.iter().position(|count| *count == 0) {
            problems.push(format!(
                "`prompt_template` has no marker `{MARKER}{absent}{MARKER_END}`: markers are numbered from 0, each once"
            ));
        }
    }

    fn check_fields(&self, problems: &mut Vec<String>) {
        let known = self.fields();
        for (key, field) in [
            ("truncate_field", &self.truncate_field),
            ("answer_field", &self.answer_field),
        ] {
            let Some(field) = field else { continue };
            if !known.contains(&field.as_str()) {
                let advice = did_you_mean(field, known.iter().copied())
                    .map(|name| format!("; did you mean `{name}`?"))
                    .unwrap_or_default();
                problems.push(format!(
                    "`{key}` names `{field}`, but `prompt_template` has no `{{{field}}}`{advice}"
                ));
            }
        }
        match &self.answer_field {
            None if self.answer_only_loss => {
                problems.push("`answer_only_loss` needs `answer_field`".to_owned());
            }
            Some(answer) if known.contains(&answer.as_str()) => {
                let count = self
                    .pieces
                    .iter()
                    .filter(|piece| **piece == Piece::Field(answer.clone()))
                    .count();
                if count > 1 || self.pieces.last() != Some(&Piece::Field(answer.clone())) {
                    problems.push(format!(
                        "`prompt_template` must end with `{{{answer}}}`, the answer, and have it nowhere else"
                    ));
                }
                if self.truncate_field.as_ref() == Some(answer) {
                    problems.push(format!(
                        "`truncate_field` and `answer_field` are both `{answer}`: the answer is never shortened"
                    ));
                }
            }
            _ => {}
        }
    }

    /// Names of the fields, each once, in order of appearance.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields: Vec<&str> = Vec::new();
        for piece in &self.pieces {
            if let Piece::Field(name) = piece
                && !fields.contains(&name.as_str())
            {
                fields.push(name);
            }
        }
        fields
    }

    /// The same task without its virtual tokens: what the frozen model makes of the bare text.
    pub fn without_virtual_tokens(&self) -> Self {
        Self {
            pieces: self
                .pieces
                .iter()
                .filter(|piece| !matches!(piece, Piece::Virtual(_)))
                .cloned()
                .collect(),
            total_virtual_tokens: 0,
            virtual_token_splits: vec![],
            ..self.clone()
        }
    }

    /// Fills the template. `text_of` gives the text of a field; the answer is put in only where `with_answer`.
    ///
    /// Segments alternate between virtual tokens and text; there is no empty text.
    pub fn fill<'a>(&self, text_of: impl Fn(&str) -> &'a str, with_answer: bool) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut current = FilledText::default();
        let mut is_first = true;
        for piece in &self.pieces {
            match piece {
                Piece::Virtual(k) => {
                    if is_first {
                        current.trim_start();
                    }
                    is_first = false;
                    if !current.text.is_empty() {
                        segments.push(Segment::Text(std::mem::take(&mut current)));
                    }
                    let start = self.virtual_token_splits[..*k].iter().sum();
                    segments.push(Segment::Virtual(
                        start..start + self.virtual_token_splits[*k],
                    ));
                }
                Piece::Text(text) => current.text.push_str(text),
                Piece::Field(name) => {
                    let is_answer = self.answer_field.as_ref() == Some(name);
                    if is_answer {
                        current.answer_start = Some(current.text.trim_end_matches(' ').len());
                        if !with_answer {
                            continue;
                        }
                    }
                    let start = current.text.len();
                    current.text.push_str(text_of(name));
                    if self.truncate_field.as_ref() == Some(name) {
                        current.truncatable.push(start..current.text.len());
                    }
                }
            }
        }
        if is_first {
            current.trim_start();
        }
        current.trim_end();
        if !current.text.is_empty() {
            segments.push(Segment::Text(current));
        }
        segments
    }
}

impl FilledText {
    /// Cuts ASCII spaces off the front.
    fn trim_start(&mut self) {
        let cut = self.text.len() - self.text.trim_start_matches(' ').len();
        self.text.drain(..cut);
        for range in &mut self.truncatable {
            *range = range.start.saturating_sub(cut)..range.end.saturating_sub(cut);
        }
        self.answer_start = self.answer_start.map(|start| start.saturating_sub(cut));
    }

    /// Cuts ASCII spaces off the end.
    fn trim_end(&mut self) {
        let length = self.text.trim_end_matches(' ').len();
        self.text.truncate(length);
        for range in &mut self.truncatable {
            *range = range.start.min(length)..range.end.min(length);
        }
        self.answer_start = self.answer_start.map(|start| start.min(length));
    }
}

/// Cuts a template at its markers and at every shortest `{…}`. A brace without its partner is text.
fn parse_pieces(template: &str, problems: &mut Vec<String>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(first) = rest.chars().next() {
        let special = if let Some(inner) = rest.strip_prefix(MARKER) {
            let marker = inner
                .split_once(MARKER_END)
                .and_then(|(number, after)| Some((Piece::Virtual(number.parse().ok()?), after)));
            if marker.is_none() {
                problems.push(format!(
                    "`prompt_template` has a marker that is not `{MARKER}k{MARKER_END}` with a number k: `{}`",
                    rest.chars().take(30).collect::<String>()
                ));
            }
            marker
        } else if let Some(inner) = rest.strip_prefix('{') {
            match inner.split_once('}') {
                Some(("", _)) => {
                    problems.push(
                        "`prompt_template` has a placeholder without a name: `{}`".to_owned(),
                    );
                    None
                }
                Some((name, after)) => Some((Piece::Field(name.to_owned()), after)),
                None => None,
            }
        } else {
            None
        };
        if let Some((piece, after)) = special {
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(piece);
            rest = after;
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(template: &str, splits: &[usize]) -> TaskTemplateSection {
        TaskTemplateSection {
            taskname: "squad".to_owned(),
            prompt_template: template.to_owned(),
            total_virtual_tokens: splits.iter().sum(),
            virtual_token_splits: splits.to_vec(),
            truncate_field: None,
            answer_only_loss: false,
            answer_field: None,
        }
    }

    fn problem_of(section: TaskTemplateSection) -> String {
        TaskTemplate::parse_all(&[section]).unwrap_err().to_string()
    }

    fn text(text: &str) -> FilledText {
        FilledText {
            text: text.to_owned(),
            ..FilledText::default()
        }
    }

    const SQUAD: &str = "<|VIRTUAL_PROMPT_0|>Context: {context} <|VIRTUAL_PROMPT_1|> Question: {question} Answer: {answer}";

    fn squad() -> TaskTemplate {
        let section = TaskTemplateSection {
            truncate_field: Some("context".to_owned()),
            answer_only_loss: true,
            answer_field: Some("answer".to_owned()),
            ..section(SQUAD, &[3, 2])
        };
        TaskTemplate::parse_all(&[section]).unwrap().remove(0)
    }

    fn value(field: &str) -> &'static str {
        match field {
            "context" => "a {question} {",
            "question" => "Which?",
            "answer" => " red ",
            _ => panic!("no such field"),
        }
    }

    #[test]
    fn a_template_falls_into_its_markers_texts_and_fields() {
        let template = squad();
        assert_eq!(
            template.pieces[..3],
            [
                Piece::Virtual(0),
                Piece::Text("Context: ".to_owned()),
                Piece::Field("context".to_owned()),
            ]
        );
        assert_eq!(template.fields(), ["context", "question", "answer"]);
    }

    #[test]
    fn filling_keeps_braces_of_the_data_and_knows_where_the_answer_begins() {
        let segments = squad().fill(value, true);
        assert_eq!(
            segments,
            [
                Segment::Virtual(0..3),
                Segment::Text(FilledText {
                    truncatable: Vec::from([Range { start: 9, end: 23 }]),
                    ..text("Context: a {question} { ")
                }),
                Segment::Virtual(3..5),
                Segment::Text(FilledText {
                    answer_start: Some(25),
                    ..text(" Question: Which? Answer:  red")
                }),
            ]
        );
    }

    #[test]
    fn without_its_answer_a_template_ends_where_the_answer_would_begin() {
        let segments = squad().fill(value, false);
        let Some(Segment::Text(last)) = segments.last() else {
            panic!("{segments:?}")
        };
        assert_eq!(last.text, " Question: Which? Answer:");
        assert_eq!(last.answer_start, Some(last.text.len()));
    }

    #[test]
    fn spaces_are_cut_from_the_ends_only() {
        let template =
            TaskTemplate::parse_all(&[section("  {context} <|VIRTUAL_PROMPT_0|> ", &[1])]).unwrap();
        let segments = template[0].fill(|_| " x", true);
        assert_eq!(
            segments,
            [Segment::Text(text("x ")), Segment::Virtual(0..1)]
        );
        let bare = template[0].without_virtual_tokens().fill(|_| "x", true);
        assert_eq!(bare, [Segment::Text(text("x"))]);
    }

    #[test]
    fn each_mistake_in_a_template_is_told() {
        let wrong_sum = TaskTemplateSection {
            total_virtual_tokens: 9,
            ..section(SQUAD, &[3, 2])
        };
        assert!(problem_of(wrong_sum).contains("adds up to 5, but `total_virtual_tokens` is 9"));
        assert!(problem_of(section(SQUAD, &[5])).contains("has 2 markers"));
        assert!(
            problem_of(section("<|VIRTUAL_PROMPT_1|>{a}", &[5]))
                .contains("no marker `<|VIRTUAL_PROMPT_0|>`")
        );
        assert!(problem_of(section("<|VIRTUAL_PROMPT_x|>{a}", &[])).contains("VIRTUAL_PROMPT_x"));
        let unknown = TaskTemplateSection {
            truncate_field: Some("contxt".to_owned()),
            ..section(SQUAD, &[3, 2])
        };
        assert!(problem_of(unknown).contains("did you mean `context`?"));
        let not_last = TaskTemplateSection {
            answer_field: Some("question".to_owned()),
            ..section(SQUAD, &[3, 2])
        };
        assert!(problem_of(not_last).contains("must end with `{question}`"));
        let both = TaskTemplateSection {
            truncate_field: Some("answer".to_owned()),
            answer_field: Some("answer".to_owned()),
            ..section(SQUAD, &[3, 2])
        };
        assert!(problem_of(both).contains("never shortened"));
        let without = TaskTemplateSection {
            answer_only_loss: true,
            ..section(SQUAD, &[3, 2])
        };
        assert!(problem_of(without).contains("`answer_only_loss` needs `answer_field`"));
    }

    #[test]
    fn all_problems_of_all_templates_are_told_at_once() {
        let diagnostic =
            TaskTemplate::parse_all(&[section(SQUAD, &[5]), section("{}", &[])]).unwrap_err();
        assert_eq!(diagnostic.notes.len(), 3, "{diagnostic}");
        assert!(
            diagnostic.notes[2].contains("a second time"),
            "{diagnostic}"
        );
    }
}
