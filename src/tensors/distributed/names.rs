//! The names of a model in a distributed checkpoint: what belongs to the model, and layers one by one.

use std::collections::BTreeMap;

use super::metadata::Stored;

/// How many times the size of its files the names of a checkpoint may take.
const MAX_GROWTH: usize = 8;
/// What even a small one may take: bytes.
const FREE_GROWTH: usize = 1 << 20;

/// What a name of a model stands for.
pub(super) struct Entry {
    /// One tensor, or two whose rows follow one another.
    pub parts: Vec<(Part, usize)>,
    /// Where layers are stacked, the index in their first dimension.
    pub layer: Option<usize>,
}

/// What a tensor is of the one that a model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Whole,
    /// megatron-core may save the two projections under a gate apart: first the gate's.
    Gate,
    Up,
}

/// The shape of a tensor, or of one layer of it.
pub(super) fn shape_of(stored: &Stored, layer: Option<usize>) -> &[usize] {
    match layer {
        Some(_) => &stored.shape[1..],
        None => &stored.shape,
    }
}

/// What the names of a checkpoint of `size` bytes may take.
pub(super) fn limit(size: usize) -> usize {
    size.saturating_mul(MAX_GROWTH).saturating_add(FREE_GROWTH)
}

/// Whether a name is that of a model's tensor, not of an optimizer's, a generator's or Transformer Engine's state.
pub(super) fn is_of_model(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or(name);
    let is_beside = ["optimizer", "opt_param_scheduler", "chained_", "rng_state"]
        .iter()
        .any(|prefix| first.starts_with(prefix));
    !is_beside && !name.contains("._extra_state")
}

/// The names that a model knows: those of NeMo 2 begin with `module.`, those of Megatron-LM with the part itself.
fn plain(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("module.") {
        return format!("model.{rest}");
    }
    match name.split('.').next() {
        Some("decoder" | "embedding" | "output_layer") => format!("model.{name}"),
        _ => name.to_owned(),
    }
}

/// Where layers are stacked, what stands before and behind their number.
fn stacked(name: &str) -> Option<(&str, &str)> {
    let end = name.find(".layers.")? + ".layers.".len();
    let (before, behind) = name.split_at(end);
    (!behind.starts_with(|first: char| first.is_ascii_digit())).then_some((before, behind))
}

/// Every name with what it stands for; together they take less than `limit` bytes.
pub(super) fn entries(tensors: &[Stored], limit: usize) -> Result<BTreeMap<String, Entry>, String> {
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut left = limit;
    let mut add = |name: String, tensor: usize, layer: Option<usize>| {
        let cost = name.len() + 2 * size_of::<Entry>();
        left = left
            .checked_sub(cost)
            .ok_or("it describes far more than it holds")?;
        let (name, part) = match (name.strip_suffix("_w"), name.strip_suffix("_v")) {
            (Some(plain), _) if plain.contains(".linear_fc1.") => (plain.to_owned(), Part::Gate),
            (_, Some(plain)) if plain.contains(".linear_fc1.") => (plain.to_owned(), Part::Up),
            _ => (name, Part::Whole),
        };
        let entry = entries.entry(name).or_insert(Entry {
            parts: vec![],
            layer,
        });
        entry.parts.push((part, tensor));
        entry.parts.sort_unstable();
        Ok::<_, String>(())
    };
    for (number, tensor) in tensors.iter().enumerate() {
        let name = plain(&tensor.name);
        match (stacked(&name), tensor.shape.first()) {
            (Some((before, behind)), Some(layers)) => {
                for layer in 0..*layers {
                    add(format!("{before}{layer}.{behind}"), number, Some(layer))?;
                }
            }
            _ => add(name, number, None)?,
        }
    }
    for (name, entry) in &entries {
        let shape = |tensor: usize| shape_of(&tensors[tensor], entry.layer);
        let fits = match entry.parts[..] {
            [(Part::Whole, _)] => true,
            [(Part::Gate, gate), (Part::Up, up)] => {
                tensors[gate].element == tensors[up].element
                    && !shape(gate).is_empty()
                    && shape(gate) == shape(up)
            }
            _ => false,
        };
        if !fits {
            let parts = entry.parts.iter();
            let names: Vec<&str> = parts
                .map(|(_, part)| tensors[*part].name.as_str())
                .collect();
            return Err(format!("`{}` cannot be `{name}`", names.join("` and `")));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_a_model_in_one_piece() {
        assert_eq!(
            stacked("model.decoder.layers.mlp.linear_fc1.weight"),
            Some(("model.decoder.layers.", "mlp.linear_fc1.weight"))
        );
        assert_eq!(stacked("model.decoder.layers.3.mlp.weight"), None);
        assert_eq!(stacked("model.output_layer.weight"), None);
        for (name, expected) in [
            ("module.decoder.x", "model.decoder.x"),
            ("embedding.x", "model.embedding.x"),
            ("model.decoder.x", "model.decoder.x"),
        ] {
            assert_eq!(plain(name), expected);
        }
        assert!(is_of_model("model.output_layer.weight"));
        for name in [
            "optimizer.state.exp_avg.model.output_layer.weight",
            "chained_0.optimizer.state",
            "rng_state/shard_0.0_1.1",
            "model.decoder.layers.mlp.linear_fc1._extra_state/shard_0_2",
        ] {
            assert!(!is_of_model(name), "{name}");
        }
    }

    fn stored(name: &str, shape: &[usize]) -> Stored {
        Stored {
            name: name.to_owned(),
            element: crate::tensors::torch::pickle::Element::F32,
            shape: shape.to_vec(),
            chunks: vec![],
        }
    }

    #[test]
    fn layers_that_would_take_more_than_the_files_and_names_that_meet_are_refused() {
        let many = [stored("model.decoder.layers.a", &[usize::MAX, 0])];
        let error = entries(&many, 1 << 20).err().unwrap();
        assert!(error.contains("far more than it holds"), "{error}");
        let twice = [stored("module.a", &[2]), stored("model.a", &[2])];
        let error = entries(&twice, 1 << 20).err();
        assert!(error.is_some_and(|error| error.contains("`module.a` and `model.a` cannot be `model.a`")));
        let halves = [
            stored("model.decoder.layers.0.mlp.linear_fc1.weight_v", &[2, 3]),
            stored("model.decoder.layers.0.mlp.linear_fc1.weight_w", &[2, 3]),
        ];
        let found = entries(&halves, 1 << 20).ok().unwrap();
        let entry = &found["model.decoder.layers.0.mlp.linear_fc1.weight"];
        assert_eq!(entry.parts, [(Part::Gate, 1), (Part::Up, 0)]);
        assert!(entries(&halves[..1], 1 << 20).is_err());
    }
}
