//! From a job to a script on disk and a job id; knows schedulers, not training.
