"""Label maps of published data sets: class names and colours in the order that published weights predict them."""

import colorsys

from veduta.labels import LabelClass, LabelMap


def bit_reversed_color(index: int) -> tuple[int, int, int]:
    """The VOC palette: three bits of the index at a time become the highest free bit of red, green and blue."""
    color = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            color[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    red, green, blue = color
    return red, green, blue


def numbered(count: int, *, images: bool) -> LabelMap:
    """`class 0`, `class 1`, ... where nobody says what the outputs mean."""
    return LabelMap(
        name="numbered",
        classes=tuple(LabelClass(file_id=i, name=f"class {i}", color=_hue(i)) for i in range(count)),
        void_ids=() if images else (255,),
        of="images" if images else "pixels",
    )


def _hue(index: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.6, 0.9)  # the golden ratio: neighbours differ most
    return round(255 * red), round(255 * green), round(255 * blue)


def with_background(name: str, names: tuple[str, ...]) -> LabelMap:
    """Background and `names` as the mask values 0, 1, 2, ... in the colours of VOC, and 255 void."""
    classes = (LabelClass(file_id=i, name=n, color=bit_reversed_color(i)) for i, n in enumerate(("background", *names)))
    return LabelMap(name=name, classes=tuple(classes), void_ids=(255,))


# Everingham et al. 2010: 20 classes and background; 255 marks the borders of objects.
VOC = with_background(
    "voc",
    (
        *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    ),
)

# Lin et al. 2014, in BlitzNet's order: the classes of VOC first, in its order, then the others by name.
COCO = with_background(
    "coco",
    (
        *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
        *("dining table", "dog", "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"),
        *("apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed", "bench", "book", "bowl"),
        *("broccoli", "cake", "carrot", "cell phone", "clock", "cup", "donut", "elephant", "fire hydrant", "fork"),
        *("frisbee", "giraffe", "hair drier", "handbag", "hot dog", "keyboard", "kite", "knife", "laptop"),
        *("microwave", "mouse", "orange", "oven", "parking meter", "pizza", "refrigerator", "remote", "sandwich"),
        *("scissors", "sink", "skateboard", "skis", "snowboard", "spoon", "sports ball", "stop sign", "suitcase"),
        *("surfboard", "teddy bear", "tennis racket", "tie", "toaster", "toilet", "toothbrush", "traffic light"),
        *("truck", "umbrella", "vase", "wine glass", "zebra"),
    ),
)

# Cordts et al. 2016: 19 of the label ids are classes, all others are void.
_CITYSCAPES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
CITYSCAPES = LabelMap(
    name="cityscapes",
    classes=tuple(LabelClass(file_id=i, name=name, color=color) for i, name, color in _CITYSCAPES),
    void_ids=(*(i for i in range(34) if i not in {row[0] for row in _CITYSCAPES}), 255),
)

# What published weights with so many outputs were trained on.
BY_COUNT = {21: VOC, 81: COCO, 19: CITYSCAPES}
