"""Reward tuning: samples of the model's own, their rewards and advantages, held-out metrics."""
