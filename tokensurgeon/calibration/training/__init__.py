"""Training of vocabulary rows by gradients, the body frozen."""
