"""What a network gives for an image, known without showing it one: names, order and shapes of its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veduta.backends import Backend
from veduta.backends.runtime import check_images
from veduta.data.fit import Size
from veduta.engine.predictions.tensor_files import Shape
from veduta.model_info import ModelInfo, OpenShape

PRIORS = "priors"  # of the outputs the one that is the same whatever the network sees


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """outputs: their shapes, in the network's order; None: as long as the image. constants: those that never change.

    others: further shapes that an output may come in, where whoever runs the network stretches images to its square.
    """

    info: ModelInfo
    outputs: Mapping[str, OpenShape]
    constants: Mapping[str, NDArray[Any]]
    others: Mapping[str, tuple[Shape, ...]]

    @property
    def recorded(self) -> tuple[str, ...]:
        """The outputs that differ from image to image."""
        return tuple(name for name in self.outputs if name not in self.constants)

    def shapes(self, size: Size) -> dict[str, tuple[Shape, ...]]:
        """The shapes that an output may have for an image of `size` (height, width), the network's own first.

        Raises ValueError where the network is an exported one for images of other sizes.
        """
        shapes: dict[str, tuple[Shape, ...]] = {}
        if self.info.exported is not None and not self.others:
            check_images(self.info, (1, 3, *size))
        for name in self.recorded:
            lengths = (1, 0, *size)  # of those that are left open; the second never is
            own = tuple(b if a is None else a for a, b in zip(self.outputs[name], lengths, strict=False))
            shapes[name] = tuple(dict.fromkeys((own, *self.others.get(name, ()))))
        return shapes


def skeleton_of(backend: Backend) -> Skeleton:
    """Raises ValueError for a file whose outputs are decoded inside."""
    return _of_exported(backend) if backend.info.exported is not None else _of_network(backend.info)


def _of_exported(backend: Backend) -> Skeleton:
    """As the file tells it; its constants it says when it runs once."""
    info = backend.info
    assert info.exported is not None
    if info.exported.full:
        raise ValueError(
            f"the model was exported with --full and gives {', '.join(info.exported.outputs)}; raw outputs are those "
            "from before that. Give a file that was exported without it, or write masks as index PNGs, which are "
            "scored as such."
        )
    outputs: dict[str, OpenShape] = {name: (None, *shape[1:]) for name, shape in info.exported.outputs.items()}
    constants: dict[str, NDArray[Any]] = {}
    others: dict[str, tuple[Shape, ...]] = {}
    if PRIORS in outputs:
        batch, _, *sides = info.exported.images
        height, width = (own or length for own, length in zip(sides, info.recipe.data.crop_size, strict=True))
        found = backend(np.zeros((batch or 1, 3, height, width), np.uint8))
        constants = {PRIORS: found[PRIORS]}
        masks = {name: shape[:2] for name, shape in outputs.items() if len(shape) == 4}
        outputs.update({name: (*shape, None, None) for name, shape in masks.items()})
        # The side of the finest level: the centre of its first prior is that of its first cell.
        grid = round(0.5 / float(found[PRIORS][0, 0]))
        others = {name: tuple((1, found[name].shape[1], *x) for x in ((height, width), (grid, grid))) for name in masks}
    return Skeleton(info=info, outputs=outputs, constants=constants, others=others)


def _of_network(info: ModelInfo) -> Skeleton:
    """BlitzNet stretches images to a square, and so may whoever runs it: then masks come in the size of the square.

    Its TensorFlow graph gives them on the grid of the network. Both are resized as BlitzNet does.
    """
    import torch

    from veduta.models import build_skeleton

    recipe = info.recipe
    crop = recipe.data.crop_size
    network = build_skeleton(recipe.model, info.labels.num_classes, **recipe.model_options).eval()
    values = dict(network.named_buffers())
    network.to("meta")
    of_buffer = {id(buffer): values[name] for name, buffer in network.named_buffers()}
    with torch.inference_mode():
        outputs = network(torch.empty(1, 3, *crop, device="meta"))
        constants = {name: of_buffer[id(x)].numpy() for name, x in outputs.items() if id(x) in of_buffer}
        others: dict[str, tuple[Shape, ...]] = {}
        if recipe.task == "detect_segment":
            on_grid = network.train()(torch.empty(2, 3, *crop, device="meta"))  # BatchNorm wants two
            others = {name: tuple((1, *x[name].shape[1:]) for x in (outputs, on_grid)) for name in outputs}
    shapes: dict[str, OpenShape] = {name: (None, *x.shape[1:]) for name, x in outputs.items()}
    for name, shape in shapes.items():
        if shape[2:] == crop:
            shapes[name] = (*shape[:2], None, None)
    return Skeleton(info=info, outputs=shapes, constants=constants, others=others)
