"""Old names of RefineNet: DrSleep's PyTorch port and MindSpore's.

Both count their stages from the coarsest, as we do: stage 1 is paths.0.
"""

from veduta.legacy.mapping import Rule

_BACKBONE = Rule(r"((?:conv1|bn1|layer\d)\..*)", r"backbone.\1")

_SHARED = (
    Rule(r"p_ims1d2_outl(\d)_dimred\.weight", r"paths.<\1-1>.reduce.weight"),
    Rule(r"adapt_stage(\d)_b2_joint_varout_dimred\.weight", r"paths.<\1-1>.fuse.weight"),
    Rule(r"mflow_conv_g(\d)_b3_joint_varout_dimred\.weight", r"paths.<\1-1>.pass_on.weight"),
    Rule(r"clf_conv\.(weight|bias)", r"head.\1"),
)

DRSLEEP = (
    _BACKBONE,
    *_SHARED,
    Rule(r"adapt_stage(\d)_b\.0\.(\d)_conv\.(weight|bias)", r"paths.<\1-1>.adapt.<\2-1>.conv1.\3"),
    Rule(
        r"adapt_stage(\d)_b\.0\.(\d)_conv_relu_varout_dimred\.weight",
        r"paths.<\1-1>.adapt.<\2-1>.conv2.weight",
    ),
    Rule(r"mflow_conv_g(\d)_pool\.0\.(\d)_outvar_dimred\.weight", r"paths.<\1-1>.pool.convs.<\2-1>.weight"),
    Rule(r"mflow_conv_g(\d)_b\.0\.(\d)_conv\.(weight|bias)", r"paths.<\1-1>.refine.<\2-1>.conv1.\3"),
    Rule(
        r"mflow_conv_g(\d)_b\.0\.(\d)_conv_relu_varout_dimred\.weight",
        r"paths.<\1-1>.refine.<\2-1>.conv2.weight",
    ),
)

MINDSPORE = (
    # In a unit of two convolutions, layers 1 and 3 are these; 0 and 2 are the ReLUs before them.
    Rule(r"adapt_stage(\d)_b\.0\.layers\.(\d)\.1\.(weight|bias)", r"paths.<\1-1>.adapt.\2.conv1.\3"),
    Rule(r"adapt_stage(\d)_b\.0\.layers\.(\d)\.3\.weight", r"paths.<\1-1>.adapt.\2.conv2.weight"),
    Rule(r"mflow_conv_g(\d)_pool\.0\.layers\.(\d)\.weight", r"paths.<\1-1>.pool.convs.\2.weight"),
    Rule(r"mflow_conv_g(\d)_b\.0\.layers\.(\d)\.1\.(weight|bias)", r"paths.<\1-1>.refine.\2.conv1.\3"),
    Rule(r"mflow_conv_g(\d)_b\.0\.layers\.(\d)\.3\.weight", r"paths.<\1-1>.refine.\2.conv2.weight"),
    *_SHARED,
    Rule(r"((?:bn1|layer\d)(?:\..*)?)\.gamma", r"backbone.\1.weight"),
    Rule(r"((?:bn1|layer\d)(?:\..*)?)\.beta", r"backbone.\1.bias"),
    Rule(r"((?:bn1|layer\d)(?:\..*)?)\.moving_mean", r"backbone.\1.running_mean"),
    Rule(r"((?:bn1|layer\d)(?:\..*)?)\.moving_variance", r"backbone.\1.running_var"),
    _BACKBONE,
)
