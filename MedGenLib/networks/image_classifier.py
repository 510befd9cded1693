"""Network that finds the class of a whole image."""

from __future__ import annotations

from torch import Tensor, nn

GROUPS = 4


class ImageClassifier(nn.Module):
    """DenseNet of MONAI (Huang et al. 2017): image (b, channels, ...) -> one score per class (b, classes).

    Group normalization, because batches of volumes are small, and because averaged weights need no statistics.

    Parameters
    ----------
    dims: axes of the image, 2 or 3. channels: of the image. classes: number of scores.
    width, growth, blocks: features after the first layer, features that each layer adds, layers per block.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        classes: int,
        width: int = 16,
        growth: int = 8,
        blocks: tuple[int, ...] = (2, 4, 4),
    ) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet  # takes seconds

        self.arguments = {
            "dims": dims,
            "channels": channels,
            "classes": classes,
            "width": width,
            "growth": growth,
            "blocks": list(blocks),
        }
        norm = ("group", {"num_groups": GROUPS})
        self.net = DenseNet(dims, channels, classes, width, growth, tuple(blocks), norm=norm)

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image).float()
