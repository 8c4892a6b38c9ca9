"""Old names of the classifiers: ResNeSt, plain ResNets, MobileNetV2.

The authors' release of ResNeSt, timm and torchvision name their tensors as we do.
"""

from veduta.legacy.mapping import Rule, grouped

PYTORCH = (Rule(r"((?:conv1|bn1|layer\d|fc)\..*)", r"\1"),)

MOBILENET_V2 = (Rule(r"((?:features|classifier)\..*)", r"\1"),)

MINDSPORE = (
    # Grouped convolutions are lists of plain ones; so are the two 1x1 of the split attention, which has one group.
    Rule(r"(layer\d\.\d+\.conv2\.(?:conv|fc1|fc2))\.convs\.\d\.weight", r"\1.weight", grouped),
    Rule(r"(.*)\.gamma", r"\1.weight"),
    Rule(r"(.*)\.beta", r"\1.bias"),
    Rule(r"(.*)\.moving_mean", r"\1.running_mean"),
    Rule(r"(.*)\.moving_variance", r"\1.running_var"),
    *PYTORCH,
)
MINDSPORE_ZEROS = r"layer\d\.\d+\.conv2\.fc[12]\.bias"  # the port's split attention has no biases
