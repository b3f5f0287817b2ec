"""From images and questions to texts."""
