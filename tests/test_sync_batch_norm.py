"""Promise of the synchronised BatchNorm: it is one process's BatchNorm on the batches of all ranks."""

from typing import Any

import pytest
import torch
from crew import run_ranks
from torch import Tensor, nn

from veduta import ranks
from veduta.engine.sync_batch_norm import synchronise
from veduta.models.layers import set_batch_norm

SPLITS = {2: (2, 4), 3: (1, 0, 5)}  # images per rank; a batch may be empty
CASES = ("float32", "float64", "bfloat16", "autocast", "channels_last", "momentum", "frozen")


def norm(case: str) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(5, eps=1e-3, momentum=0.4 if case == "momentum" else 0.1)
    with torch.no_grad():
        module.weight.copy_(torch.linspace(0.5, 2, 5))
        module.bias.copy_(torch.linspace(-1, 1, 5))
    if case == "float64":
        module.double()
    return module.eval() if case == "frozen" else module


def drawn(case: str) -> tuple[Tensor, Tensor]:
    """Inputs of all ranks (6, 5, 4, 7), every channel with a mean and a deviation of its own, and what comes back."""
    rng = torch.Generator().manual_seed(0)
    scale, shift = torch.linspace(0.5, 4, 5)[:, None, None], torch.linspace(-3, 3, 5)[:, None, None]
    x = torch.randn(6, 5, 4, 7, generator=rng) * scale + shift
    upstream = torch.randn(6, 5, 4, 7, generator=rng)
    if case == "channels_last":
        x = x.to(memory_format=torch.channels_last)
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(case, torch.float32)
    return x.to(dtype), upstream.to(dtype)


def trained(module: nn.Module, x: Tensor, upstream: Tensor, case: str) -> dict[str, Any]:
    """Two steps, so that running statistics are moved from where they were moved to."""
    for _ in range(2):
        module.zero_grad()
        x = x.detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
            y = module(x)
        y.backward(upstream.to(y.dtype))
    found = {"y": y.detach(), "of_x": x.grad}
    found |= {f"of_{name}": parameter.grad for name, parameter in module.named_parameters()}
    return found | {name: buffer.clone() for name, buffer in module.named_buffers()}


def results() -> dict[str, dict[str, Any]]:
    """Of one rank, for every case."""
    sizes = SPLITS[ranks.world_size()]
    first = sum(sizes[: ranks.rank()])
    own = slice(first, first + sizes[ranks.rank()])
    found = {}
    for case in CASES:
        module = norm(case)
        synchronise(module)
        x, upstream = drawn(case)
        found[case] = trained(module, x[own], upstream[own], case)
    return found


@pytest.fixture(scope="module", params=SPLITS)
def crew(request: pytest.FixtureRequest) -> list[dict[str, dict[str, Any]]]:
    return run_ranks(results, request.param)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_batch_norm_of_the_whole_batch(crew: list[dict[str, dict[str, Any]]], case: str) -> None:
    """In bfloat16 the reference is that of float32, and what leaves the layer is rounded."""
    x, upstream = (tensor.float() if case == "bfloat16" else tensor for tensor in drawn(case))
    whole = trained(norm(case), x, upstream, case)
    short = case == "bfloat16"
    found = [result[case] for result in crew]
    for name in ("y", "of_x"):
        together = torch.cat([result[name] for result in found])
        assert together.dtype == (torch.bfloat16 if short else x.dtype)
        tolerance = 2e-2 if short else 1e-6 if name == "y" else 1e-5
        torch.testing.assert_close(together.to(x.dtype), whole[name], rtol=tolerance, atol=tolerance, msg=name)
    for name in ("of_weight", "of_bias"):  # each rank has its part
        parts = torch.stack([result[name] for result in found]).sum(dim=0)
        tolerance = 2e-2 if short else 1e-5
        torch.testing.assert_close(parts, whole[name], rtol=tolerance, atol=tolerance, msg=name)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert all(torch.equal(result[name], found[0][name]) for result in found)  # the same on every rank, to the bit
        torch.testing.assert_close(found[0][name], whole[name], rtol=1e-6, atol=1e-6, msg=name)


def test_channels_stay_last(crew: list[dict[str, dict[str, Any]]]) -> None:
    for result in crew:
        for name in ("y", "of_x"):
            assert result["channels_last"][name].is_contiguous(memory_format=torch.channels_last)


def test_a_model_keeps_its_modules_names_and_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Sequential(nn.BatchNorm2d(5)))
    names, parameters = list(model.state_dict()), list(model.parameters())
    synchronise(model)
    assert list(model.state_dict()) == names
    assert all(own is before for own, before in zip(model.parameters(), parameters, strict=True))
    assert isinstance(model[1], nn.BatchNorm2d)
    set_batch_norm(model, eps=0.5, momentum=0.25)
    assert model[1].eps == 0.5 and model[1].momentum == 0.25


def test_alone_it_is_the_plain_batch_norm_to_the_bit() -> None:
    x, upstream = drawn("float32")
    module = norm("float32")
    synchronise(module)
    plain, found = trained(norm("float32"), x, upstream, ""), trained(module, x, upstream, "")
    assert plain.keys() == found.keys()
    assert all(torch.equal(found[name], plain[name]) for name in plain)
