//! `ptune report FOLDER`: a run's report, made again from its files.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::report;

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Results folder of a job, or one with several of them
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub(super) fn report(arguments: &ReportArguments) -> Result<i32> {
    let mut out = std::io::stdout().lock();
    for path in report::write_all(&arguments.folder)? {
        writeln!(out, "{}", path.display())?;
    }
    Ok(0)
}
