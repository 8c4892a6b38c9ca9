"""Engine: what the verbs do. Training, prediction, evaluation; it never asks which task it runs."""
