"""How often a model goes on with the right word after a prompt that ends inside a token.

    python scripts/measure_healing.py CHECKPOINT TEXT... [-n PROMPTS]

Prompts are taken from documents, cut inside a word and, where the tokenizer has tokens of several
words, between the words of such a token. The likeliest tokens are taken, with and without healing.
"""

from __future__ import annotations

import argparse
import random
import re
import time

from tokensurgeon.models import load_model
from tokensurgeon.runtime import write_on
from tokensurgeon.text.chunks import chunk_documents
from tokensurgeon.text.corpus import read_corpus
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

CONTEXT = 192  # bytes of a chunk: enough to say something of what follows, and quick to read
NEW_TOKENS = 8  # of an answer: a word and what ends it
WORD = re.compile(r" ?[^\W\d_]+")


def inside_words(text: str, vocabulary: Vocabulary) -> list[int]:
    """Return where to cut in the last third of a text: inside words of five letters or more."""
    words = re.finditer(r"[^\W\d_]{5,}", text)
    return [
        at
        for word in words
        for at in range(word.start() + 2, word.end() - 1)
        if at > 2 * len(text) // 3
    ]


def inside_superwords(text: str, vocabulary: Vocabulary) -> list[int]:
    """Return where to cut: after a word, inside a token that goes on with another."""
    found, start, data = [], 0, text.encode()
    for end in vocabulary.encode_with_bytes(text).ends.tolist():
        token = data[start:end].decode("utf-8", "ignore")
        for space in re.finditer(r"(?<=[^\W\d_]) (?=[^\W\d_])", token):
            at = len(data[:start].decode("utf-8", "ignore")) + space.start()
            if at > len(text) // 3:
                found.append(at)
        start = end
    return found


def right(continuation: str, rest: str) -> bool:
    """Whether a continuation begins with the word that follows, whole."""
    word = WORD.match(rest)
    wanted = word.group() if word else rest[:1]
    after = continuation[len(wanted) : len(wanted) + 1]
    return continuation.startswith(wanted) and not after.isalpha()


def main() -> None:
    """Measure one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("text", nargs="+")
    parser.add_argument("-n", type=int, default=200)
    options = parser.parse_args()
    model, vocabulary = load_model(options.checkpoint), load_vocabulary(options.checkpoint)
    chunks = chunk_documents(read_corpus(options.text).texts, max_bytes_per_chunk=CONTEXT)
    rng = random.Random(0)
    rng.shuffle(chunks)
    for name, places in (("inside words", inside_words), ("inside superwords", inside_superwords)):
        cut: list[tuple[str, int]] = []
        for chunk in chunks:
            found = places(chunk.text, vocabulary)
            if found and len(cut) < options.n:
                cut.append((chunk.text, rng.choice(found)))
        for heal in (False, True) if cut else ():
            start, n_right = time.process_time(), 0
            for text, at in cut:
                written = write_on(
                    model,
                    vocabulary,
                    text[:at],
                    heal=heal,
                    max_new_tokens=NEW_TOKENS,
                    temperature=0,
                )
                n_right += right(written.text, text[at:])
            seconds = time.process_time() - start
            healed = "healed" if heal else "as cut"
            print(
                f"{name}, {healed}: {n_right} of {len(cut)} right "
                f"({seconds / len(cut):.2f} processor seconds a prompt)",
                flush=True,
            )


if __name__ == "__main__":
    main()
