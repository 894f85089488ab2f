"""The source as teacher: what its next-token distribution says of the target's next token."""
