"""Training by gradients: of vocabulary rows, the body frozen, and of a change of the body."""
