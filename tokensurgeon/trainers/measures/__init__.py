"""What a vocabulary does to texts, as figures."""
