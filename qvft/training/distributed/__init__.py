"""Distributed training: FSDP, gradient synchronisation, global batch size."""
