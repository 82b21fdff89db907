//! The jobs of a sweep side by side: no two may write into one folder, and at the end one table says where they are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Plan;
use crate::diag::Diagnostic;
use crate::launch::follow::read_manifest;

/// What is known of the jobs of a sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    jobs: Vec<SweptJob>,
    folders: BTreeMap<PathBuf, usize>,
}

#[derive(Debug)]
struct SweptJob {
    number: usize,
    words: Vec<String>,
    folders: Vec<PathBuf>,
}

impl Sweep {
    /// Adds the plan of a job; nothing is written yet.
    ///
    /// # Errors
    /// An earlier job would write into the same folder.
    pub fn add(&mut self, number: usize, words: &[String], plan: &Plan) -> Result<(), Diagnostic> {
        let jobs = plan
            .jobs
            .iter()
            .map(|job| (job.key(), job.spec.paths.folder.clone()))
            .collect();
        self.add_folders(number, words.to_vec(), jobs)
    }

    fn add_folders(
        &mut self,
        number: usize,
        words: Vec<String>,
        jobs: Vec<(&'static str, PathBuf)>,
    ) -> Result<(), Diagnostic> {
        let mut shared: Vec<(&str, &PathBuf, usize)> = vec![];
        for (key, folder) in &jobs {
            if let Some(other) = self.folders.get(folder) {
                shared.push((key, folder, *other));
            }
        }
        if let Some((_, folder, other)) = shared.first() {
            let mut diagnostic = Diagnostic::configuration(format!(
                "jobs {other} and {number} of the sweep would both write into `{}`",
                folder.display()
            ));
            for job in self.jobs.iter().filter(|job| job.number == *other) {
                diagnostic = diagnostic.note(format!("job {other}: {}", job.words.join(" ")));
            }
            diagnostic = diagnostic.note(format!("job {number}: {}", words.join(" ")));
            let paste: Vec<String> = shared
                .iter()
                .map(|(key, folder, _)| {
                    format!(
                        "'{key}.run.results_dir=\"{}_${{hydra:job.num}}\"'",
                        folder.display()
                    )
                })
                .collect();
            return Err(diagnostic.hint(format!(
                "give every job a folder of its own, for example by its number: {}",
                paste.join(" ")
            )));
        }
        for (_, folder) in &jobs {
            self.folders.insert(folder.clone(), number);
        }
        self.jobs.push(SweptJob {
            number,
            words,
            folders: jobs.into_iter().map(|(_, folder)| folder).collect(),
        });
        Ok(())
    }

    /// The words of a job that are not those of all jobs.
    fn own_words(&self, job: &SweptJob) -> String {
        let differs = |word: &&String| self.jobs.iter().any(|other| !other.words.contains(word));
        let own: Vec<&str> = job
            .words
            .iter()
            .filter(differs)
            .map(String::as_str)
            .collect();
        own.join(" ")
    }

    /// One line for each stage of each job: its number, the words that it alone has, the scheduler's number where there
    /// is one, and its folder.
    pub fn table(&self) -> String {
        let mut rows = vec![["#", "words", "job", "results"].map(str::to_owned)];
        for job in &self.jobs {
            for folder in &job.folders {
                let id = read_manifest(folder)
                    .ok()
                    .and_then(|manifest| manifest.job_id)
                    .unwrap_or_else(|| "-".to_owned());
                rows.push([
                    job.number.to_string(),
                    self.own_words(job),
                    id,
                    folder.display().to_string(),
                ]);
            }
        }
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths = [width(0), width(1), width(2)];
        rows.iter()
            .map(|[number, words, id, folder]| {
                format!(
                    "{number:>0$}  {words:1$}  {id:2$}  {folder}\n",
                    widths[0], widths[1], widths[2]
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_jobs_may_not_share_a_folder_and_the_hint_can_be_pasted() {
        let mut sweep = Sweep::default();
        let add = |sweep: &mut Sweep, number: usize, folder: &str| {
            sweep.add_folders(
                number,
                vec![format!("lr={number}")],
                vec![("prompt_learning", folder.into())],
            )
        };
        add(&mut sweep, 0, "/r/a").unwrap();
        add(&mut sweep, 1, "/r/b").unwrap();
        let text = add(&mut sweep, 2, "/r/a").unwrap_err().to_string();
        assert!(
            text.contains("jobs 0 and 2 of the sweep would both write into `/r/a`"),
            "{text}"
        );
        assert!(
            text.contains("'prompt_learning.run.results_dir=\"/r/a_${hydra:job.num}\"'"),
            "{text}"
        );
    }

    #[test]
    fn the_table_has_a_line_for_each_stage_of_each_job_with_the_words_that_differ() {
        let mut sweep = Sweep::default();
        for number in 0..2 {
            sweep
                .add_folders(
                    number,
                    vec![
                        "c=1".to_owned(),
                        format!("a.b={}", 10_usize.pow(number as u32)),
                    ],
                    vec![("prompt_learning", format!("/nowhere/{number}").into())],
                )
                .unwrap();
        }
        assert_eq!(
            sweep.table(),
            "#  words   job  results\n0  a.b=1   -    /nowhere/0\n1  a.b=10  -    /nowhere/1\n"
        );
    }
}
