"""Many surgeries side by side: methods on one pair, and the trained limit of a pair."""
