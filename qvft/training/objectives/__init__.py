"""From a batch to what is to be made small."""
