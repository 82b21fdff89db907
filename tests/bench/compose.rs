//! Speed of composition: `cargo bench --no-default-features --bench compose`.
//!
//! Each turn is what `ptune --cfg job` does once the process runs: read the files, compose, print. The tree is our own
//! conf/; `PTUNE_BENCH_TREE=DIR` takes another, such as the conf/ of NeMo-Framework-Launcher.

use std::hint::black_box;
use std::path::Path;

use criterion::Criterion;
use ptune::config::{ComposeRequest, ConfigPart, ConfigRepository, ConfigSource, compose};

fn main() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let tree = ptune::sys::env_vars::get("PTUNE_BENCH_TREE").map_or(own, Into::into);
    let cfg_job = |words: &[String]| {
        // A repository keeps what it has read, so each turn has its own.
        let repository = ConfigRepository::new(vec![ConfigSource::Folder(tree.clone())]);
        let request = ComposeRequest {
            repository: &repository,
            config_name: Some("config"),
            overrides: words,
        };
        let config = compose(&request).expect("the tree composes");
        config
            .print(ConfigPart::Job, None, false)
            .expect("no interpolation is resolved")
    };
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("compose and print --cfg job", |bencher| {
        bencher.iter(|| black_box(cfg_job(&[])));
    });
    let words: Vec<String> = ["stages=[prompt_learning]", "+extra.key=1"]
        .map(str::to_owned)
        .to_vec();
    criterion.bench_function("the same with two words", |bencher| {
        bencher.iter(|| black_box(cfg_job(&words)));
    });
}
