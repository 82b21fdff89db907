//! The nearest valid name.

/// The candidate nearest to `name`, where one is near enough to be what was meant.
pub fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Short names share too few letters to look alike, so a slip of one key counts as near for them.
    let slips = match name.chars().count() {
        0 | 1 => 0,
        2..=5 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(name, candidate);
            let similarity = strsim::jaro_winkler(name, candidate);
            let near = if distance <= slips { 0.9 } else { 0.0 };
            (similarity.max(near), candidate)
        })
        .filter(|(similarity, _)| *similarity > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("squda", ["squad", "boolq"]), Some("squad"));
        assert_eq!(did_you_mean("zzz", ["squad", "boolq"]), None);
        assert_eq!(did_you_mean("bmc", ["k8s", "bcm"]), Some("bcm"));
    }
}
