"""Explanations: attention heatmaps (saliency over patches) and their faithfulness."""
