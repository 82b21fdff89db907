//! Base Command Platform: the launcher runs inside the job's first replica, `bcprun` starts the tasks on all of them.

use anyhow::Result;
use minijinja::context;

use super::quote::{inside_double_quotes, shell_quote};
use super::{Cluster, JobSpec, Script, Templates};
use crate::diag::Diagnostic;
use crate::sys::clock::log_stamp;

/// The arguments of one `bcprun` before `--cmd`. Blanks between them are the original's, empty flags included.
fn arguments(cluster: &Cluster, job: &JobSpec) -> String {
    let redirect = if cluster.bcp_no_redirect {
        "-no_redirect"
    } else {
        ""
    };
    let launcher = "";
    let environment: Vec<String> = job
        .environment
        .iter()
        .map(|(name, value)| {
            let pair = format!("{name}={value}");
            // The original puts every pair between single quotes.
            let quoted = shell_quote(&pair);
            if quoted.starts_with('\'') {
                format!("--env {quoted}")
            } else {
                format!("--env '{quoted}'")
            }
        })
        .collect();
    format!(
        "--nnodes {} --npernode {} {redirect} {launcher} {}",
        job.resources.nodes,
        job.resources.ntasks_per_node,
        environment.join(" ")
    )
    .trim_end()
    .to_owned()
}

/// The script.
///
/// # Errors
/// The template cannot be laid out.
pub fn render(
    cluster: &Cluster,
    job: &JobSpec,
    templates: &Templates,
) -> Result<(Script, Vec<Diagnostic>)> {
    let groups: Vec<_> = job
        .groups
        .iter()
        .map(|group| {
            let commands: Vec<String> = group
                .commands
                .iter()
                .map(|command| {
                    let lines: Vec<String> = command
                        .shell_lines()
                        .iter()
                        .map(|line| inside_double_quotes(line))
                        .collect();
                    lines.join(" \\\n  ")
                })
                .collect();
            context! { arguments => arguments(cluster, job), commands }
        })
        .collect();
    let log_file = job
        .log_file
        .clone()
        .unwrap_or_else(|| job.paths.log_file(&log_stamp(), "out"));
    let text = templates.render(
        "bcp.sh.j2",
        context! {
            exports => job.exports(),
            groups,
            log_file => shell_quote(&log_file.display().to_string())
        },
    )?;
    Ok((Script { text }, vec![]))
}
