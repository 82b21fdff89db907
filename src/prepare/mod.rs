//! Question answering data to prompt learning jsonl; text to text, no tensors.
