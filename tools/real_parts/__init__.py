"""A Q-Former model of 0.18 B weights from pretrained parts that packages on the Python index hold."""
