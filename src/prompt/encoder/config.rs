//! Which prompt encoder, and how large.

use super::linear_stack::LinearStack;
use super::lstm::BidirectionalLstm;
use crate::schema::{PTuningSection, PromptEncoderType};

/// Sizes and initialisation of a [`super::PromptEncoder`]; keys of `model.p_tuning`.
#[derive(Clone, Debug)]
pub struct EncoderConfig {
    /// Head.
    pub encoder_type: PromptEncoderType,
    /// V, rows of the output.
    pub total_virtual_tokens: usize,
    /// H, columns of the output.
    pub hidden_size: usize,
    /// h, the width inside: between linear layers, of one direction of `lstm`, of both together of `biglstm`.
    pub encoder_hidden: usize,
    /// Linear layers of `mlp` (at least 2) or layers of an LSTM; `tpmlp` always has two.
    pub num_layers: usize,
    /// Standard deviation of `tpmlp` weights.
    pub init_std: f64,
    /// Probability of dropout between LSTM layers.
    pub dropout: f64,
    /// Start of the random stream of that dropout.
    pub dropout_seed: u64,
}

impl EncoderConfig {
    /// What `section` asks for over a model of width `hidden_size`; widths that it leaves open are NeMo's.
    pub fn of_section(
        section: &PTuningSection,
        total_virtual_tokens: usize,
        hidden_size: usize,
        seed: u64,
    ) -> Self {
        let default_width = match section.encoder_type {
            PromptEncoderType::TpMlp => 2048,
            _ => hidden_size / 2,
        };
        Self {
            encoder_type: section.encoder_type,
            total_virtual_tokens,
            hidden_size,
            encoder_hidden: section.encoder_hidden.unwrap_or(default_width),
            num_layers: section.num_layers,
            init_std: section.init_std,
            dropout: section.dropout,
            dropout_seed: seed,
        }
    }

    /// Numbers that such an encoder trains.
    pub fn parameter_count(&self) -> usize {
        let (virtual_tokens, inner) = (self.total_virtual_tokens, self.encoder_hidden);
        let lstm = |input, width| BidirectionalLstm::parameter_count(input, width, self.num_layers);
        virtual_tokens * self.input_width()
            + LinearStack::parameter_count(&self.linear_widths())
            + match self.encoder_type {
                PromptEncoderType::Lstm => lstm(self.hidden_size, inner),
                PromptEncoderType::BigLstm => lstm(inner, inner / 2),
                PromptEncoderType::Mlp
                | PromptEncoderType::TpMlp
                | PromptEncoderType::Embedding => 0,
            }
    }

    /// Columns of the trainable embedding.
    pub(super) fn input_width(&self) -> usize {
        match self.encoder_type {
            PromptEncoderType::BigLstm => self.encoder_hidden,
            _ => self.hidden_size,
        }
    }

    /// Widths before, between and behind the linear layers.
    pub(super) fn linear_widths(&self) -> Vec<usize> {
        let (hidden, inner) = (self.hidden_size, self.encoder_hidden);
        match self.encoder_type {
            PromptEncoderType::TpMlp => vec![hidden, inner, hidden],
            PromptEncoderType::Mlp => {
                let mut widths = vec![inner; self.num_layers + 1];
                widths[0] = hidden;
                widths[self.num_layers] = hidden;
                widths
            }
            PromptEncoderType::Lstm => vec![2 * inner, 2 * inner, hidden],
            PromptEncoderType::BigLstm => vec![inner, inner, hidden],
            PromptEncoderType::Embedding => vec![],
        }
    }

    /// What an encoder of these sizes cannot be, with its key.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        let kind = self.encoder_type;
        if kind == PromptEncoderType::Mlp && self.num_layers < 2 {
            problems.push(format!(
                "`p_tuning.num_layers` is {}: an mlp prompt encoder must have at least 2 layers",
                self.num_layers
            ));
        }
        let is_lstm = matches!(kind, PromptEncoderType::Lstm | PromptEncoderType::BigLstm);
        if is_lstm && self.num_layers == 0 {
            problems.push("`p_tuning.num_layers` is 0: an LSTM has at least 1 layer".to_owned());
        }
        if kind == PromptEncoderType::BigLstm && !self.encoder_hidden.is_multiple_of(2) {
            problems.push(format!(
                "`p_tuning.encoder_hidden` is {}: `biglstm` gives half of it to each direction, so it must be even",
                self.encoder_hidden
            ));
        }
        if kind != PromptEncoderType::Embedding && self.encoder_hidden == 0 {
            problems.push("`p_tuning.encoder_hidden` is 0".to_owned());
        }
        problems
    }
}
