"""ResNet-18 for small images: He et al., CVPR 2016, with a 3 x 3 stem and no pooling before the blocks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.spec import DataSpec
from molsam.images.dataset import ImageBatch
from molsam.models.api import ModelOutput

BLOCKS = (2, 2, 2, 2)


class Block(nn.Module):
    """relu(BN(conv(relu(BN(conv x)))) + x); where the shape changes, x passes a 1 x 1 convolution and BN."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(width_in, width_out, 3, stride)
        self.second = _conv(width_out, width_out, 3, 1)
        same = stride == 1 and width_in == width_out
        self.shortcut = nn.Identity() if same else _conv(width_in, width_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width_in, h, w] to [B, width_out, h / stride, w / stride]."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Four pairs of blocks, the mean over the image, and a linear layer.

    Each pair after the first has twice as many channels and halves the image.

    width: channels of the stem and the first blocks; 64 in the paper.
    """

    def __init__(self, spec: DataSpec, *, width: int = 64) -> None:
        super().__init__()
        self.stem = _conv(spec.node_dim, width, 3, 1)
        blocks: list[nn.Module] = []
        before = width
        for stage, count in enumerate(BLOCKS):
            for place in range(count):
                after = width * 2**stage
                blocks.append(Block(before, after, 2 if stage and not place else 1))
                before = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, spec.n_tasks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, batch: ImageBatch) -> ModelOutput:
        """Return logits [1, B, classes]."""
        hidden = self.blocks(F.relu(self.stem(batch.images)))
        return ModelOutput(self.head(hidden.mean((2, 3)))[None])


def _conv(width_in: int, width_out: int, size: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(width_in, width_out, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width_out))
