"""Which segments each method counts, and which function learns from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tokenizers import Tokenizer

from tokensurgeon.errors import CorpusError, SettingError
from tokensurgeon.progress import Progress, no_progress
from tokensurgeon.trainers.counting.cutters import Chunks, Cutter, Pieces
from tokensurgeon.trainers.counting.pretokenizers import check_choice, counted_pattern
from tokensurgeon.trainers.counting.weighted import WeightedSegments, WeightedText
from tokensurgeon.trainers.encoders import encoder
from tokensurgeon.trainers.learned import Learned
from tokensurgeon.trainers.learners import phrases, stock_models, superwords, units
from tokensurgeon.trainers.plan import Plan, Shape
from tokensurgeon.trainers.training_methods import METHODS_BY_NAME

LEARN: dict[str, Callable[[WeightedText, Plan, Progress], Learned]] = {
    "bpe": units.bpe,
    "superbpe": superwords.superbpe,
    "boundless": superwords.boundless,
    "supertoken": superwords.supertoken,
    "mwt": superwords.mwt,
    "lzw": phrases.lzw,
    "pathpiece": phrases.pathpiece,
    "lib": phrases.lib,
    "parity": units.parity,
    "characters": units.characters,
    "terms": units.terms,
    "morphemes": units.morphemes,
    "dna": units.dna,
    "bytes": units.only_bytes,
}
"""Methods that learn tokens or merges, which an encoder runs."""

OWN_MODELS: dict[str, Callable[[WeightedSegments, Plan], Tokenizer]] = {
    "unigram": stock_models.unigram,
    "wordpiece": stock_models.wordpiece,
}
"""Methods that make a tokenizer of their own kind from words."""


STOCK = "stock"
"""Name of the table for a plain BPE, if the method does not count the same words itself."""


def cutters(plan: Plan) -> dict[str, Cutter]:
    """Return the cutters of a method, by name of the table that each one counts.

    Raises
    ------
    SettingError
        If the method needs words and the plan has no pre-tokenizer.
    """
    method = METHODS_BY_NAME[plan.method]
    if plan.method == "dna":
        return {"words": Pieces(units.LETTERS)}
    if plan.preset == "none" and method.needs_words:
        raise SettingError(f"{plan.method} needs words; take a pre-tokenizer other than 'none'")
    words = counted_pattern(plan.preset, plan.digits)
    by_table: dict[str, Callable[[], Cutter]] = {
        "words": lambda: Pieces(words),
        "runs": lambda: Pieces(plan.joined, once=True),
        "chunks": lambda: Chunks(plan.joined, words, superwords.CHUNK_WORDS, plan.seed),
    }
    return {name: by_table[name]() for name in method.tables}


def tables_of(plan: Plan) -> tuple[dict[str, Cutter], Plan, str]:
    """Return the cutters of a method and of the plain BPE beside it.

    Returns
    -------
    tables : dict of str to Cutter
    stock : Plan
        Of a plain BPE of equal size and cut.
    stock_table : str
        Name of the table that it learns from.
    """
    tables = cutters(plan)
    stock = replace(plan, method="bpe", encoder="bpe", shape=Shape(parallel=plan.shape.parallel))
    if plan.method == "dna" or plan.preset == "none":
        stock = replace(stock, preset="gpt2", digits="any")
    words = Pieces(counted_pattern(stock.preset, stock.digits))
    stock_table = "words" if tables.get("words") == words else STOCK
    tables[stock_table] = words
    return tables, stock, stock_table


def train_tokenizer(text: WeightedText, plan: Plan, progress: Progress = no_progress) -> Tokenizer:
    """Train a tokenizer of exactly `plan.size` ids: controls, bytes, then learned tokens.

    Parameters
    ----------
    text : WeightedText
        Counted with the `cutters` of the plan; its tables are used up.
    plan : Plan
    progress : callable(done, total, what)

    Raises
    ------
    CorpusError
        If the text is too little for that many tokens.
    SettingError
        If the encoder cannot run the method, or the plan lacks what the method needs.
    """
    check_choice(f"encoder for {plan.method}", plan.encoder, METHODS_BY_NAME[plan.method].encoders)
    if plan.method in OWN_MODELS:
        words = text.table("words")
        if plan.method == "unigram":
            text.divided_by = stock_models.divisor(words)
        tokenizer = OWN_MODELS[plan.method](words, plan)
    else:
        learned = LEARN[plan.method](text, plan, progress)
        progress(0, 0, "writing the tokenizer")
        tokenizer = encoder(learned, plan.encoder, plan.controls)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size < plan.size:
        raise CorpusError(
            f"{sum(text.counted.n_bytes):,} bytes of text give {size:,} of {plan.size:,} tokens; "
            f"give more text, or a size of at most {size:,}"
        )
    return tokenizer
