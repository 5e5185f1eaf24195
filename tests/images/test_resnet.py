"""ResNet-18 against a second implementation, and BatchNorm under two passes per step."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.spec import DataSpec
from molsam.images.dataset import ImageBatch
from molsam.images.resnet import ResNet18
from molsam.optim import SAM
from molsam.training.closure import Closure
from molsam.training.objective import Objective

SPEC = DataSpec(node_dim=3, edge_dim=0, n_tasks=10, max_atoms=0)


def batch(count: int) -> ImageBatch:
    torch.manual_seed(1)
    labels = torch.arange(count)[:, None] % 10
    return ImageBatch(torch.randn(count, 3, 32, 32), torch.arange(count), labels.float(), labels >= 0)


def twin(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al.'s Figure 3 for CIFAR-sized images, written out over the state dict."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}.0.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        mean, var, gain, shift = (
            weights[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, gain, shift)

    x = conv("stem", x).relu()
    for place, stride in enumerate([1, 1, 2, 1, 2, 1, 2, 1]):
        name = f"blocks.{place}"
        short = conv(f"{name}.shortcut", x, stride) if stride == 2 else x
        x = (conv(f"{name}.second", conv(f"{name}.first", x, stride).relu()) + short).relu()
    return F.avg_pool2d(x, 4).flatten(1) @ weights["head.weight"].T + weights["head.bias"]


def test_equals_its_twin() -> None:
    model = ResNet18(SPEC, width=4).double()
    data = batch(6).to(dtype=torch.float64)
    model.train()(data)
    logits = model.eval()(data).logits
    assert logits.shape == (1, 6, 10)
    torch.testing.assert_close(logits[0], twin(dict(model.state_dict()), data.images), rtol=1e-10, atol=1e-12)


def test_has_the_published_size() -> None:
    """11.17 million weights, the CIFAR form of ResNet-18."""
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet18(SPEC).parameters()) == 11_173_962


def test_statistics_are_touched_once_a_step() -> None:
    model = ResNet18(SPEC, width=4).train()
    closure = Closure(model, Objective("multiclass", classes=model.head.out_features))
    closure.batches = [batch(8)]
    optimizer = SAM(model, partial(torch.optim.SGD, lr=0.1), rho=0.05, steps_per_epoch=1)
    optimizer.step(closure)
    assert optimizer.passes == 2
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 20
    assert {int(layer.num_batches_tracked) for layer in layers} == {1}


def test_the_loss_is_cross_entropy() -> None:
    model, data = ResNet18(SPEC, width=4), batch(8)
    closure = Closure(model, Objective("multiclass", classes=model.head.out_features))
    output = model(data)
    expected = F.cross_entropy(output.logits[0], data.targets[:, 0].long())
    torch.testing.assert_close(closure.objective(output, data.targets, data.mask), expected)
    assert torch.equal(closure.objective.predict(output)[:, 0].argmax(1), output.logits[0].argmax(1))


@pytest.mark.parametrize("sizes", [[8], [5, 3]])
def test_a_closure_may_weight_the_gradient_by_the_loss(sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = ResNet18(SPEC, width=4).double()
    closure = Closure(model, Objective("multiclass", classes=model.head.out_features))
    closure.batches = [batch(size).to(dtype=torch.float64) for size in sizes]
    loss = closure()
    expected = [p.grad * loss for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.testing.assert_close(closure.weighted(), loss)
    for found, wanted in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.grad, wanted, rtol=1e-9, atol=1e-12)
