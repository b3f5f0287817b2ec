"""Explanations: attention heatmaps (saliency over patches) of a model's words."""
