"""From counted segments to the tokens of a vocabulary, one file per family of methods."""
