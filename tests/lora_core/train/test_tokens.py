"""New words: what they start from, that only they move, and that the model is left as it came."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny
from lora_core.errors import ConfigError
from lora_core.train.config import ModelSection, TokensSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.tokens import add_tokens


@pytest.fixture
def sd1(tiny_sd1: Path) -> DiffusersDenoiser:
    return DiffusersDenoiser.load(ModelSection(base=str(tiny_sd1)), architecture=tiny.TINY_SD1)


@pytest.fixture
def sdxl(tiny_sdxl: Path) -> DiffusersDenoiser:
    return DiffusersDenoiser.load(ModelSection(base=str(tiny_sdxl)), architecture=tiny.TINY_SDXL)


def table_of(denoiser: DiffusersDenoiser, index: int = 0) -> torch.Tensor:
    return denoiser.encoders[index].model.get_input_embeddings().weight


def test_a_word_starts_as_another_word_and_means_the_same(sd1: DiffusersDenoiser):
    apple = sd1.encode_text(["a apple, red"])["text"]

    add_tokens(sd1, TokensSection(names=("<s1>",), start=("apple",)))

    torch.testing.assert_close(sd1.encode_text(["a <s1>, red"])["text"], apple, rtol=0, atol=0)


def test_each_word_is_one_token_and_capitals_do_not_matter(sd1: DiffusersDenoiser):
    before = len(sd1.encoders[0].tokenizer)

    add_tokens(sd1, TokensSection(names=("<s1>", "<s2>", "zorb"), start=("<zero>", "<zero>", "<zero>")))

    ids = sd1.encoders[0].tokenizer("<s1><s2> zorb <S1>").input_ids[1:-1]
    assert ids == [before, before + 1, before + 2, before]


def test_a_word_of_letters_is_not_found_inside_a_longer_one(sd1: DiffusersDenoiser):
    before = len(sd1.encoders[0].tokenizer)

    add_tokens(sd1, TokensSection(names=("zor",), start=("<zero>",)))

    assert max(sd1.encoders[0].tokenizer("zorba").input_ids) < before


def test_random_starts_follow_from_the_seed(sd1: DiffusersDenoiser):
    section = TokensSection(names=("<s1>", "<s2>"), start=("<rand-0.5>", "<rand-0.5>"))
    states: list[torch.Tensor] = []
    for seed in (1, 1, 2):
        tokens = add_tokens(sd1, section, seed)
        states.append(tokens.state()["text_encoder"])
        tokens.detach()

    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    # 64 draws of deviation 0.5: their own is within a third of it.
    assert states[0].std().item() == pytest.approx(0.5, rel=1 / 3)


def test_without_a_start_words_begin_small_and_random(sd1: DiffusersDenoiser):
    tokens = add_tokens(sd1, TokensSection(names=("<s1>",)))

    # sqrt(32) * 0.017 is about 0.1
    assert 0.05 < tokens.state()["text_encoder"].norm().item() < 0.2


def test_only_the_rows_get_gradients(sd1: DiffusersDenoiser):
    tokens = add_tokens(sd1, TokensSection(names=("<s1>", "<s2>"), start=("apple", "banana")))

    sd1.encode_text(["a <s1>"])["text"].sum().backward()

    wanting = [name for name, p in sd1.parts["text_encoder"].named_parameters() if p.requires_grad]
    assert [name.rsplit(".", 1)[1] for name in wanting] == ["rows"]
    gradient = tokens.parameters()[0].grad
    assert gradient is not None
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


def test_a_trained_word_changes_nothing_else(sd1: DiffusersDenoiser):
    before = sd1.encode_text(["a red apple"])["text"]
    tokens = add_tokens(sd1, TokensSection(names=("<s1>",), start=("apple",)))
    group = tokens.group()
    optimizer = torch.optim.SGD(group.parameters, lr=0.1)
    for _ in range(3):
        sd1.encode_text(["a <s1>"])["text"].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    assert group.name == "tokens"
    assert group.learning_rate == 5e-4
    torch.testing.assert_close(sd1.encode_text(["a red apple"])["text"], before, rtol=0, atol=0)
    assert not torch.equal(sd1.encode_text(["a red <s1>"])["text"], before)


def test_lengths_decay_towards_the_setting(sd1: DiffusersDenoiser):
    tokens = add_tokens(sd1, TokensSection(names=("<s1>",), start=("<rand-1>",), norm=0.4, norm_decay=0.1))
    row = tokens.parameters()[0]
    before = row.detach().clone()

    tokens.decay(5e-4)

    length = before.norm().item()
    assert row.norm().item() == pytest.approx(length + 0.1 * (0.4 - length), rel=1e-5)  # float32
    torch.testing.assert_close(row / row.norm(), before / before.norm(), rtol=1e-5, atol=1e-6)
    tokens.decay(0.0)
    tokens.decay(5e-3)  # all of the way, not beyond
    assert row.norm().item() == pytest.approx(0.4, rel=1e-5)


def test_without_a_length_nothing_decays(sd1: DiffusersDenoiser):
    tokens = add_tokens(sd1, TokensSection(names=("<s1>",), start=("<rand-1>",), norm=0))
    before = tokens.state()["text_encoder"]

    tokens.decay(1.0)

    assert torch.equal(tokens.state()["text_encoder"], before)


def test_sdxl_has_a_row_in_each_encoder(sdxl: DiffusersDenoiser):
    tokens = add_tokens(sdxl, TokensSection(names=("<s1>", "<s2>"), start=("apple", "<zero>")))

    found = tokens.embeddings()

    assert {word: {name: tuple(rows.shape) for name, rows in rows.items()} for word, rows in found.items()} == {
        "<s1>": {"clip_l": (1, tiny.WIDTH), "clip_g": (1, tiny.POOLED)},
        "<s2>": {"clip_l": (1, tiny.WIDTH), "clip_g": (1, tiny.POOLED)},
    }
    assert found["<s2>"]["clip_g"].count_nonzero() == 0


def test_sdxl_takes_the_pooled_text_at_the_end_also_with_new_words(sdxl: DiffusersDenoiser):
    """Their ids are higher than the end token's, which transformers looks for as the highest where settings are old."""
    for encoder in sdxl.encoders:
        inner = getattr(encoder.model, "text_model", encoder.model)
        inner.eos_token_id = 2
    pooled = sdxl.encode_text(["a apple, red"])["pooled"]

    add_tokens(sdxl, TokensSection(names=("<s1>",), start=("apple",)))

    torch.testing.assert_close(sdxl.encode_text(["a <s1>, red"])["pooled"], pooled, rtol=0, atol=0)


def test_the_state_is_restored(sd1: DiffusersDenoiser):
    section = TokensSection(names=("<s1>",), start=("<rand-1>",))
    tokens = add_tokens(sd1, section, seed=1)
    state = tokens.state()
    tokens.detach()

    again = add_tokens(sd1, section, seed=2)
    again.load_state(state)

    assert torch.equal(again.parameters()[0], state["text_encoder"])


def test_detaching_leaves_the_model_as_it_came(sdxl: DiffusersDenoiser):
    names = [list(part.state_dict()) for part in sdxl.parts.values()]
    sizes = [len(encoder.tokenizer) for encoder in sdxl.encoders]
    text = sdxl.encode_text(["a <s1> apple"])

    add_tokens(sdxl, TokensSection(names=("<s1>",))).detach()

    assert [list(part.state_dict()) for part in sdxl.parts.values()] == names
    assert [len(encoder.tokenizer) for encoder in sdxl.encoders] == sizes
    after = sdxl.encode_text(["a <s1> apple"])
    assert all(torch.equal(after[name], text[name]) for name in text)


def test_all_faults_are_told_at_once(sd1: DiffusersDenoiser):
    section = TokensSection(names=("apple", "<s1>", "<s1>", "a b"), start=("rhinoceros", "<zero>"))

    with pytest.raises(ConfigError) as caught:
        add_tokens(sd1, section)

    message = str(caught.value)
    assert "2 entries for 4 words" in message
    assert "'apple' is a word that the text_encoder knows" in message
    assert "'<s1>' is there twice" in message
    assert "'a b' has spaces" in message
    assert "start 'rhinoceros' is" in message


def test_a_model_without_tokenizers_takes_no_words():
    with pytest.raises(ConfigError, match="take no new words"):
        add_tokens(object(), TokensSection(names=("<s1>",)))  # pyright: ignore[reportArgumentType]
