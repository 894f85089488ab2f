"""A small network that makes rows from the rows of pieces, for any target tokenizer.

It is trained once per source, on the source's own tokens and then through the frozen model on text
that sampled vocabularies cut, and is kept in a file. Modules that need torch are imported where
they are used.
"""
