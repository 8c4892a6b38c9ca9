"""Tasks: what a model's outputs mean. `losses` for training, `predict` for people, `metric` for scores."""

from veduta.tasks.segment import Segment

TASKS = {
    "segment": Segment,
}
