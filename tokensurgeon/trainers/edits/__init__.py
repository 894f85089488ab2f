"""A tokenizer that exists, extended or pruned; its ids stay."""
