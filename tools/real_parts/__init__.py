"""A Q-Former model of 0.17 B weights from pretrained parts that packages on the index hold."""
