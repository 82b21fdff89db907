//! conf/ as part of the binary, so that the binary alone is enough.

/// Path below conf/ and text of every file.
pub(super) const CONF: &[(&str, &str)] = &[
    (
        "cluster/bcm.yaml",
        include_str!("../../conf/cluster/bcm.yaml"),
    ),
    ("config.yaml", include_str!("../../conf/config.yaml")),
    (
        "conversion/gpt3/convert_gpt3.yaml",
        include_str!("../../conf/conversion/gpt3/convert_gpt3.yaml"),
    ),
    (
        "conversion/llama/convert_llama.yaml",
        include_str!("../../conf/conversion/llama/convert_llama.yaml"),
    ),
    (
        "conversion/mt5/convert_mt5.yaml",
        include_str!("../../conf/conversion/mt5/convert_mt5.yaml"),
    ),
    (
        "conversion/t5/convert_t5.yaml",
        include_str!("../../conf/conversion/t5/convert_t5.yaml"),
    ),
    (
        "data_preparation/squad/prepare_squad.yaml",
        include_str!("../../conf/data_preparation/squad/prepare_squad.yaml"),
    ),
    (
        "data_preparation/squad/prepare_xquad.yaml",
        include_str!("../../conf/data_preparation/squad/prepare_xquad.yaml"),
    ),
    (
        "evaluation/prompt_gpt3/squad.yaml",
        include_str!("../../conf/evaluation/prompt_gpt3/squad.yaml"),
    ),
    (
        "evaluation/prompt_llama/squad.yaml",
        include_str!("../../conf/evaluation/prompt_llama/squad.yaml"),
    ),
    (
        "evaluation/prompt_mt5/squad.yaml",
        include_str!("../../conf/evaluation/prompt_mt5/squad.yaml"),
    ),
    (
        "evaluation/prompt_t5/squad.yaml",
        include_str!("../../conf/evaluation/prompt_t5/squad.yaml"),
    ),
    (
        "evaluation/quickstart.yaml",
        include_str!("../../conf/evaluation/quickstart.yaml"),
    ),
    (
        "prompt_learning/gpt3/squad.yaml",
        include_str!("../../conf/prompt_learning/gpt3/squad.yaml"),
    ),
    (
        "prompt_learning/llama/squad.yaml",
        include_str!("../../conf/prompt_learning/llama/squad.yaml"),
    ),
    (
        "prompt_learning/mt5/squad.yaml",
        include_str!("../../conf/prompt_learning/mt5/squad.yaml"),
    ),
    (
        "prompt_learning/quickstart.yaml",
        include_str!("../../conf/prompt_learning/quickstart.yaml"),
    ),
    (
        "prompt_learning/t5/squad.yaml",
        include_str!("../../conf/prompt_learning/t5/squad.yaml"),
    ),
    (
        "prompt_learning/t5/xquad.yaml",
        include_str!("../../conf/prompt_learning/t5/xquad.yaml"),
    ),
    (
        "quickstart.yaml",
        include_str!("../../conf/quickstart.yaml"),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn files_below(folder: &Path, found: &mut Vec<String>, root: &Path) {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, found, root);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }

    #[test]
    fn every_file_of_conf_is_part_of_the_binary() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
        let mut on_disk = vec![];
        files_below(&root, &mut on_disk, &root);
        on_disk.sort();
        let mut embedded: Vec<&str> = CONF.iter().map(|(path, _)| *path).collect();
        embedded.sort_unstable();
        assert_eq!(embedded, on_disk);
    }
}
