"""Promises of samples and batches: what was put in comes out, stacked, in the memory layout that training wants."""

import numpy as np
import torch
from layouts import TINY, paint

from veduta.data.batch import collate, to_unit_range
from veduta.data.sample import Sample, Thinned
from veduta.data.scenes import Scenes

IMAGE, TRAIN_IDS = paint(0, TINY.num_classes)


def test_collate_stacks_what_it_is_given() -> None:
    batch = collate([Sample(image=IMAGE, mask=TRAIN_IDS, name=name) for name in ("a", "b")])
    images, masks, names = batch[:3]
    assert masks is not None and batch.boxes is None and batch.box_classes is None and batch.scene_classes is None
    assert images.shape == (2, 3, *TRAIN_IDS.shape) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (images[1].permute(1, 2, 0).numpy() == IMAGE).all()
    assert (masks[1].numpy() == TRAIN_IDS).all() and masks.dtype == torch.uint8
    assert names == ("a", "b")


def test_collate_keeps_boxes_per_image_and_classes_of_images() -> None:
    boxes = [np.zeros((count, 4), np.float32) for count in (2, 0)]
    classes = [np.ones(count, np.int64) for count in (2, 0)]
    samples = [
        Sample(image=IMAGE, name=str(i), boxes=boxes[i], box_classes=classes[i], scene_class=7 + i) for i in (0, 1)
    ]
    batch = collate(samples).to(torch.device("cpu"))
    assert batch.masks is None and batch.boxes is not None and batch.box_classes is not None
    assert [tuple(b.shape) for b in batch.boxes] == [(2, 4), (0, 4)]
    assert [c.tolist() for c in batch.box_classes] == [[1, 1], []]
    assert batch.scene_classes is not None and batch.scene_classes.tolist() == [7, 8]


def test_unit_range_goes_from_0_to_1() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    found = to_unit_range(images, torch.device("cpu"))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.2, 1.0]))


def test_a_thinned_data_set_holds_every_so_many_th_sample_from_the_first_on() -> None:
    dataset = Scenes("val")
    for every, length in ((1, len(dataset)), (7, -(-len(dataset) // 7)), (len(dataset) + 1, 1)):
        thinned = Thinned(dataset, every)
        assert len(thinned) == length and thinned.labels is dataset.labels
        assert thinned[length - 1].name == dataset[(length - 1) * every].name
