"""Feature cache: outputs of a frozen ViT per image, in safetensors shards; knows no model."""
