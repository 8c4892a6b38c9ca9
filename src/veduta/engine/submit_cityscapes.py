"""What the Cityscapes server takes: a zip with a PNG of label ids for each image.

Cordts et al. 2016; the rules are those of the authors' evalPixelLevelSemanticLabeling: the file of an image is the one
CITY_SEQ_FRAME*.png in any folder, and a label id that is not evaluated may be predicted, as a miss.
"""

from veduta.data.label_maps import CITYSCAPES
from veduta.engine.submit import MaskForm


class CityscapesMasks(MaskForm):
    """Grey PNGs, as the masks of the data set are."""

    layout = "cityscapes"
    ending = ".zip"
    labels = CITYSCAPES
    legal = frozenset(range(34))

    def entry_of(self, name: str) -> str:
        return f"{name}_pred_labelIds.png"

    def file_of(self, entry: str) -> str | None:
        file = entry.rpartition("/")[2]
        beginnings = (file[:end] for end in range(len(file), 0, -1))
        name = next((beginning for beginning in beginnings if beginning in self.names), None)
        return f"{name}.png" if name and file.endswith(".png") else None

    def about(self) -> str:
        return f"CITY_SEQ_FRAME*.png of the {len(self.names):,} images of split '{self.split}'"
