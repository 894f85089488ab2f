"""Languages that nobody speaks."""

from __future__ import annotations

import random

import pytest

VOWELS, CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"


class Language:
    """Draws text of syllables and words that are its own, by Zipf's law."""

    def __init__(self, seed: int) -> None:
        generator = random.Random(seed)
        syllables = [
            generator.choice(CONSONANTS) + generator.choice(VOWELS) + generator.choice(["", "n"])
            for _ in range(40)
        ]
        self.words = [
            "".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(2000)
        ]
        self.weights = [1 / (rank + 3) for rank in range(len(self.words))]

    def text(self, n_words: int, seed: int) -> str:
        drawn = random.Random(seed).choices(self.words, self.weights, k=n_words)
        return "\n".join(" ".join(drawn[at : at + 12]) for at in range(0, n_words, 12))


@pytest.fixture(scope="session")
def languages() -> dict[str, Language]:
    return {name: Language(seed) for seed, name in enumerate(("en", "de", "es"))}
