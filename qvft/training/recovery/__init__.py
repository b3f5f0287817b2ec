"""Recovery from out of memory, NaN and loss spikes."""
