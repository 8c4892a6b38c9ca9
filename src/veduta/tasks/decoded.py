"""Reading outputs that were decoded inside an exported file, see export/decode.py."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from veduta.tasks.prediction import Prediction


def read_decoded(outputs: Mapping[str, NDArray[Any]]) -> list[Prediction]:
    """One prediction per image: the soft-max over the classes; or a mask, and boxes where the file gives them.

    How sure a mask is, such a file does not say.
    """
    if "class_scores" in outputs:
        return [Prediction(class_scores=scores) for scores in outputs["class_scores"]]
    if "boxes" not in outputs:
        return [Prediction(mask=mask) for mask in outputs["mask"]]
    names = "mask", "boxes", "box_classes", "box_scores", "box_counts"
    return [
        Prediction(mask=mask, boxes=boxes[:count], box_classes=classes[:count], box_scores=scores[:count])
        for mask, boxes, classes, scores, count in zip(*(outputs[name] for name in names), strict=True)
    ]
