"""What a big model accepts of a draft: laws of the measure, and the command on real tiny models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.world import byte_level_bpe, make_model, save_tokenizer
from tokensurgeon import transplant
from tokensurgeon.checkpoint import Checkpoint
from tokensurgeon.cli.main import main
from tokensurgeon.errors import EvaluationError, RecipeError
from tokensurgeon.evaluation.draft import PLACES, check_same_ids, measure_draft
from tokensurgeon.evaluation.draft_figures import expected_accepted
from tokensurgeon.evaluation.without_surgery import WithoutSurgery
from tokensurgeon.evaluation.written_drafts import softmax, write
from tokensurgeon.models import LanguageModel
from tokensurgeon.models.along_text import AlongText
from tokensurgeon.models.load import load_model
from tokensurgeon.vocabulary import Vocabulary, load_vocabulary

WORDS = ["stone", "river", "winter", "garden", "silver", "morning", "letter", "window"]
TEXT = " ".join(WORDS[(i * i + i // 3) % 8] for i in range(400))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a big model with padded rows, a small one of another vocabulary, and a text."""
    folder = tmp_path_factory.mktemp("draft")
    big = make_model(folder / "big", n_rows=352, width=32, seed=1, noise=0.15)
    save_tokenizer(byte_level_bpe(340, ("<s>",), [TEXT]), big, bos_token="<s>")
    small = make_model(folder / "small", "gpt2", 300, tied=True, width=32, seed=2, noise=0.15)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), small, bos_token="<s>")
    (folder / "text.txt").write_text(TEXT)
    return folder


def both(world: Path) -> tuple[list[LanguageModel], list[Vocabulary]]:
    """The small and the big model, and their vocabularies."""
    folders = [world / "small", world / "big"]
    return [load_model(folder) for folder in folders], [load_vocabulary(f) for f in folders]


def test_chances_multiply_along_the_text() -> None:
    chances = [np.array([1.0, 0.5, 0.5, 0.0]), np.array([0.25])]
    assert expected_accepted(chances, 1) == pytest.approx((1 + 0.5 + 0.5 + 0 + 0.25) / 5)
    assert expected_accepted(chances, 2) == pytest.approx(((1 + 0.5) + (0.5 + 0.25) + 0.5) / 3)
    assert np.isnan(expected_accepted(chances, 5))
    ones = [np.ones(9)]
    assert [expected_accepted(ones, n) for n in (1, 4, 8)] == [1, 4, 8]


def test_a_model_accepts_all_of_its_own(world: Path) -> None:
    model, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    found = measure_draft(model, model, vocabulary, [TEXT])
    assert found.acceptance == pytest.approx(1.0)
    assert found.agreement == 1.0
    assert found.accepted[8] == pytest.approx(8.0)
    assert 0.99 * len(TEXT) < found.n_bytes <= len(TEXT)  # blanks between chunks go


def test_acceptance_is_the_overlap_of_the_two(world: Path) -> None:
    big, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    rows = [e.weight.numpy() for e in (big.model.get_input_embeddings(), big.model.lm_head)]
    other = big.patched(rows[0], 0.5 * rows[1])
    found = measure_draft(other, big, vocabulary, [TEXT])
    back = measure_draft(big, other, vocabulary, [TEXT])
    assert 0 < found.acceptance < 1
    assert found.acceptance == pytest.approx(back.acceptance)  # min(p, q) knows no order
    assert found.agreement == 1.0  # a flatter distribution has the same top
    ids = [*([0] if vocabulary.start_id == 0 else []), *vocabulary.encode(TEXT)][:40]
    p, q = (np.exp(m.logits(ids).astype(np.float64)) for m in (big, other))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    short = measure_draft(other, big, vocabulary, [vocabulary.decode(ids[1:])])
    assert short.acceptance == pytest.approx(np.minimum(p, q).sum(axis=1)[:-1].mean(), abs=1e-6)


def test_a_model_of_the_same_vocabulary_needs_no_surgery(world: Path) -> None:
    """Two routes: what is kept of an intersection that is everything is the draft itself."""
    big, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    rows = [e.weight.numpy() for e in (big.model.get_input_embeddings(), big.model.lm_head)]
    other = big.patched(rows[0], 0.5 * rows[1])
    found = measure_draft(other, big, vocabulary, [TEXT[:600]], untouched=(other, vocabulary))
    kept = found.without_surgery["token-level intersection"]
    # The rows that pad the matrix are no tokens, and are left out.
    assert kept.acceptance == pytest.approx(found.acceptance, abs=0.1)
    assert kept.n_positions == found.n_positions
    itself = measure_draft(big, big, vocabulary, [TEXT[:600]], untouched=(big, vocabulary))
    assert itself.written is not None
    assert itself.written.accepted[8] == pytest.approx(8.0, abs=1e-3)
    assert itself.written.accepted_greedy[8] == 8.0
    again = itself.without_surgery["re-encoding"]
    assert 0 < again.n_positions <= 2 * PLACES
    assert again.acceptance < itself.acceptance  # it must draw the same token, not one as likely
    assert again.agreement > again.acceptance


def test_what_is_kept_of_a_distribution_is_as_brute_force_finds_it(world: Path) -> None:
    models, vocabularies = both(world)
    ways = WithoutSurgery(models[0], models[1], vocabularies[0], vocabularies[1])
    data = TEXT[:120].encode()
    encoding = vocabularies[1].encode_with_bytes(TEXT[:120])
    starts = [0, *encoding.ends.tolist()][:-1]
    ids = [vocabularies[1].start_id, *encoding.ids]
    logits = models[1].logits(ids)[:-1].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = ways.intersection(data, starts, p)
    by_bytes = {b: i for i, b in enumerate(vocabularies[0].token_bytes) if b is not None}
    for at, start in enumerate(starts):
        context = [vocabularies[0].start_id, *vocabularies[0].encode(data[:start].decode())]
        own = np.exp(models[0].logits(context)[-1].astype(np.float64))
        q = np.zeros(p.shape[1])
        for token, spelled in enumerate(vocabularies[1].token_bytes):
            if spelled is not None and spelled in by_bytes:
                q[token] = own[by_bytes[spelled]]
            elif token == vocabularies[1].start_id:
                q[token] = own[vocabularies[0].start_id]
        q /= q.sum()
        assert found.sampled[at] == pytest.approx(np.minimum(p[at], q).sum(), abs=1e-6)
        assert found.greedy[at] == (q.argmax() == p[at].argmax())


def test_what_is_re_encoded_is_accepted_as_the_big_model_draws_it(world: Path) -> None:
    """By hand, a place: the text goes on in the small model's tokens, and is cut by the big one."""
    models, vocabularies = both(world)
    ways = WithoutSurgery(models[0], models[1], vocabularies[0], vocabularies[1])
    text = TEXT[:60]
    ids = [vocabularies[1].start_id, *vocabularies[1].encode(text)]
    found = ways.re_encoding(text.encode(), ids, 4, seed=0)
    context = [vocabularies[0].start_id, *vocabularies[0].encode(text)]
    (written,) = models[0].generate(context, 4, 0, temperature=0.0)
    for n, drafted in enumerate(found, 1):
        more = vocabularies[0].bytes_of(written[:n])
        again = vocabularies[1].encode((text.encode() + more).decode(errors="ignore"))
        own = again[len(ids) - 1 :] if again[: len(ids) - 1] == ids[1:] else []
        for at, token in enumerate(own[: len(drafted.greedy)]):
            likeliest = models[1].logits([*ids, *own[:at]])[-1].argmax()
            assert drafted.greedy[at] == (likeliest == token)
    assert ways.re_encoding("é".encode()[:1], ids, 4, seed=0) == []


def test_what_a_draft_writes_is_accepted_as_the_rule_says(world: Path) -> None:
    """By hand, a place; and a mean over many samples is the overlap of the two distributions."""
    big = load_model(world / "big")
    rows = [e.weight.numpy() for e in (big.model.get_input_embeddings(), big.model.lm_head)]
    draft, ids = big.patched(rows[0], 0.5 * rows[1] + 0.1), [0, 5, 60, 7]
    found = write(AlongText(draft), AlongText(big), ids, 3, seed=4)
    assert [len(one.sampled) for one in found] == [len(one.greedy) for one in found] == [1, 2, 3]
    for temperature, chances in ((1.0, found[2].sampled), (0.0, found[2].greedy)):
        (path,) = draft.generate(ids, 3, 4, temperature=temperature)
        for n, token in enumerate(path):
            p, q = (softmax(m.logits([*ids, *path[:n]])[-1:])[0] for m in (big, draft))
            hand = min(1.0, p[token] / q[token]) if temperature else float(p.argmax() == token)
            assert chances[n] == pytest.approx(hand, rel=1e-5)
    p, q = (softmax(model.logits(ids)[-1:])[0] for model in (big, draft))
    firsts = [
        write(AlongText(draft), AlongText(big), ids, 1, seed)[0].sampled[0] for seed in range(400)
    ]
    assert np.mean(firsts) == pytest.approx(np.minimum(p, q).sum(), abs=4 * np.std(firsts) / 20)


def test_a_token_that_the_big_model_lacks_is_refused(world: Path) -> None:
    big = load_model(world / "big")
    rows = [e.weight.numpy() for e in (big.model.get_input_embeddings(), big.model.lm_head)]
    wider = [np.concatenate([r, r[-1:]]) for r in rows]
    state = big.every_state([[0, 5]], big.n_layers)[0][-1]
    wider[1][-1] = 100 * state / (state @ state)  # the likeliest token after these
    found = write(AlongText(big.patched(wider[0], wider[1])), AlongText(big), [0, 5], 2, seed=0)
    assert [one.greedy.tolist() for one in found] == [[0.0], [0.0]]


def test_a_head_that_keeps_all_is_the_whole_head(world: Path) -> None:
    big, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    rows = [e.weight.numpy() for e in (big.model.get_input_embeddings(), big.model.lm_head)]
    other = big.patched(rows[0], 0.5 * rows[1])
    whole = measure_draft(other, big, vocabulary, [TEXT], kept=np.arange(352))
    assert whole.cut_head is not None
    assert whole.cut_head.accepted.acceptance == pytest.approx(whole.acceptance)
    kept = np.unique(vocabulary.encode(TEXT))
    cut = measure_draft(other, big, vocabulary, [TEXT], kept=kept).cut_head
    assert cut is not None
    assert cut.n_kept == len(kept)
    assert 0 < cut.accepted.agreement <= whole.agreement
    assert cut.whole_seconds > 0


def test_other_ids_are_refused_by_the_first_of_them(world: Path) -> None:
    one, other = load_vocabulary(world / "small"), load_vocabulary(world / "big")
    with pytest.raises(EvaluationError, match=r"id \d+ is '.*' to the draft"):
        check_same_ids(one, other)


def test_a_draft_gets_the_big_models_ids_and_rows(world: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    result = transplant(
        source=world / "small",
        for_draft=world / "big",
        output=out,
        init={"input": "subword-mean", "output": "subword-mean"},
    )
    assert result.report.target.path == str(world / "big")
    assert Checkpoint.open(out).layout.n_rows == Checkpoint.open(world / "big").layout.n_rows
    check_same_ids(load_vocabulary(out), load_vocabulary(world / "big"))
    words = ["evaluate", str(out), str(world / "text.txt"), "--draft-for", str(world / "big")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["acceptance"] < 1
    assert told["n_rows"] == [352, 352]
    assert list(told["accepted"]) == [str(n) for n in range(2, 9)]
    assert told["without_surgery"] == {}
    words += ["--against", str(world / "small")]
    with pytest.raises(SystemExit) as left:
        main([*words, "--json"])
    assert left.value.code == 0
    beside = json.loads(capsys.readouterr().out)["without_surgery"]
    assert list(beside) == ["token-level intersection", "re-encoding"]
    assert all(0 <= one["acceptance"] < 1 for one in beside.values())
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0
    assert "re-encoding" in capsys.readouterr().out


def test_calibration_ends_with_what_the_big_model_says(world: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join([TEXT] * 6))
    result = transplant(
        source=world / "small",
        for_draft=world / "big",
        output=tmp_path / "out",
        untie=True,
        init={"input": "subword-mean", "output": "subword-mean"},
        text={"calibration": [str(tmp_path / "text.txt")]},
        calibrate=["shrunk"],
    )
    last = result.report.stages[-1]
    assert [stage.stage for stage in result.report.stages] == ["shrunk", "draft"]
    assert last.kept
    assert last.settings["acceptance_after"] > last.settings["acceptance_before"]
    assert last.settings["big_model_tokens"] > 0
    big, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    told = measure_draft(load_model(tmp_path / "out"), big, vocabulary, [TEXT])
    assert told.acceptance >= last.settings["acceptance_after"] - 0.02  # which counts no tail


def test_the_body_of_a_draft_changes_where_it_may(world: Path, tmp_path: Path) -> None:
    """More of its tokens are accepted then; without the option, every other weight is as it was."""
    make_model(tmp_path / "small", n_rows=300, width=32, seed=2, noise=0.15)
    save_tokenizer(byte_level_bpe(300, ("<s>",)), tmp_path / "small", bos_token="<s>")
    (tmp_path / "text.txt").write_text("\n\n".join([TEXT] * 6))
    big, vocabulary = load_model(world / "big"), load_vocabulary(world / "big")
    accepted, changed = [], []
    for heal_body in (False, True):
        out = tmp_path / f"out-{heal_body}"
        transplant(
            source=tmp_path / "small",
            for_draft=world / "big",
            output=out,
            untie=True,
            heal_body=heal_body,
            init={"input": "subword-mean", "output": "subword-mean"},
            text={"calibration": [str(tmp_path / "text.txt")]},
            calibrate=["shrunk"],
        )
        accepted.append(measure_draft(load_model(out), big, vocabulary, [TEXT]).acceptance)
        before, after = (load_model(f).model.state_dict() for f in (tmp_path / "small", out))
        changed.append(
            any(not before[n].equal(after[n]) for n in before if before[n].shape == after[n].shape)
        )
    assert changed == [False, True]
    assert accepted[1] > accepted[0] + 0.01


def test_a_draft_is_fitted_to_conversations_too(world: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join([TEXT] * 6))
    shutil.copytree(world / "big", tmp_path / "big")
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (tmp_path / "big" / "chat_template.jinja").write_text(template)
    talk = [{"role": "user", "content": TEXT[:200]}, {"role": "model", "content": TEXT[200:400]}]
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": talk}) + "\n" for _ in range(6)))
    tokens = []
    for named in ((), (str(chats),)):
        result = transplant(
            source=world / "small",
            for_draft=tmp_path / "big",
            untie=True,
            init={"input": "subword-mean", "output": "subword-mean"},
            text={"calibration": [str(tmp_path / "text.txt")], "chat": named},
            calibrate=["shrunk"],
        )
        tokens.append(result.report.stages[-1].settings["big_model_tokens"])
    big = load_vocabulary(world / "big")
    rendered = "".join(f"{m['role']}: {m['content']}\n" for m in talk)
    # Of each conversation the control that begins a turn is one id, and the text's are its own.
    assert tokens[1] - tokens[0] == pytest.approx(6 * len(big.encode(rendered)), rel=0.1)


def test_what_makes_no_draft_is_refused(world: Path, capsys) -> None:
    with pytest.raises(RecipeError, match=r"'text\.chat' is what a draft is fitted to"):
        transplant(source=world / "small", tokenizer=world / "big", text={"chat": ["a.jsonl"]})
    with pytest.raises(RecipeError, match="leave out 'tokenizer'"):
        transplant(source=world / "small", tokenizer=world / "small", for_draft=world / "big")
    text, big = str(world / "text.txt"), str(world / "big")
    for extra, code, message in (
        (["--draft-for", str(world / "small")], 1, "must share its ids"),
        (["--draft-for", big, "--generate", "1"], 2, "a measure of its own"),
    ):
        with pytest.raises(SystemExit) as left:
            main(["evaluate", big, text, *extra])
        assert left.value.code == code
        assert message in capsys.readouterr().err
