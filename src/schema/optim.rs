//! `model.optim`: the optimiser and how its learning rate changes, under the names of NeMo's registries
//! (`nemo/core/optim/optimizers.py` and `lr_scheduler.py`).

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};
use serde_yaml::Value;

use super::{Problems, lenient};
use crate::diag::suggest::did_you_mean;

/// What a name of an optimiser means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptimizerName {
    /// Adam with decoupled weight decay.
    AdamW,
    /// Adam with weight decay in the gradient.
    Adam,
    /// Adafactor.
    Adafactor,
    /// Gradient descent with momentum.
    Sgd,
}

/// Every name that is known. Apex's and Megatron's variants of `AdamW` differ in where they run, not in what they compute.
const OPTIMIZERS: [(&str, OptimizerName); 8] = [
    ("fused_adam", OptimizerName::AdamW),
    ("adamw", OptimizerName::AdamW),
    ("distributed_fused_adam", OptimizerName::AdamW),
    ("megatron_fused_adam", OptimizerName::AdamW),
    ("mcore_distributed_optim", OptimizerName::AdamW),
    ("adam", OptimizerName::Adam),
    ("adafactor", OptimizerName::Adafactor),
    ("sgd", OptimizerName::Sgd),
];

/// What a name of a schedule means; `train::schedule::Policy` has the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyName {
    /// Constant after the warm-up.
    Constant,
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// A power of what is left.
    Polynomial,
    /// The square of what is left.
    Square,
    /// The root of what is left.
    SquareRoot,
    /// 1/√t.
    InverseSquareRoot,
    /// 1/√t, whatever the learning rate.
    T5InverseSquareRoot,
    /// Noam.
    Noam,
    /// Noam after a hold.
    NoamHold,
    /// Stairs by steps.
    Steps,
    /// Stairs by epochs.
    Exponential,
}

/// Every name that is known, and the keys that take effect with it besides `name`, `min_lr` and `max_steps`.
const POLICIES: [(&str, PolicyName, &[&str]); 14] = [
    (
        "CosineAnnealing",
        PolicyName::Cosine,
        &["warmup", "constant"],
    ),
    ("WarmupPolicy", PolicyName::Constant, &["warmup"]),
    (
        "WarmupHoldPolicy",
        PolicyName::Constant,
        &["warmup", "hold"],
    ),
    ("WarmupAnnealing", PolicyName::Linear, &["warmup"]),
    (
        "PolynomialDecayAnnealing",
        PolicyName::Polynomial,
        &["warmup", "power", "cycle"],
    ),
    (
        "PolynomialHoldDecayAnnealing",
        PolicyName::Polynomial,
        &["warmup", "hold", "power", "cycle"],
    ),
    ("SquareAnnealing", PolicyName::Square, &["warmup"]),
    ("SquareRootAnnealing", PolicyName::SquareRoot, &["warmup"]),
    (
        "InverseSquareRootAnnealing",
        PolicyName::InverseSquareRoot,
        &["warmup"],
    ),
    (
        "T5InverseSquareRootAnnealing",
        PolicyName::T5InverseSquareRoot,
        &["constant"],
    ),
    ("NoamAnnealing", PolicyName::Noam, &["warmup", "d_model"]),
    (
        "NoamHoldAnnealing",
        PolicyName::NoamHold,
        &["warmup", "hold", "decay_rate"],
    ),
    ("StepLR", PolicyName::Steps, &["step_size", "gamma"]),
    ("ExponentialLR", PolicyName::Exponential, &["gamma"]),
];

/// `optim.eps`: one number, or Adafactor's two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epsilon {
    /// Added to the root of the second moment.
    One(f64),
    /// Added to squared gradients, and the smallest scale of a parameter.
    Two(f64, f64),
}

impl Serialize for Epsilon {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(eps) => serializer.serialize_f64(*eps),
            Self::Two(first, second) => [*first, *second].serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Epsilon {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let numbers: Option<Vec<f64>> = match &value {
            Value::Sequence(items) => items.iter().map(Value::as_f64).collect(),
            one => one.as_f64().map(|one| vec![one]),
        };
        match numbers.as_deref() {
            Some([one]) => Ok(Self::One(*one)),
            Some([first, second]) => Ok(Self::Two(*first, *second)),
            _ => Err(D::Error::custom(
                "invalid value, expected a number, or a list of two for `adafactor`",
            )),
        }
    }
}

/// `model.optim`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimSection {
    /// `fused_adam`, `adamw`, `distributed_fused_adam`: `AdamW`; `adam`, `adafactor`, `sgd`.
    pub name: String,
    /// Highest learning rate.
    pub lr: f64,
    /// The learning rates are in units of the root mean square of the frozen model's word embeddings, so that one
    /// setting suits models whose embeddings differ in scale (ptune's own key; for prompt tuning).
    pub lr_relative_to_embeddings: bool,
    /// Weight decay.
    pub weight_decay: f64,
    /// Decay of the first and second moment of Adam.
    pub betas: [f64; 2],
    /// Added to the root of the second moment, 1e-8 where it is not given; for `adafactor` two numbers, 1e-30 and 1e-3.
    pub eps: Option<Epsilon>,
    /// Not used: Apex corrects the moments' start at zero, as everybody does.
    pub bias_correction: bool,
    /// `adafactor`: root mean square that an update is cut down to.
    pub clip_threshold: f64,
    /// `adafactor`: exponent by which the second moment forgets.
    pub decay_rate: f64,
    /// `adafactor`: decay of a first moment, where there is to be one.
    pub beta1: Option<f64>,
    /// `adafactor`: multiply the learning rate by the size of the parameter.
    pub scale_parameter: bool,
    /// `adafactor`: a learning rate of its own, in place of `lr` and `sched`.
    pub relative_step: bool,
    /// `adafactor`: with `relative_step`, rise to it slowly.
    pub warmup_init: bool,
    /// `sgd`: what stays of the velocity.
    pub momentum: f64,
    /// `sgd`: part of the gradient that does not enter the velocity.
    pub dampening: f64,
    /// `sgd`: look ahead along the velocity.
    pub nesterov: bool,
    /// How the learning rate changes; null keeps it as it is.
    pub sched: Option<ScheduleSection>,
}

impl Default for OptimSection {
    fn default() -> Self {
        Self {
            name: "fused_adam".into(),
            lr: 1e-4,
            lr_relative_to_embeddings: false,
            weight_decay: 0.01,
            betas: [0.9, 0.98],
            eps: None,
            bias_correction: true,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            sched: Some(ScheduleSection {
                warmup_steps: Some(50),
                ..ScheduleSection::default()
            }),
        }
    }
}

/// `model.optim.sched`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleSection {
    /// One of NeMo's names: `CosineAnnealing`, `WarmupPolicy` (constant), `WarmupAnnealing` (linear) …
    pub name: String,
    /// Steps of rising learning rate.
    pub warmup_steps: Option<usize>,
    /// The same as a part of all steps.
    pub warmup_ratio: Option<f64>,
    /// Steps at the highest rate after the warm-up, where the name has `Hold`.
    pub hold_steps: Option<usize>,
    /// The same as a part of all steps.
    pub hold_ratio: Option<f64>,
    /// `CosineAnnealing`: steps at `min_lr` at the end, as NeMo counts them.
    pub constant_steps: Option<usize>,
    /// The same as a part of all steps.
    pub constant_ratio: Option<f64>,
    /// Lowest learning rate.
    pub min_lr: f64,
    /// `PolynomialDecayAnnealing`: 1 is a straight line.
    pub power: f64,
    /// `PolynomialDecayAnnealing`: start anew when the end is reached.
    pub cycle: bool,
    /// `NoamAnnealing`: width of the model.
    pub d_model: Option<f64>,
    /// `NoamHoldAnnealing`: exponent of the decay.
    pub decay_rate: f64,
    /// `StepLR`: steps between two changes.
    pub step_size: Option<usize>,
    /// `StepLR`, `ExponentialLR`: factor of each change.
    pub gamma: Option<f64>,
    /// Not used: nothing is reduced on a plateau.
    #[serde(deserialize_with = "lenient::optional_text")]
    pub monitor: Option<String>,
    /// Only false.
    pub reduce_on_plateau: bool,
    /// Step at which `min_lr` is reached; the length of the training where it is not given.
    pub max_steps: Option<usize>,
}

impl Default for ScheduleSection {
    fn default() -> Self {
        Self {
            name: "CosineAnnealing".into(),
            warmup_steps: None,
            warmup_ratio: None,
            hold_steps: None,
            hold_ratio: None,
            constant_steps: None,
            constant_ratio: None,
            min_lr: 0.0,
            power: 1.0,
            cycle: false,
            d_model: None,
            decay_rate: 0.5,
            step_size: None,
            gamma: None,
            monitor: Some("val_loss".into()),
            reduce_on_plateau: false,
            max_steps: None,
        }
    }
}

impl ScheduleSection {
    /// What its name means.
    pub fn policy(&self) -> Option<PolicyName> {
        POLICIES
            .iter()
            .find(|(name, ..)| *name == self.name)
            .map(|(_, policy, _)| *policy)
    }

    /// Steps that are given as a number, or as a part of `max_steps`; 0 where neither is.
    fn part(steps: Option<usize>, ratio: Option<f64>, max_steps: u64) -> u64 {
        match (steps, ratio) {
            (Some(steps), _) => steps as u64,
            (None, Some(ratio)) => (ratio * max_steps as f64) as u64,
            (None, None) => 0,
        }
    }

    /// Steps of the warm-up in `max_steps`.
    pub fn warmup(&self, max_steps: u64) -> u64 {
        Self::part(self.warmup_steps, self.warmup_ratio, max_steps)
    }

    /// Steps at the highest rate in `max_steps`.
    pub fn hold(&self, max_steps: u64) -> u64 {
        if self.takes("hold") {
            Self::part(self.hold_steps, self.hold_ratio, max_steps)
        } else {
            0
        }
    }

    /// Steps at the lowest rate in `max_steps`.
    pub fn constant(&self, max_steps: u64) -> u64 {
        Self::part(self.constant_steps, self.constant_ratio, max_steps)
    }

    fn takes(&self, key: &str) -> bool {
        POLICIES
            .iter()
            .any(|(name, _, keys)| *name == self.name && keys.contains(&key))
    }

    /// Keys that are set and that a schedule of this name does not look at.
    pub fn unused_keys(&self) -> Vec<&'static str> {
        let more_than_none = |steps: Option<usize>| steps.is_some_and(|steps| steps > 0);
        [
            ("warmup_steps", "warmup", more_than_none(self.warmup_steps)),
            ("warmup_ratio", "warmup", self.warmup_ratio.is_some()),
            ("hold_steps", "hold", more_than_none(self.hold_steps)),
            ("hold_ratio", "hold", self.hold_ratio.is_some()),
            (
                "constant_steps",
                "constant",
                more_than_none(self.constant_steps),
            ),
            ("constant_ratio", "constant", self.constant_ratio.is_some()),
            ("power", "power", differs(self.power, Self::default().power)),
            ("cycle", "cycle", self.cycle),
            ("d_model", "d_model", self.d_model.is_some()),
            (
                "decay_rate",
                "decay_rate",
                differs(self.decay_rate, Self::default().decay_rate),
            ),
            ("step_size", "step_size", self.step_size.is_some()),
            ("gamma", "gamma", self.gamma.is_some()),
        ]
        .into_iter()
        .filter(|(_, key, is_set)| *is_set && !self.takes(key))
        .map(|(name, ..)| name)
        .collect()
    }

    fn validate(&self, problems: &mut Problems) {
        let at = |key: &str| format!("model.optim.sched.{key}");
        if self.policy().is_none() {
            problems.add(
                &at("name"),
                unknown(&self.name, POLICIES.iter().map(|(name, ..)| *name)),
            );
        }
        for (steps_key, steps, ratio_key, ratio) in [
            (
                "warmup_steps",
                self.warmup_steps,
                "warmup_ratio",
                self.warmup_ratio,
            ),
            ("hold_steps", self.hold_steps, "hold_ratio", self.hold_ratio),
            (
                "constant_steps",
                self.constant_steps,
                "constant_ratio",
                self.constant_ratio,
            ),
        ] {
            let Some(ratio) = ratio else { continue };
            problems.require(
                steps.is_none(),
                &at(ratio_key),
                format!(
                    "is given beside `model.optim.sched.{steps_key}`: set one of the two to null"
                ),
            );
            problems.require(
                (0.0..=1.0).contains(&ratio),
                &at(ratio_key),
                format!("{ratio} is no part of all steps, from 0 to 1"),
            );
        }
        problems.require(
            !self.reduce_on_plateau,
            &at("reduce_on_plateau"),
            "must be false: the learning rate follows a schedule; \
             `exp_manager.create_early_stopping_callback` ends a training that stands still",
        );
        problems.require(
            self.min_lr >= 0.0,
            &at("min_lr"),
            format!("{} is negative", self.min_lr),
        );
        problems.require(
            self.power > 0.0,
            &at("power"),
            format!("{} is not a positive number", self.power),
        );
        problems.require(
            self.gamma.is_none_or(|gamma| gamma > 0.0),
            &at("gamma"),
            "is not a positive number",
        );
        let needs = |problems: &mut Problems, policy: PolicyName, key: &str, is_set: bool| {
            problems.require(
                self.policy() != Some(policy) || is_set,
                &at(key),
                format!("is needed by `{}`", self.name),
            );
        };
        needs(
            problems,
            PolicyName::Noam,
            "d_model",
            self.d_model.is_some_and(|width| width > 0.0),
        );
        needs(
            problems,
            PolicyName::NoamHold,
            "warmup_steps",
            self.warmup_steps.is_some_and(|steps| steps > 0) || self.warmup_ratio.is_some(),
        );
        needs(
            problems,
            PolicyName::T5InverseSquareRoot,
            "constant_steps",
            self.constant_steps.is_some_and(|steps| steps > 0) || self.constant_ratio.is_some(),
        );
        needs(
            problems,
            PolicyName::Steps,
            "step_size",
            self.step_size.is_some_and(|steps| steps > 0),
        );
        needs(
            problems,
            PolicyName::Exponential,
            "gamma",
            self.gamma.is_some(),
        );
    }
}

impl OptimSection {
    /// What its name means.
    pub fn optimizer(&self) -> Option<OptimizerName> {
        OPTIMIZERS
            .iter()
            .find(|(name, _)| *name == self.name)
            .map(|(_, optimizer)| *optimizer)
    }

    /// Keys that are set and that this optimiser does not look at.
    pub fn unused_keys(&self) -> Vec<&'static str> {
        let plain = Self::default();
        let (adam, adafactor, sgd) = (
            matches!(
                self.optimizer(),
                Some(OptimizerName::AdamW | OptimizerName::Adam)
            ),
            self.optimizer() == Some(OptimizerName::Adafactor),
            self.optimizer() == Some(OptimizerName::Sgd),
        );
        [
            (
                "betas",
                adam,
                differs(self.betas[0], plain.betas[0]) || differs(self.betas[1], plain.betas[1]),
            ),
            ("eps", adam || adafactor, self.eps.is_some()),
            (
                "clip_threshold",
                adafactor,
                differs(self.clip_threshold, plain.clip_threshold),
            ),
            (
                "decay_rate",
                adafactor,
                differs(self.decay_rate, plain.decay_rate),
            ),
            ("beta1", adafactor, self.beta1.is_some()),
            ("scale_parameter", adafactor, self.scale_parameter),
            ("relative_step", adafactor, self.relative_step),
            (
                "warmup_init",
                adafactor && self.relative_step,
                self.warmup_init,
            ),
            ("momentum", sgd, self.momentum != 0.0),
            (
                "dampening",
                sgd && self.momentum != 0.0,
                self.dampening != 0.0,
            ),
            ("nesterov", sgd, self.nesterov),
            ("bias_correction", false, !self.bias_correction),
        ]
        .into_iter()
        .filter(|(_, is_used, is_set)| *is_set && !is_used)
        .map(|(name, ..)| name)
        .collect()
    }

    pub(super) fn validate(&self, problems: &mut Problems) {
        if self.optimizer().is_none() {
            problems.add(
                "model.optim.name",
                unknown(&self.name, OPTIMIZERS.iter().map(|(name, _)| *name)),
            );
        }
        problems.require(
            self.lr.is_finite() && self.lr > 0.0,
            "model.optim.lr",
            format!("{} is not a positive number", self.lr),
        );
        problems.require(
            self.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
            "model.optim.betas",
            "both must be at least 0 and less than 1",
        );
        problems.require(
            self.weight_decay >= 0.0,
            "model.optim.weight_decay",
            "must not be negative",
        );
        let is_adafactor = self.optimizer() == Some(OptimizerName::Adafactor);
        problems.require(
            match self.eps {
                None => true,
                Some(Epsilon::One(eps)) => eps > 0.0,
                Some(Epsilon::Two(first, second)) => is_adafactor && first >= 0.0 && second >= 0.0,
            },
            "model.optim.eps",
            if is_adafactor {
                "must not be negative"
            } else {
                "must be one positive number"
            },
        );
        problems.require(
            self.clip_threshold > 0.0,
            "model.optim.clip_threshold",
            "must be positive",
        );
        problems.require(
            self.decay_rate < 0.0,
            "model.optim.decay_rate",
            "must be negative: after step t the second moment keeps 1 - t^decay_rate",
        );
        for (key, part) in [
            ("model.optim.beta1", self.beta1.unwrap_or(0.0)),
            ("model.optim.momentum", self.momentum),
        ] {
            problems.require(
                (0.0..1.0).contains(&part),
                key,
                "must be at least 0 and less than 1",
            );
        }
        problems.require(
            !self.nesterov || (self.momentum > 0.0 && self.dampening == 0.0),
            "model.optim.nesterov",
            "needs `model.optim.momentum` above 0 and no `dampening`",
        );
        if let Some(sched) = &self.sched {
            sched.validate(problems);
            problems.require(
                sched.min_lr <= self.lr || !problems.knows(&["model.optim.lr"]),
                "model.optim.sched.min_lr",
                format!(
                    "{} is greater than `model.optim.lr` ({})",
                    sched.min_lr, self.lr
                ),
            );
        }
    }
}

/// Whether a number was set to another one than its default.
fn differs(number: f64, default: f64) -> bool {
    number.to_bits() != default.to_bits()
}

/// What to say of a name that is in no list.
fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let all: Vec<&str> = known.clone().collect();
    let lower = name.to_lowercase();
    let same = known.clone().find(|known| known.to_lowercase() == lower);
    match same.or_else(|| did_you_mean(name, known)) {
        Some(near) => format!(
            "`{name}` is not known, did you mean `{near}`? (known: {})",
            all.join(", ")
        ),
        None => format!("`{name}` is not known, expected one of {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let section: OptimSection = serde_yaml::from_str(text).unwrap();
        let mut problems = Problems::of("");
        section.validate(&mut problems);
        problems
            .iter()
            .map(|(key, text)| format!("{key}: {text}"))
            .collect()
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_one() {
        let found = problems_of("{name: fused_adm, sched: {name: cosineannealing}}");
        assert!(found[0].contains("did you mean `fused_adam`?"), "{found:?}");
        assert!(
            found[1].contains("did you mean `CosineAnnealing`?"),
            "{found:?}"
        );
        let found = problems_of("{name: novograd}");
        assert!(found[0].contains("expected one of fused_adam"), "{found:?}");
    }

    #[test]
    fn lesters_recipe_and_nemos_are_read() {
        assert_eq!(
            problems_of(
                "{name: adafactor, lr: 0.3, weight_decay: 1.0e-05, eps: [1.0e-30, 0.001], decay_rate: -0.8, \
                 scale_parameter: false, relative_step: false, sched: null}"
            ),
            [""; 0]
        );
        assert_eq!(
            problems_of(
                "{name: distributed_fused_adam, eps: 1.0e-06, sched: {name: WarmupAnnealing, warmup_steps: null, \
                 warmup_ratio: 0.1}}"
            ),
            [""; 0]
        );
    }

    #[test]
    fn what_a_shape_needs_is_asked_for_and_both_ways_to_say_it_are_refused() {
        for (text, key) in [
            ("{sched: {name: NoamAnnealing}}", "d_model"),
            (
                "{sched: {name: T5InverseSquareRootAnnealing}}",
                "constant_steps",
            ),
            ("{sched: {name: StepLR}}", "step_size"),
            (
                "{sched: {warmup_steps: 3, warmup_ratio: 0.1}}",
                "warmup_ratio",
            ),
            ("{sched: {reduce_on_plateau: true}}", "reduce_on_plateau"),
            ("{name: sgd, nesterov: true}", "nesterov"),
            ("{name: adamw, eps: [1.0e-08, 0.1]}", "eps"),
        ] {
            let found = problems_of(text);
            assert!(
                found.len() == 1 && found[0].contains(key),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn keys_of_another_optimiser_or_shape_are_told() {
        let section: OptimSection = serde_yaml::from_str(
            "{name: sgd, beta1: 0.9, momentum: 0.5, sched: {name: WarmupAnnealing, constant_steps: 10, power: 2}}",
        )
        .unwrap();
        assert_eq!(section.unused_keys(), ["beta1"]);
        assert_eq!(
            section.sched.unwrap().unused_keys(),
            ["constant_steps", "power"]
        );
        assert_eq!(OptimSection::default().unused_keys(), [""; 0]);
    }

    #[test]
    fn parts_of_all_steps_are_cut_down_as_python_does() {
        let sched = ScheduleSection {
            warmup_ratio: Some(0.125),
            ..ScheduleSection::default()
        };
        assert_eq!(sched.warmup(100), 12);
        assert_eq!(sched.constant(100), 0);
    }
}
