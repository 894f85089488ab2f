"""The arithmetic of the methods; it knows nothing of tokens, sides or checkpoints."""
