"""Where two tokenizers cut the same text."""

from __future__ import annotations

from tokensurgeon.evaluation.boundaries import Boundaries, boundaries


def test_counts_are_those_of_the_cuts_themselves(source, other, texts):
    expected = [0, 0, 0]
    for text in texts:
        n = len(text.encode("utf-8"))
        cuts = [
            {int(end) for end in entry.vocabulary.encode_with_bytes(text).ends if 0 < end < n}
            for entry in (source, other)
        ]
        for i, cut in enumerate((cuts[0], cuts[1], cuts[0] & cuts[1])):
            expected[i] += len(cut)
    found = boundaries(source.vocabulary, other.vocabulary, texts)
    assert found == Boundaries(*expected)
    assert 0 < found.agreement <= min(found.kept, found.known) < 1


def test_a_tokenizer_agrees_with_itself_and_the_measure_has_no_direction(source, other, texts):
    same = boundaries(source.vocabulary, source.vocabulary, texts)
    assert (same.kept, same.known, same.agreement) == (1, 1, 1)
    one = boundaries(source.vocabulary, other.vocabulary, texts)
    two = boundaries(other.vocabulary, source.vocabulary, texts)
    assert one.agreement == two.agreement
    assert one.kept == two.known
    assert boundaries(source.vocabulary, other.vocabulary, []).kept == 1
