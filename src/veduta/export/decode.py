"""Decoding appended to an exported graph: what a task makes of a network's outputs, in standard ONNX operators.

The way from scores to detections is that of ops/boxes.py to the letter, of many images at once.
"""

import onnx
from onnx import compose, parser

from veduta.config import TaskName
from veduta.ops.detections import (
    CANDIDATES_PER_CLASS,
    CENTRE_VARIANCE,
    KEPT_PER_CLASS,
    KEPT_PER_IMAGE,
    MIN_SCORE,
    SIZE_VARIANCE,
    SUPPRESSING_IOU,
)
from veduta.tasks.prediction import MOST_CLASSES

CLASSIFY = """
decode (float[{batch}, {classes}] class_logits)
    => (float[{batch}, {classes}] class_scores, int64[{batch}, {top}] top_classes, float[{batch}, {top}] top_scores)
    <int64[1] top = {{{top}}}>
{{
    class_scores = Softmax <axis = 1> (class_logits)
    top_scores, top_classes = TopK <axis = 1> (class_scores, top)
}}"""

SEGMENT = """
decode (float[{batch}, {classes}, {height}, {width}] mask_logits) => (uint8[{batch}, {height}, {width}] mask)
{{
    mask_classes = ArgMax <axis = 1, keepdims = 0, select_last_index = 0> (mask_logits)
    mask = Cast <to = 2> (mask_classes)
}}"""

# Only the few candidates are sorted; OpenVINO is slow where equals have to keep their order. Which of all priors are
# candidates is told by the score of the last one, and of those that score the same by their place. Once sorted, a
# candidate's rank says all that suppression asks of a score, and no two are equal. Boxes that lie outside of the image
# have a side below zero and overlap nothing; NonMaxSuppression would swap their corners, so it is given a side of zero.
DETECT_SEGMENT = """
decode (float[{batch}, {priors}, {classes}] class_logits, float[{batch}, {priors}, 4] box_deltas,
        float[{priors}, 4] priors, float[{batch}, {classes}, {height}, {width}] mask_logits)
    => (float[{batch}, {kept}, 4] boxes, int64[{batch}, {kept}] box_classes, float[{batch}, {kept}] box_scores,
        int64[{batch}] box_counts, uint8[{batch}, {height}, {width}] mask)
    <float none = {{0.0}}, float half = {{0.5}}, float whole = {{1.0}}, int64 first_object = {{1}},
     int64[1] axis_1 = {{1}}, int64[1] axis_2 = {{2}},
     float centre_variance = {{{centre_variance}}}, float size_variance = {{{size_variance}}},
     int64[2] background_and_objects = {{1, {objects}}}, int64[1] num_candidates = {{{candidates}}},
     int64 per_class = {{{candidates}}}, float min_score = {{{min_score}}}, float step_down = {{-1.0}},
     float last_of_priors = {{{priors}.0}}, float last_of_candidates = {{{candidates}.0}},
     int64[3] rows_of_boxes = {{-1, {candidates}, 4}}, int64[3] rows_of_ranks = {{-1, 1, {candidates}}},
     int64[2] rows_of_scores = {{-1, {candidates}}}, int64[2] row_and_rank = {{0, 2}},
     int64[2] images = {{-1, {of_all_classes}}}, int64[4] up_to_kept = {{0, 0, 0, {missing}}},
     int64 kept_per_class = {{{kept_per_class}}}, float suppressing_iou = {{{suppressing_iou}}},
     int64[1] num_kept = {{{kept}}}>
{{
    mask_classes = ArgMax <axis = 1, keepdims = 0, select_last_index = 0> (mask_logits)
    mask = Cast <to = 2> (mask_classes)

    centre_deltas, size_deltas = Split <axis = -1, num_outputs = 2> (box_deltas)
    prior_centres, prior_sizes = Split <axis = -1, num_outputs = 2> (priors)
    centre_parts = Mul(centre_deltas, centre_variance)
    centre_shifts = Mul(centre_parts, prior_sizes)
    centres = Add(centre_shifts, prior_centres)
    size_logarithms = Mul(size_deltas, size_variance)
    size_factors = Exp(size_logarithms)
    sizes = Mul(size_factors, prior_sizes)
    reaches = Mul(sizes, half)
    far_starts = Sub(centres, reaches)
    starts = Max(far_starts, none)
    far_ends = Add(starts, sizes)
    ends = Min(far_ends, whole)
    decoded = Concat <axis = -1> (starts, ends)

    probabilities = Softmax <axis = -1> (class_logits)
    background, objects = Split <axis = -1> (probabilities, background_and_objects)
    all_scores = Transpose <perm = [0, 2, 1]> (objects)
    best_scores, unused_places = TopK <axis = -1, sorted = 0> (all_scores, num_candidates)
    least = ReduceMin (best_scores, axis_2)
    above = Greater(all_scores, least)
    level = Equal(all_scores, least)
    level_order = Range(last_of_priors, none, step_down)
    order_above = Add(level_order, last_of_priors)
    level_keys = Where(level, level_order, none)
    keys = Where(above, order_above, level_keys)
    unused_keys, chosen = TopK <axis = -1, sorted = 0> (keys, num_candidates)
    chosen_priors, unused_order = TopK <axis = -1, largest = 0> (chosen, num_candidates)
    chosen_scores = GatherElements <axis = -1> (all_scores, chosen_priors)
    scores, order = TopK <axis = -1> (chosen_scores, num_candidates)
    priors_of_classes = GatherElements <axis = -1> (chosen_priors, order)
    priors_of_images = Reshape(priors_of_classes, images)
    candidate_priors = Unsqueeze(priors_of_images, axis_2)
    candidates = GatherND <batch_dims = 1> (decoded, candidate_priors)

    alive = Greater(scores, min_score)
    ranks = Range(last_of_candidates, none, step_down)
    alive_ranks = Where(alive, ranks, none)
    nms_ranks = Reshape(alive_ranks, rows_of_ranks)
    candidate_starts, candidate_ends = Split <axis = -1, num_outputs = 2> (candidates)
    nms_ends = Max(candidate_starts, candidate_ends)
    nms_corners = Concat <axis = -1> (candidate_starts, nms_ends)
    nms_boxes = Reshape(nms_corners, rows_of_boxes)
    selected = NonMaxSuppression(nms_boxes, nms_ranks, kept_per_class, suppressing_iou, half)

    score_rows = Reshape(scores, rows_of_scores)
    kept_places = Gather <axis = 1> (selected, row_and_rank)
    kept_scores = GatherND(score_rows, kept_places)
    no_scores = Mul(score_rows, none)
    kept_rows = ScatterND(no_scores, kept_places, kept_scores)
    kept_of_classes = Reshape(kept_rows, images)
    kept_of_images = Pad(kept_of_classes, up_to_kept)
    box_scores, best_or_none = TopK <axis = -1> (kept_of_images, num_kept)

    counted = Greater(box_scores, none)
    ones = Cast <to = 7> (counted)
    best = Mul(best_or_none, ones)
    box_counts = ReduceSum <keepdims = 0> (ones, axis_1)
    object_classes = Div(best, per_class)
    best_classes = Add(object_classes, first_object)
    box_classes = Mul(best_classes, ones)

    best_places = Unsqueeze(best, axis_2)
    best_boxes = GatherND <batch_dims = 1> (candidates, best_places)
    counted_boxes = Unsqueeze(counted, axis_2)
    relative_boxes = Where(counted_boxes, best_boxes, none)
    height = Shape <start = 2, end = 3> (mask_logits)
    width = Shape <start = 3, end = 4> (mask_logits)
    lengths = Concat <axis = 0> (width, height, width, height)
    pixels = Cast <to = 1> (lengths)
    boxes = Mul(relative_boxes, pixels)
}}"""


def add_decoding(proto: onnx.ModelProto, task: TaskName) -> onnx.ModelProto:
    """The graph of a network's raw outputs -> one whose outputs are decoded.

    classify: class_scores (N, C) float32, the soft-max; top_classes (N, k) int64 and top_scores (N, k) float32, the
    MOST_CLASSES best. segment: mask (N, H, W) uint8 train ids. detect_segment: boxes (N, KEPT_PER_IMAGE, 4) float32
    xyxy pixels of the image, best first; box_classes (N, KEPT_PER_IMAGE) int64 and box_scores, float32; box_counts (N,)
    int64, how many of the rows were found, the others are 0; and mask.
    """
    shapes = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.output}
    if task == "classify":
        batch, classes = shapes["class_logits"]
        top = min(MOST_CLASSES, classes.dim_value)
        text = CLASSIFY.format(batch=_length(batch, "N"), classes=classes.dim_value, top=top)
    else:
        batch, classes, height, width = shapes["mask_logits"]
        text = (SEGMENT if task == "segment" else DETECT_SEGMENT).format(
            batch=_length(batch, "N"),
            classes=classes.dim_value,
            height=_length(height, "H"),
            width=_length(width, "W"),
            **(_numbers(shapes["priors"][0].dim_value, classes.dim_value) if task == "detect_segment" else {}),
        )
    decoding = parser.parse_graph(text)
    compose.add_prefix_graph(decoding, "decode.", rename_inputs=False, rename_outputs=False, inplace=True)
    read = [(value.name, value.name) for value in decoding.input]
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    full.graph.CopyFrom(compose.merge_graphs(proto.graph, decoding, io_map=read))
    return full


def _length(dim: onnx.TensorShapeProto.Dimension, name: str) -> str:
    """As text: a fixed length, or the name of an open one."""
    return str(dim.dim_value) if dim.HasField("dim_value") else name


def _numbers(priors: int, classes: int) -> dict[str, object]:
    """The numbers that DETECT_SEGMENT leaves open, by their names there."""
    candidates = min(CANDIDATES_PER_CLASS, priors)
    of_all_classes = candidates * (classes - 1)
    return {
        "priors": priors,
        "objects": classes - 1,
        "candidates": candidates,
        "of_all_classes": of_all_classes,
        "kept": KEPT_PER_IMAGE,
        "missing": max(KEPT_PER_IMAGE - of_all_classes, 0),
        "kept_per_class": KEPT_PER_CLASS,
        "min_score": MIN_SCORE,
        "suppressing_iou": SUPPRESSING_IOU,
        "centre_variance": CENTRE_VARIANCE,
        "size_variance": SIZE_VARIANCE,
    }
