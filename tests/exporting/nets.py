"""Small networks, each with something that an export has to get right."""

from __future__ import annotations

from collections import namedtuple

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name
from torch import Tensor, nn

Pair = namedtuple("Pair", "score box")


class Plain(nn.Module):
    """[N, 3, H, W] to [N, width, H, W]; with a BatchNorm, so that evaluation mode matters."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = F.relu(self.norm(self.conv(image)))
        return out


class Pyramid(nn.Module):
    """A map enlarged to the size of another one, and the flatten idiom."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.side = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = F.relu(self.down(x))
        side = self.side(x)
        up = F.interpolate(low, size=side.shape[2:], mode="nearest")  # back to the size of the input
        out: Tensor = (up + side).mean(1)
        return out


class Two(nn.Module):
    """Two inputs of different types, and a parameter with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, 8)

    def forward(self, image: Tensor, ids: Tensor, scale: float = 2.0) -> tuple[Tensor, Tensor]:
        return image * scale, self.table(ids)


class Nested(nn.Module):
    """A dictionary in, a dictionary with a named tuple out."""

    def forward(self, batch: dict[str, Tensor]) -> dict[str, object]:
        return {"a": batch["x"] * 2, "pair": Pair(batch["y"] + 1, batch["x"].flatten(1)), "nothing": None}


class Baked(nn.Module):
    """A size that the tracer takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x * int(x.shape[2])


class Noisy(nn.Module):
    """Random in evaluation mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, training=True)


class _Enlarge(torch.autograd.Function):
    @staticmethod
    def symbolic(g, x, scales):  # type: ignore[no-untyped-def]
        roi = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        return g.op("Resize", x, roi, scales, mode_s="cubic", cubic_coeff_a_f=-0.75,
                    coordinate_transformation_mode_s="pytorch_half_pixel")  # fmt: skip

    @staticmethod
    def forward(ctx, x, scales):  # type: ignore[no-untyped-def]
        return F.interpolate(x, scale_factor=scales[2:].tolist(), mode="bicubic", align_corners=False)


class Enlarging(nn.Module):
    """A factor that arrives at run time, through a `symbolic` of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        out: Tensor = self.conv(_Enlarge.apply(x, factor))  # type: ignore[no-untyped-call]  # torch has no types for it
        return out


def failing() -> nn.Module:
    """A factory that raises."""
    raise RuntimeError("no weights for today")


def number() -> int:
    """A factory of something else."""
    return 3


made = Plain()
