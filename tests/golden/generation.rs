//! What we write on the tiny models, token for token what transformers wrote (`tests/cases/generate/make.py`), with all
//! prompts of a case in one batch.

use std::path::Path;

use ptune::generate::{
    BeamSearch, EarlyStopping, GenerateOptions, Prompts, Sampling, Strategy, generate, penalise,
    unwatched,
};
use ptune::model::{LanguageModel, LoadOptions, Rows};
use serde_json::Value;

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/generate/transformers.json");
    serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn options(case: &Value, is_t5: bool) -> GenerateOptions {
    let settings = &case["settings"];
    GenerateOptions {
        max_new_tokens: case["new"].as_u64().unwrap() as usize,
        min_new_tokens: settings["min_new_tokens"].as_u64().unwrap_or(0) as usize,
        eos: Some(case["end"].as_u64().unwrap() as u32),
        decoder_start: if is_t5 { vec![0] } else { vec![] },
        strategy: match settings["num_beams"].as_u64() {
            None => Strategy::Greedy,
            Some(beams) => Strategy::Beam(BeamSearch {
                beams: beams as usize,
                length_penalty: settings["length_penalty"].as_f64().unwrap_or(1.0),
                early_stopping: match &settings["early_stopping"] {
                    Value::Bool(true) => EarlyStopping::Yes,
                    Value::String(_) => EarlyStopping::Never,
                    _ => EarlyStopping::Estimate,
                },
            }),
        },
        repetition_penalty: settings["repetition_penalty"].as_f64().unwrap_or(1.0),
        log_probabilities: true,
        ..GenerateOptions::default()
    }
}

#[test]
fn greedy_beams_and_penalties_write_what_transformers_writes() {
    let reference = reference();
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 35);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/fixtures");
    for case in cases {
        let folder = fixtures.join(case["model"].as_str().unwrap());
        let model = LanguageModel::load(&folder, &LoadOptions::default()).unwrap();
        let prompts: Vec<Vec<u32>> = case["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(ids)
            .collect();
        let options = options(case, matches!(model, LanguageModel::T5(_)));
        let expected: Vec<Vec<u32>> = case["written"]
            .as_array()
            .unwrap()
            .iter()
            .map(ids)
            .collect();
        let rows = Rows::new(prompts.iter().map(Vec::len).collect::<Vec<_>>());
        let flat = prompts.concat();
        let embeddings = model.embed_tokens(&flat).unwrap();
        let prompts = Prompts {
            ids: &flat,
            ..Prompts::new(&embeddings, &rows)
        };
        let answers = generate(&model, prompts, &options, &mut unwatched).unwrap();
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(
                &answer.ids, expected,
                "{} {}",
                case["model"], case["settings"]
            );
            let ended_by_eos = answer.finished;
            assert_eq!(
                answer.log_probabilities.len(),
                expected.len() + usize::from(ended_by_eos)
            );
            assert!(answer.log_probabilities.iter().all(|p| *p <= 1e-6));
        }
    }
}

#[test]
fn temperature_top_k_and_top_p_give_the_distributions_of_transformers() {
    let reference = reference();
    let mut largest = 0f64;
    for case in reference["distributions"].as_array().unwrap() {
        let floats = |key: &str| -> Vec<f32> { serde_json::from_value(case[key].clone()).unwrap() };
        let mut logits = floats("logits");
        let mut used = ids(&case["used"]);
        used.dedup();
        penalise(&mut logits, used, case["penalty"].as_f64().unwrap());
        let sampling = Sampling {
            temperature: case["temperature"].as_f64().unwrap(),
            top_k: case["top_k"].as_u64().unwrap() as usize,
            top_p: case["top_p"].as_f64().unwrap(),
        };
        let candidates = sampling.candidates(&logits);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let expected = floats("probabilities");
        let kept = expected.iter().filter(|p| **p > 0.0).count();
        assert_eq!(candidates.len(), kept, "{case}");
        for (token, weight) in candidates {
            let difference = (weight / total - f64::from(expected[token as usize])).abs();
            largest = largest.max(difference);
        }
    }
    assert!(largest < 1e-6, "probabilities differ by {largest}");
}
