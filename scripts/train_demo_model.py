"""Train the model, the tokenizers and the donor rows that ``tokensurgeon demo`` uses.

Four steps, in this order, over the text that ``gather_corpus.py`` wrote::

    python scripts/train_demo_model.py tokenizers CORPUS WORK
    python scripts/train_demo_model.py source     CORPUS WORK --minutes 40
    python scripts/train_demo_model.py donor      CORPUS WORK --minutes 20
    python scripts/train_demo_model.py ship       CORPUS WORK --into tokensurgeon/data

The schedule follows the clock, not the step count: however slow the machine, a run ends with its
learning rate annealed, but the weights depend on how far it came. Killed, it resumes from the last
checkpoint with the minutes it had left.

Every training window is BOS followed by a stretch of documents, each parted from the next by EOS
(and BOS where the two differ): a model so trained is at home in any chunk of text scored after BOS.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# As GPT-4 splits text: contractions, words, digits in groups up to three, punctuation, white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTEXT = 256
"""Tokens of a training window, and the longest text that the models take."""
DATABASES = {"postgresql", "sqlite"}
"""Sources that both models read whole; of the rest the donor gets a part."""


@dataclass(frozen=True)
class Part:
    """One model: its tokenizer, its shape, and how often its text is taken."""

    name: str
    entries: int
    bos: str
    eos: str
    pad: str | None
    width: int
    heads: int
    layers: int
    inner: int
    general_share: float

    @property
    def specials(self) -> list[str]:
        """Control tokens in the order of their ids."""
        return list(dict.fromkeys(t for t in (self.bos, self.eos, self.pad) if t))


PARTS = {
    "source": Part(
        "source", 4096, "<|endoftext|>", "<|endoftext|>", None, 144, 3, 5, 384, general_share=1.0
    ),
    "donor": Part(
        "donor", 6144, "<|bos|>", "<|eos|>", "<|pad|>", 80, 2, 4, 224, general_share=0.15
    ),
}
"""Small enough to ship: both models, with their tokenizers and texts, are 7 MB."""


def read_documents(path: Path) -> list[dict[str, str]]:
    """Read the documents of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def choose_texts(part: Part, corpus: Path, seed: int) -> list[str]:
    """Return the training texts of one model in a seeded order."""
    draw = random.Random(f"{seed}/{part.name}")
    texts = [
        d["text"]
        for d in read_documents(corpus / "train.jsonl")
        if d["source"] in DATABASES or draw.random() < part.general_share
    ]
    draw.shuffle(texts)
    return texts


def train_tokenizer(part: Part, corpus: Path, folder: Path) -> None:
    """Train a byte-level BPE and save it as transformers would, without indentation."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    documents = read_documents(corpus / "train.jsonl")
    general = part.general_share == 1
    texts = (d["text"] for d in documents if general or d["source"] in DATABASES)
    trainer = trainers.BpeTrainer(
        vocab_size=part.entries,
        special_tokens=part.specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=part.bos,
        eos_token=part.eos,
        pad_token=part.pad,
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), "utf-8")
    print(f"{part.name}: {len(fast)} entries, tokenizer.json of {path.stat().st_size:,} bytes")


def pack(part: Part, tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.int32]:
    """Return all texts as one stream of ids, parted by control tokens."""
    between = [tokenizer.token_to_id(t) for t in dict.fromkeys([part.eos, part.bos])]
    ids: list[int | None] = []
    for at in range(0, len(texts), 64):
        for encoding in tokenizer.encode_batch(texts[at : at + 64], add_special_tokens=False):
            ids += encoding.ids + between
    return np.array(ids, dtype=np.int32)


def windows(stream: NDArray[np.int32], bos: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of BOS + 255 ids, each epoch cut at another phase and in another order."""
    size = CONTEXT - 1
    for epoch in range(1_000_000):
        rng = np.random.default_rng([seed, epoch])
        start = int(rng.integers(size))
        count = (len(stream) - start) // size
        cut = stream[start : start + count * size].reshape(count, size)
        order = rng.permutation(count)
        for at in range(0, count - batch + 1, batch):
            rows = cut[order[at : at + batch]]
            heads = np.full((batch, 1), bos, dtype=np.int32)
            yield torch.from_numpy(np.concatenate([heads, rows], axis=1)).long()


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring the singular values of a stack of matrices near one, by five Newton–Schulz steps."""
    wide = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.mT if wide else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if wide else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; for the matrices between embedding and head (Jordan, 2024)."""

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float = 0.95) -> None:
        shapes: dict[torch.Size, list[Tensor]] = {}
        for parameter in parameters:
            shapes.setdefault(parameter.shape, []).append(parameter)
        super().__init__([{"params": p} for p in shapes.values()], {"lr": lr, "mu": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move every matrix by its orthogonalised Nesterov momentum."""
        for group in self.param_groups:
            moves = []
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["mu"])
                moves.append(p.grad.lerp(buffer, group["mu"]))
            rows, columns = moves[0].shape
            scale = group["lr"] * max(1.0, rows / columns) ** 0.5
            for p, move in zip(group["params"], orthogonalise(torch.stack(moves)), strict=True):
                p.add_(move, alpha=-scale)


def build_model(part: Part, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """Return an untrained Llama of the part's shape, its two sides untied."""
    config = LlamaConfig(
        vocab_size=part.entries,
        hidden_size=part.width,
        intermediate_size=part.inner,
        num_hidden_layers=part.layers,
        num_attention_heads=part.heads,
        num_key_value_heads=part.heads,
        head_dim=part.width // part.heads,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        initializer_range=0.02,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.token_to_id(part.bos),
        eos_token_id=tokenizer.token_to_id(part.eos),
        pad_token_id=tokenizer.token_to_id(part.pad) if part.pad else None,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Give the inner matrices to Muon and all else to Adam."""
    named = dict(model.named_parameters())
    inner = [p for n, p in named.items() if p.ndim == 2 and ".layers." in n]
    rates = {"model.embed_tokens.weight": 0.01, "lm_head.weight": 0.004}
    rest = [
        {"params": [p], "lr": rates.get(n, 0.004)}
        for n, p in named.items()
        if p.ndim == 1 or ".layers." not in n
    ]
    return [Muon(inner, lr=0.02), torch.optim.Adam(rest, betas=(0.9, 0.95), eps=1e-10)]


def rate(progress: float) -> float:
    """Return the share of the peak learning rate: warm-up, plateau, then linearly to zero."""
    return min(1.0, progress / 0.01 + 0.02, max(0.0, (1 - progress) / 0.6))


def train(part: Part, corpus: Path, work: Path, args: argparse.Namespace) -> None:
    """Train one model for so many minutes, saving a checkpoint every two."""
    tokenizer = Tokenizer.from_file(str(work / part.name / "tokenizer.json"))
    texts = choose_texts(part, corpus, args.seed)
    stream = pack(part, tokenizer, texts)
    size = sum(len(t.encode()) for t in texts)
    print(f"{len(texts)} documents, {size:,} bytes, {len(stream):,} tokens", flush=True)
    model = build_model(part, tokenizer).to(args.device)
    optimizers = make_optimizers(model)
    peaks = [[g["lr"] for g in o.param_groups] for o in optimizers]
    step, tokens, elapsed, average = 0, 0, 0.0, math.nan
    saved = work / f"{part.name}.checkpoint.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True, map_location=args.device)
        model.load_state_dict(state["model"])
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        step, tokens = state["step"], state["tokens"]
        elapsed, average = state["elapsed"], state["average"]
        print(f"resumed at step {step}", flush=True)

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "step": step,
            "elapsed": elapsed,
            "average": average,
            "tokens": tokens,
        }
        torch.save(state, saved.with_suffix(".partial"))
        saved.with_suffix(".partial").replace(saved)

    batches = windows(stream, model.config.bos_token_id, args.batch, args.seed)
    for _ in range(tokens // (args.batch * CONTEXT)):
        next(batches)
    budget, last_save, clock = args.minutes * 60, elapsed, time.monotonic()
    while elapsed < budget:
        factor = rate(elapsed / budget)
        for optimizer, own in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = peak * factor
        ids = next(batches).to(args.device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        now = time.monotonic()
        step, tokens = step + 1, tokens + ids.numel()
        elapsed, clock = elapsed + now - clock, now
        if step % 20 == 0:
            print(f"{step} {elapsed:.0f}s loss {average:.4f} rate {factor:.3f}", flush=True)
        if elapsed - last_save > 120:
            last_save = elapsed
            save()
    save()
    print(f"done: {step} steps, {tokens:,} tokens, loss {average:.4f} nats")


def cut(text: str, tokenizers: list[Tokenizer]) -> list[str]:
    """Halve a text at paragraphs, lines or spaces until every piece fits every model after BOS."""
    if all(len(t.encode(text, add_special_tokens=False).ids) < CONTEXT for t in tokenizers):
        return [text]
    middle = len(text) // 2
    for mark in ("\n\n", "\n", " "):
        ends = [text.rfind(mark, 0, middle), text.find(mark, middle)]
        near = [e + len(mark) for e in ends if len(text) / 4 < e < len(text) * 3 / 4]
        if near:
            middle = min(near, key=lambda e: abs(e - middle))
            break
    return cut(text[:middle], tokenizers) + cut(text[middle:], tokenizers)


@torch.no_grad()
def bits_per_byte(model: LlamaForCausalLM, tokenizer: Tokenizer, chunks: list[str]) -> float:
    """Return the bits per byte of chunks, each scored whole after BOS; EOS is not scored."""
    nats = 0.0
    for chunk in chunks:
        ids = tokenizer.encode(chunk, add_special_tokens=False).ids
        whole = torch.tensor([[model.config.bos_token_id, *ids]])
        scores = model(input_ids=whole).logits[0, :-1].float().log_softmax(-1)
        nats -= scores[torch.arange(len(ids)), whole[0, 1:]].double().sum().item()
    return nats / math.log(2) / sum(len(c.encode()) for c in chunks)


def ship(corpus: Path, work: Path, into: Path, args: argparse.Namespace) -> None:
    """Write the package data, and print the figures for the card."""
    tokenizers = {n: Tokenizer.from_file(str(work / n / "tokenizer.json")) for n in PARTS}
    (into / "text").mkdir(parents=True, exist_ok=True)
    for name in ("evaluation", "calibration"):
        shutil.copyfile(corpus / f"{name}.jsonl", into / "text" / f"{name}.jsonl")
    chunks = {
        name: [
            chunk
            for d in read_documents(corpus / f"{name}.jsonl")
            for chunk in cut(d["text"], list(tokenizers.values()))
        ]
        for name in ("evaluation", "calibration")
    }
    for name, part in PARTS.items():
        state = torch.load(work / f"{name}.checkpoint.pt", weights_only=True)
        model = build_model(part, tokenizers[name])
        model.load_state_dict({k: v.bfloat16().float() for k, v in state["model"].items()})
        model.eval()
        model.config.use_cache = True
        model.generation_config = GenerationConfig.from_model_config(model.config)
        folder = into / name
        model.bfloat16().save_pretrained(folder)
        model.save_pretrained(work / f"{name}-full")
        if name == "donor":
            sides = ("model.embed_tokens.weight", "lm_head.weight")
            rows = {n: model.state_dict()[n].contiguous() for n in sides}
            save_file(rows, folder / "model.safetensors", metadata={"format": "pt"})
            (folder / "generation_config.json").unlink(missing_ok=True)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(work / name / file, folder / file)
            shutil.copyfile(work / name / file, work / f"{name}-full" / file)
        model.float()
        stream = pack(part, tokenizers[name], choose_texts(part, corpus, args.seed))
        batches = windows(stream, model.config.bos_token_id, 1, args.seed)
        met = np.zeros(part.entries, dtype=np.int64)
        for _ in range(state["tokens"] // CONTEXT):
            met += np.bincount(next(batches).flatten().numpy(), minlength=part.entries)
        print(
            f"{name}: {state['tokens']:,} tokens of a stream of {len(stream):,}, "
            f"{state['elapsed'] / 60:.1f} minutes, loss {state['average']:.4f} nats per token; "
            f"{(met == 0).sum()} entries never met, {(met < 20).sum()} less than 20 times"
        )
        for text, pieces in chunks.items():
            figure = bits_per_byte(model, tokenizers[name], pieces)
            count = sum(len(tokenizers[name].encode(c).ids) for c in pieces)
            size = sum(len(c.encode()) for c in pieces)
            print(
                f"  {text}: {figure:.4f} bits per byte, {size / count:.3f} bytes per token, "
                f"over {size:,} bytes in {len(pieces)} chunks"
            )
    total = sum(p.stat().st_size for p in into.rglob("*") if p.is_file())
    print(f"{total:,} bytes in all")


def main() -> None:
    """Run one of the four steps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("tokenizers", "source", "donor", "ship"))
    parser.add_argument("corpus", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, default=Path("tokensurgeon/data"))
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    if args.step == "tokenizers":
        for part in PARTS.values():
            train_tokenizer(part, args.corpus, args.work / part.name)
    elif args.step == "ship":
        ship(args.corpus, args.work, args.into, args)
    else:
        train(PARTS[args.step], args.corpus, args.work, args)


if __name__ == "__main__":
    main()
