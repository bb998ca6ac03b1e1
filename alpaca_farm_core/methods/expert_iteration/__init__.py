"""Expert iteration: best-of-n on unlabeled instructions, then fine-tuning on what was chosen."""
