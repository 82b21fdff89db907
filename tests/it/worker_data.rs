//! What a training does with its rows: the cache, rows that are left out, and the keys that change them.

use crate::sandbox::Sandbox;
use crate::tiny_models::{tiny_gpt2, tiny_t5};
use crate::worker_train::{config, losses, train};

#[test]
fn a_cached_training_equals_an_uncached_one_and_a_damaged_cache_is_mended() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let run = |results: &str, cache: &str| {
        let changes = ["model.nemo_path=prompt.nemo", cache];
        let said = train(&sandbox, &config(&sandbox, &model, results, &changes), 0).stderr;
        (said, fs_err::read(sandbox.path("prompt.nemo")).unwrap())
    };
    let files = || -> Vec<_> {
        fs_err::read_dir(sandbox.path("kept"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    let archives: Vec<Vec<u8>> = [
        ("plain", "model.data.cache=false"),
        ("written", "model.data.cache_dir=kept"),
    ]
    .map(|(results, cache)| run(results, cache).1)
    .into();
    // Training and validation rows are the same file here.
    let path = files().remove(0);
    assert_eq!(files().len(), 1);
    let (said, read) = run("read", "model.data.cache_dir=kept");
    assert!(said.contains("tokenised rows from kept/"), "{said}");
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (said, mended) = run("mended", "model.data.cache_dir=kept");
    assert!(said.contains("are damaged; they are made anew"), "{said}");
    assert!(fs_err::read(&path).unwrap() == whole);
    // The archive names the cache; what was trained is the same.
    let bits = |bytes: &[u8]| {
        sandbox.write("one.nemo", bytes);
        let archive = ptune::export::nemo::PromptArchive::open(&sandbox.path("one.nemo")).unwrap();
        let rows = archive.tasks["squad"]
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        rows.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    };
    for other in [&archives[1], &read, &mended] {
        assert_eq!(bits(&archives[0]), bits(other));
    }
    assert_eq!(losses(&sandbox, "plain"), losses(&sandbox, "read"));

    // Where it cannot be written nothing is kept, and the training does not mind.
    sandbox.write("file", "");
    run("without", "model.data.cache_dir=file/below");
    // By default rows that take less than a second are not worth a file.
    run("default", "model.data.cache=true");
    assert!(!sandbox.path("cache").exists());
}

#[test]
fn rows_that_are_left_out_are_listed_with_their_place_and_reason() {
    let sandbox = Sandbox::new();
    let model = tiny_gpt2(&sandbox.path("gpt2"));
    let config = config(&sandbox, &model, "a", &["trainer.max_steps=1"]);
    let rows = sandbox.read("train.jsonl");
    let long = rows
        .lines()
        .next()
        .unwrap()
        .replace("kind", &"k".repeat(200));
    sandbox.write("train.jsonl", format!("{rows}\n{long}\n"));
    let said = train(&sandbox, &config, 0).stderr;
    assert!(
        said.contains("2 rows were left out: a/results/skipped.jsonl"),
        "{said}"
    );
    let listed: Vec<serde_json::Value> = sandbox
        .read("a/results/skipped.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (line, data) in listed.iter().zip(["training", "validation"]) {
        assert_eq!(line["data"], data);
        assert_eq!(line["file"], "train.jsonl");
        assert_eq!(line["line"], rows.lines().count() + 2);
        assert!(
            line["reason"].as_str().unwrap().contains("max_seq_length"),
            "{line}"
        );
    }
    assert_eq!(listed.len(), 2);

    // Once nothing is left out there is no list.
    sandbox.write("train.jsonl", &rows);
    let text = sandbox
        .read(&config)
        .replace("resume_if_exists: true", "resume_if_exists: false");
    sandbox.write(&config, text);
    train(&sandbox, &config, 0);
    assert!(!sandbox.path("a/results/skipped.jsonl").exists());
}

#[test]
fn each_key_of_the_data_section_reaches_the_rows_of_its_kind_of_model() {
    let sandbox = Sandbox::new();
    let (gpt, t5) = (
        tiny_gpt2(&sandbox.path("gpt2")),
        tiny_t5(&sandbox.path("t5")),
    );
    let mut runs = 0;
    let mut first_loss = |model: &std::path::Path, changes: &[&str]| {
        runs += 1;
        let results = format!("run{runs}");
        let changes = [
            &["trainer.max_steps=1", "model.data.shuffle=false"],
            changes,
        ]
        .concat();
        train(&sandbox, &config(&sandbox, model, &results, &changes), 0);
        losses(&sandbox, &results)[0]
    };
    let plain = first_loss(&gpt, &[]);
    for change in [
        "model.data.add_eos=false",
        "model.data.add_bos=true",
        "model.data.max_seq_length=20",
        "model.data.shuffle=true",
    ] {
        assert_ne!(
            plain.to_bits(),
            first_loss(&gpt, &[change]).to_bits(),
            "{change}"
        );
    }
    let plain = first_loss(&t5, &[]);
    assert_eq!(
        plain.to_bits(),
        first_loss(&t5, &["model.data.decoder_starts_with_pad=true"]).to_bits(),
        "Hugging Face's T5 starts with the padding token"
    );
    for change in ["model.data.add_eos=false", "model.data.max_seq_length=16"] {
        assert_ne!(
            plain.to_bits(),
            first_loss(&t5, &[change]).to_bits(),
            "{change}"
        );
    }
}
