"""What an evaluation found, as files and for readers."""
