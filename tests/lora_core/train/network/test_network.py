"""Groups, starts, state, dropouts and what a network says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

import networks
from lora_core.errors import ConfigError
from lora_core.train.config import TextEncoderSection, TokensSection
from lora_core.train.diffusers_denoiser import DiffusersDenoiser
from lora_core.train.network import Network
from lora_core.train.network.layers import NAME


@pytest.fixture(scope="module")
def loaded() -> DiffusersDenoiser:
    return networks.denoiser()


class Attach:
    """Attaches, and takes everything out again at the end of a test."""

    def __init__(self, model: DiffusersDenoiser) -> None:
        self.model = model
        self.made: list[Network] = []

    def __call__(self, **settings: Any) -> Network:
        self.made.append(networks.attach(self.model, **settings))
        return self.made[-1]

    def again(self, **settings: Any) -> Network:
        self.detach()
        return self(**settings)

    def detach(self) -> None:
        while self.made:
            self.made.pop().detach()


@pytest.fixture
def attach(loaded: DiffusersDenoiser) -> Iterator[Attach]:
    made = Attach(loaded)
    yield made
    made.detach()


def steps(network: Network, model: DiffusersDenoiser, count: int, start: int = 0, rate: float = 1e-3) -> None:
    """Plain gradient steps on one prediction."""
    network.train()
    for step in range(start, start + count):
        network.apply_dropouts(7, step)
        networks.predict(model).square().mean().backward()
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
                parameter.grad = None


def count_hooks(model: DiffusersDenoiser) -> int:
    return sum(len(one._forward_hooks) for part in model.parts.values() for one in part.modules())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_report_counts(attach: Attach) -> None:
    report = attach(text_encoder=True, rank=4, targets="attention").report()
    # 7 transformer blocks with 2 attentions of 4 layers; 2 layers of CLIP with attention and feed-forward.
    assert report.modules == {"denoiser": 7 * 8, "text_encoder": 2 * 6}
    assert report.trained == sum(one.numel() for one in attach.made[0].parameters())
    assert f"{report.trained:,} parameters of {report.total:,}" in str(report)


def test_groups_have_rates_of_their_own(attach: Attach) -> None:
    groups = attach(text_encoder=True).groups()
    assert [(one.name, one.learning_rate) for one in groups] == [("denoiser", 1e-3), ("text_encoder", 1e-5)]


def test_lora_plus_moves_ups_faster(attach: Attach) -> None:
    network = attach(lora_plus=16.0, type="dora")
    down, up = network.groups()
    assert (down.name, up.name, up.learning_rate) == ("denoiser", "denoiser up", 16e-3)
    assert len(down.parameters) == 2 * len(up.parameters)  # downs and magnitudes
    ids = [id(one) for group in (down, up) for one in group.parameters]
    assert sorted(ids) == sorted(map(id, network.parameters()))


def test_nothing_is_attached_where_nothing_is_to_train(attach: Attach, loaded: DiffusersDenoiser) -> None:
    network = attach(train=False)
    assert network.groups() == []
    assert not any(one.requires_grad for part in loaded.parts.values() for one in part.parameters())


def test_the_base_is_frozen_and_stays(attach: Attach, loaded: DiffusersDenoiser) -> None:
    networks.predict(loaded)  # transformers puts hooks of its own on a model at its first call
    before, hooks = networks.weights(loaded), count_hooks(loaded)
    network = attach(text_encoder=True, type="dora", conv_rank=2)
    trained = set(map(id, network.parameters()))
    for part in loaded.parts.values():
        assert all(one.requires_grad == (id(one) in trained) for one in part.parameters())
    steps(network, loaded, 2)
    network.detach()
    after = networks.weights(loaded)
    assert all(torch.equal(after[key], one) for key, one in before.items())
    assert count_hooks(loaded) == hooks
    assert not hasattr(loaded.parts["denoiser"], "peft_config")


def test_a_half_precision_base_has_float32_factors() -> None:
    model = networks.denoiser()
    model.parts["denoiser"].bfloat16()
    network = networks.attach(model, type="dora", conv_rank=2)
    assert {one.dtype for one in network.parameters()} == {torch.float32}


def test_new_words_train_on_beside_the_adapter() -> None:
    from lora_core.train.tokens import add_tokens

    model = networks.denoiser()
    tokens = add_tokens(model, TokensSection(names=("<s1>",)))
    network = networks.attach(model, text_encoder=True)
    assert all(one.requires_grad for one in tokens.parameters())
    network.detach()
    tokens.detach()


@pytest.mark.parametrize("start", ["kaiming", "gaussian", "orthogonal"])
def test_starts_follow_from_seed_and_path_alone(attach: Attach, start: str) -> None:
    wide = attach(start=start, targets="attention+ff").state()
    torch.manual_seed(99)  # is of no consequence
    narrow = attach.again(start=start, targets=("attn2.to_k",)).state()
    assert narrow
    assert all(torch.equal(wide[key], one) for key, one in narrow.items())
    other = attach.again(start=start, targets=("attn2.to_k",), seed=2).state()
    downs = [key for key in narrow if "lora_A" in key]
    assert not any(torch.equal(narrow[key], other[key]) for key in downs)


def test_starts_have_the_spread_of_pefts(attach: Attach) -> None:
    down = torch.cat([one.flatten() for key, one in attach(start="gaussian").state().items() if "lora_A" in key])
    assert down.std().item() == pytest.approx(1 / 4, rel=0.02)  # 20,000 numbers of deviation 1 / rank
    state = attach.again(start="kaiming").state()
    for key, one in state.items():
        if "lora_A" in key:
            assert one.abs().max() <= 1 / sqrt(one.shape[1])
        else:
            assert not one.any()


def test_pissa_begins_with_the_largest_directions(attach: Attach, loaded: DiffusersDenoiser) -> None:
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    whole = loaded.parts["denoiser"].get_submodule(path).weight.detach().clone()
    network = attach(start="pissa", alpha=2.0)
    layer = network.parts["denoiser"].layers[path]
    u, s, v = torch.linalg.svd(whole)
    best = u[:, :4] * s[:4] @ v[:4]
    # Two decompositions of a 128 x 128 matrix in float32.
    assert torch.allclose(layer.peft.get_delta_weight(NAME), best, atol=1e-5)
    assert torch.allclose(layer.weight + best, whole, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3, "rank_dropout": 0.4, "module_dropout": 0.2},
        {"type": "dora", "rank_dropout": 0.4, "module_dropout": 0.3},
        {"type": "loha", "rank_dropout": 0.3, "module_dropout": 0.3},
        {"type": "lokr", "rank_dropout": 0.3, "module_dropout": 0.3},
        {"type": "oft", "rank": 8, "rank_dropout": 0.3, "module_dropout": 0.3},
        {"start": "pissa"},
        {"start": "olora", "alpha": 2.0},
    ],
)
def test_a_run_goes_on_from_its_state_to_the_last_bit(
    attach: Attach, loaded: DiffusersDenoiser, settings: dict[str, Any]
) -> None:
    settings = {"targets": ("attn1.to_q", "attn2.to_v"), **settings}
    network = attach(**settings)
    steps(network, loaded, 2)
    half = network.state()
    steps(network, loaded, 2, start=2)
    whole = network.state()
    torch.manual_seed(5)
    network = attach.again(**settings)
    network.load_state(half)
    assert equal(network.state(), half)
    steps(network, loaded, 2, start=2)
    assert equal(network.state(), whole)


def test_a_state_of_another_network_is_refused(attach: Attach) -> None:
    state = attach(rank=4).state()
    with pytest.raises(ConfigError, match=r"lora_A.weight: expected \(2, .*start afresh"):
        attach.again(rank=2).load_state(state)
    with pytest.raises(ConfigError, match=r"text_encoder.* is of a part that is not trained"):
        attach.again(rank=4).load_state({"text_encoder.x": torch.zeros(1)})


def test_ranks_sit_out_and_the_others_are_scaled_up(attach: Attach) -> None:
    network = attach(rank_dropout=0.5, targets=("attn1.to_q",))
    networks.move(network)
    layer = next(iter(network.parts["denoiser"].layers.values()))
    down, up = layer.peft.lora_A[NAME].weight, layer.peft.lora_B[NAME].weight
    inputs = torch.eye(down.shape[1])
    network.train()
    seen: set[tuple[bool, ...]] = set()
    for step in range(12):
        network.apply_dropouts(0, step)
        change = (layer.peft(inputs) - layer.base(inputs)).T
        kept = (torch.linalg.pinv(up) @ change @ torch.linalg.pinv(down)).diagonal()
        # Each rank is out, or twice as strong; pseudo-inverses of small factors round.
        assert torch.allclose(kept, (kept > 1).float() * 2, atol=1e-2)
        seen.add(tuple((kept > 1).tolist()))
    assert len(seen) > 4
    network.train(False)
    assert torch.allclose((layer.peft(inputs) - layer.base(inputs)).T, up @ down, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"type": "dora"}, {"type": "loha"}, {"type": "lokr"}, {"type": "oft", "rank": 8}]
)
def test_modules_sit_out_whole(attach: Attach, settings: dict[str, Any]) -> None:
    network = attach(module_dropout=0.5, targets=("attn1.to_q",), **settings)
    networks.move(network)
    layers = list(network.parts["denoiser"].layers.values())
    network.train()
    out = 0
    for step in range(20):
        network.apply_dropouts(0, step)
        for layer in layers:
            inputs = torch.eye(layer.weight.shape[1])
            out += torch.allclose(layer.peft(inputs), layer.base(inputs), atol=1e-6)
    assert 0.3 < out / (20 * len(layers)) < 0.7


def test_neurons_are_the_same_in_each_run_and_others_in_each_pass(attach: Attach, loaded: DiffusersDenoiser) -> None:
    network = attach(dropout=0.5)
    networks.move(network)
    network.train()

    def seen(step: int, part: int = 0) -> torch.Tensor:
        network.apply_dropouts(0, step, part)
        return networks.predict(loaded)

    assert torch.equal(seen(3), seen(3))
    assert not torch.equal(seen(3), seen(4))
    assert not torch.equal(seen(3), seen(3, part=1))


def test_samples_are_drawn_without_dropouts(attach: Attach, loaded: DiffusersDenoiser) -> None:
    network = attach(dropout=0.5, rank_dropout=0.5)
    networks.move(network)
    network.train()
    network.apply_dropouts(0, 0)
    with network.scaled(1.0):
        one = networks.predict(loaded)
        assert torch.equal(one, networks.predict(loaded))
    assert all(layer.peft.training for layer in network.parts["denoiser"].layers.values())


def test_a_model_with_adapters_takes_no_second(attach: Attach) -> None:
    attach()
    with pytest.raises(ConfigError, match="has adapters of PEFT already"):
        networks.attach(attach.model)


def test_a_failed_attempt_leaves_the_model_as_it_was(loaded: DiffusersDenoiser) -> None:
    before = networks.state(loaded)
    section = TextEncoderSection(train=True, targets=("no_such_layer",))
    from lora_core.train.config import NetworkSection

    with pytest.raises(ConfigError, match=r"text_encoder\.targets: 'no_such_layer' is the name of no module"):
        Network.attach(loaded, NetworkSection(), section, 0, 1e-4)
    assert equal(before, networks.state(loaded))
    assert not hasattr(loaded.parts["denoiser"], "peft_config")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"type": "loha", "start": "gaussian"}, "start gaussian is for lora and dora"),
        ({"type": "dora", "start": "pissa"}, "use gaussian, or lora"),
        ({"type": "oft", "conv_rank": 4}, "leave out conv_rank"),
        ({"type": "lokr", "lora_plus": 4.0}, "lora_plus is for lora and dora"),
        ({"type": "lokr", "dropout": 0.1}, "lokr has rank_dropout and module_dropout"),
        ({"targets": "atention"}, "did you mean 'attention'"),
        ({"targets": "regex:("}, "is no regular expression"),
        ({"targets": ("to_qq",)}, "did you mean 'to_q'"),
        ({"targets": "regex:nowhere"}, "chooses no module: there are"),
        ({"block_ranks": {"mdi": 4}}, "block_ranks.mdi: no such block; did you mean mid?"),
        ({"start": "orthogonal", "rank": 3}, "needs an even rank"),
        ({"start": "pissa", "rank": 100}, "pissa takes a rank of at most 64"),
    ],
)
def test_settings_that_cannot_work_say_so(loaded: DiffusersDenoiser, settings: dict[str, Any], fault: str) -> None:
    before = networks.state(loaded)
    with pytest.raises(ConfigError, match=fault.replace("?", r"\?")):
        networks.attach(loaded, **settings)
    assert equal(before, networks.state(loaded))


def test_blocks_have_ranks_of_their_own(attach: Attach) -> None:
    network = attach(block_ranks={"mid": 8, "out00": 0}, block_alphas={"mid": 2.0}, targets="attention")
    sizes = {
        path.split(".attentions")[0]: (one.rank, one.scale) for path, one in network.parts["denoiser"].layers.items()
    }
    assert sizes["mid_block"] == (8, 0.25)
    assert sizes["down_blocks.0"] == (4, 1.0)
    assert not any(path.startswith("up_blocks.0.attentions.0") for path in network.parts["denoiser"].layers)
    assert any(path.startswith("up_blocks.0.attentions.1") for path in network.parts["denoiser"].layers)


def test_what_the_family_has_no_name_for_is_left_out_and_told(loaded: DiffusersDenoiser) -> None:
    unet = loaded.parts["denoiser"]
    unet.extra_attn = nn.ModuleDict({"to_q": nn.Linear(4, 4)})
    network = networks.attach(loaded, targets="attention")
    try:
        assert network.report().nameless == ("denoiser.extra_attn.to_q",)
        assert "1 have no name" in str(network.report())
        assert "extra_attn.to_q" not in network.parts["denoiser"].layers
    finally:
        network.detach()
        del unet.extra_attn
