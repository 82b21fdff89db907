//! How many steps a training of so many rows makes.

use super::PromptLearning;

/// Steps of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Optimizer steps of one pass over the rows; rows that do not fill a global batch, or
    /// that `limit_train_batches` leaves out, do not count.
    pub epoch: usize,
    /// Optimizer steps in all.
    pub total: usize,
    /// Steps between validations.
    pub validation_interval: usize,
}

impl PromptLearning {
    /// The steps over `rows` training rows; nothing where no limit is set.
    pub fn step_plan(&self, rows: usize) -> Option<StepPlan> {
        let trainer = &self.trainer;
        let all = rows / self.model.rows_per_step(trainer).max(1);
        let epoch = trainer.limit_train_batches.steps(all).min(all);
        let total = match (trainer.step_limit(), trainer.epoch_limit()) {
            (Some(steps), Some(epochs)) if trainer.max_epochs > 0 => {
                steps.min(epochs.saturating_mul(epoch))
            }
            (Some(steps), _) => steps,
            (None, Some(epochs)) => epochs.saturating_mul(epoch),
            // Only the time ends it.
            (None, None) if trainer.max_time.is_some() => usize::MAX,
            (None, None) => return None,
        };
        Some(StepPlan {
            epoch,
            total,
            validation_interval: trainer.val_check_interval.steps(epoch),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Amount;

    #[test]
    fn the_nearer_of_the_two_limits_ends_a_training() {
        let mut section = PromptLearning::default();
        section.model.global_batch_size = 8;
        section.trainer.val_check_interval = Amount::Share(0.5);
        section.trainer.max_epochs = 2;
        section.trainer.max_steps = -1;
        let plan = section.step_plan(85).unwrap();
        assert_eq!(
            (plan.epoch, plan.total, plan.validation_interval),
            (10, 20, 5)
        );
        section.trainer.max_steps = 7;
        assert_eq!(section.step_plan(85).unwrap().total, 7);
        section.trainer.max_epochs = -1;
        assert_eq!(section.step_plan(85).unwrap().total, 7);
        section.trainer.max_steps = -1;
        assert_eq!(section.step_plan(85), None);
    }
}
