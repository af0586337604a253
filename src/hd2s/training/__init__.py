"""Training: recipes, batches, the step, the run."""
