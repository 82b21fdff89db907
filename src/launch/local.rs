//! This machine: a script that can also be run by hand, its last command taking the shell's place.

use anyhow::Result;
use minijinja::context;

use super::{JobSpec, Script, Templates};
use crate::diag::Diagnostic;

/// The script.
///
/// # Errors
/// More than one node, or a template that cannot be laid out.
pub fn render(job: &JobSpec, templates: &Templates) -> Result<(Script, Vec<Diagnostic>)> {
    if job.resources.nodes > 1 {
        return Err(Diagnostic::configuration(format!(
            "job `{}` asks for {} nodes, and `cluster_type=interactive` has this one",
            job.name, job.resources.nodes
        ))
        .hint(format!("{}.trainer.num_nodes=1", job.stage.name()))
        .hint("or where there are more: cluster_type=bcm, cluster_type=bcp")
        .into());
    }
    let last = job.groups.len().saturating_sub(1);
    let groups: Vec<_> = job
        .groups
        .iter()
        .enumerate()
        .map(|(index, group)| {
            let commands: Vec<String> = group
                .commands
                .iter()
                .map(|command| command.shell_lines().join(" \\\n  "))
                .collect();
            context! { commands, is_last => index == last }
        })
        .collect();
    let text = templates.render("local.sh.j2", context! { exports => job.exports(), groups })?;
    Ok((Script { text }, vec![]))
}
