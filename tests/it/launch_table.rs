//! The table of command lines in launch_cases.txt, each run as `ptune --dry-run` and compared with what its author wrote
//! down of the original's scripts.
//!
//! A case begins `case NAME` or `case NAME < OTHER`, which starts from what OTHER expects. Then:
//! `$` words of the command line; `%` a variable of its environment; `script` where the first script lies; `+` and `-` an
//! `#SBATCH` line that comes and one that goes; `export`, `srun`, `bcprun` whole lines, in order, in place of all of the
//! other case's; `command` the variables set for the command itself; `next < OTHER` the following job of a chain, and
//! `job < OTHER` another start for this one. RES is the results folder and JOB the name of the job, both taken from
//! where the script lies.

use std::collections::BTreeMap;

use crate::sandbox::Sandbox;

/// What a script holds, or should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Script {
    path: String,
    directives: Vec<String>,
    exports: Vec<String>,
    launches: Vec<String>,
    command: String,
}

#[derive(Default)]
struct Case {
    name: String,
    words: Vec<String>,
    variables: Vec<(String, String)>,
    scripts: Vec<Script>,
}

impl Script {
    /// Directives in the order of the original: by key, with underscores.
    fn sort(&mut self) {
        self.directives.sort_by_key(|line| {
            let key = line.split('=').next().unwrap_or(line);
            key.replace('-', "_")
        });
    }

    /// RES and JOB as they are in this script's path.
    fn filled(&self) -> Self {
        let (folder, file) = self.path.rsplit_once('/').unwrap();
        let job = file.strip_suffix("_submission.sh").unwrap();
        let fill = |lines: &[String]| -> Vec<String> {
            lines
                .iter()
                .map(|line| {
                    line.replace("RES", folder)
                        .replace("JOB_%", &format!("{job}_%"))
                })
                .map(|line| line.replace("JOB_mem", &format!("{job}_mem")))
                .map(|line| line.replace("JOB_vboost", &format!("{job}_vboost")))
                .map(|line| match line.strip_prefix("job-name=") {
                    Some(value) => format!("job-name={}", value.replace("JOB", job)),
                    None => line,
                })
                .collect()
        };
        Self {
            directives: fill(&self.directives),
            launches: fill(&self.launches),
            ..self.clone()
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    let mut known: BTreeMap<String, Script> = BTreeMap::new();
    // Which kinds of whole lines the present job has begun to give anew.
    let mut given = [false; 2];
    for line in include_str!("launch_cases.txt").lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if matches!(word, "case" | "next")
            && let Some(case) = cases.last_mut()
            && let Some(script) = case.scripts.last()
            && case.scripts.len() == 1
        {
            known.insert(case.name.clone(), script.clone());
        }
        let start = |rest: &str| match rest.split_once("< ") {
            Some((_, other)) => known
                .get(other)
                .unwrap_or_else(|| panic!("no case `{other}`"))
                .clone(),
            None => Script::default(),
        };
        if word == "case" {
            given = [false; 2];
            cases.push(Case {
                name: rest.split(" < ").next().unwrap().to_owned(),
                scripts: vec![start(rest)],
                ..Case::default()
            });
            continue;
        }
        let Some(case) = cases.last_mut() else {
            continue; // the words at the top of the file
        };
        let script = case.scripts.last_mut().unwrap();
        let anew = |lines: &mut Vec<String>, given: &mut bool, line: &str| {
            if !std::mem::replace(given, true) {
                lines.clear();
            }
            lines.push(line.to_owned());
        };
        match word {
            "" | "#" => {}
            "$" => case.words = shlex::split(rest).unwrap(),
            "%" => case.variables.extend(
                rest.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            ),
            "script" => rest.clone_into(&mut script.path),
            "+" => script.directives.push(rest.to_owned()),
            "-" if rest == "nothing" => {}
            "-" => {
                let at = script.directives.iter().position(|line| line == rest);
                script
                    .directives
                    .remove(at.unwrap_or_else(|| panic!("no line `{rest}`")));
            }
            "export" => anew(&mut script.exports, &mut given[0], rest),
            "srun" | "bcprun" => anew(&mut script.launches, &mut given[1], line),
            "command" => rest.clone_into(&mut script.command),
            "job" => *script = start(rest),
            "next" => {
                given = [false; 2];
                case.scripts.push(start(rest));
            }
            other => panic!("`{other}` begins no line: {line}"),
        }
    }
    cases
}

/// The scripts that a dry run shows.
fn found(stdout: &str) -> Vec<Script> {
    let mut scripts: Vec<Script> = vec![];
    for line in stdout.lines() {
        if let Some(path) = line.strip_prefix("# /") {
            scripts.push(Script {
                path: format!("/{path}"),
                ..Script::default()
            });
        }
        let Some(script) = scripts.last_mut() else {
            continue;
        };
        if let Some(directive) = line.strip_prefix("#SBATCH --") {
            script.directives.push(directive.to_owned());
        } else if let Some(export) = line.strip_prefix("export ") {
            // Part of what ptune does for jobs that are put back into the queue; the original knows nothing of them.
            if !export.starts_with("SLURM_OPEN_MODE=") {
                script.exports.push(export.to_owned());
            }
        } else if line.starts_with("srun ") && !line.starts_with("srun()")
            || line.starts_with("bcprun ")
        {
            let arguments = line
                .trim_end_matches(" bash -c \"")
                .trim_end_matches(" --cmd \"")
                .trim_end_matches(" \\");
            script.launches.push(arguments.to_owned());
        } else if let Some(at) = line.find("ptune worker") {
            line[..at].trim().clone_into(&mut script.command);
        }
    }
    scripts
}

#[test]
fn every_command_line_of_the_table_makes_the_originals_lines() {
    let cases = cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = vec![];
    for case in &cases {
        let sandbox = Sandbox::new();
        let here = sandbox
            .path("")
            .canonicalize()
            .unwrap()
            .display()
            .to_string();
        let mut words = vec!["--dry-run".to_owned(), "ptune_path=ptune".to_owned()];
        words.extend(
            case.words
                .iter()
                .map(|word| word.replace("/sandbox", here.trim_end_matches('/'))),
        );
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = sandbox.command(&words);
        command.envs(case.variables.iter().cloned());
        let ran = sandbox.ran(command.output().unwrap());
        if !ran.showed_scripts() {
            wrong.push(format!("{}: {}", case.name, ran.stderr));
            continue;
        }
        let expected: Vec<Script> = case
            .scripts
            .iter()
            .map(|script| {
                let mut script = script.filled();
                script.sort();
                script
            })
            .collect();
        let found = found(&ran.stdout);
        if found != expected {
            wrong.push(format!(
                "{}:\nfound    {found:#?}\nexpected {expected:#?}",
                case.name
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
