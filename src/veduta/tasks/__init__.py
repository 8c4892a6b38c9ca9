"""Tasks: what a model's outputs mean. `losses` for training, `predict` for people, `metric` for scores.

Every task says which output of the model it `reads` first, which field of a Sample is the `truth` it is scored with,
and the names of its overall `scores`, of which the first one chooses the best checkpoint.
"""

from veduta.tasks.classify import Classify
from veduta.tasks.detect_segment import DetectSegment
from veduta.tasks.segment import Segment

Task = Classify | Segment | DetectSegment

TASKS: dict[str, type[Classify] | type[Segment] | type[DetectSegment]] = {
    "classify": Classify,
    "segment": Segment,
    "detect_segment": DetectSegment,
}
