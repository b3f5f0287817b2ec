"""Steps that cannot be taken as they are."""
