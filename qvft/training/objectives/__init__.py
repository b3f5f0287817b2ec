"""Training losses: language modelling (cross-entropy), ITC, ITM, ITG, custom."""
