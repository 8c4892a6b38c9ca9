"""DeepLabV3 on ResNeSt-50, Cityscapes, as the paper's authors train it: zhanghang1989/PyTorch-Encoding."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe

EPOCH = 185  # steps: 2975 images in whole batches of 16


def resnest50_deeplabv3_cityscapes() -> Recipe:
    """DeepLabV3 on ResNeSt-50 at output stride 8, Cityscapes at 768x768, 240 epochs: batch 16 on 8 GPUs.

    veduta import resnest50-528c19ca.pth --out resnest50.safetensors
    veduta train resnest50-deeplabv3-cityscapes --data cityscapes --init resnest50.safetensors --devices 8 --out runs/cs
    One device: --set data.batch_size=16. In between set it to 16 / devices: BatchNorm sees all 16 images either way.
    bf16 (--set precision=bf16) is our advice where a GPU has it; the published run is fp32.
    Cost: 710,400 crops of 397 GMACs forward; no time was published. Expect 79.87 mIoU on val with
    --set protocol=encoding-multiscale: 256 windows an image, 32 times as many as the run validates with.
    The crop of 768 is recalled from the paper; the code that was read has other defaults.
    """
    return Recipe(
        name="resnest50-deeplabv3-cityscapes",
        model="deeplabv3_resnest50",
        data=Data(
            dataset="cityscapes",
            crop_size=(768, 768),
            batch_size=2,
            workers=8,
            augment=Augment(pipeline="encoding", scale=(0.5, 2.0)),  # of the long side, 2048
        ),
        optim=Optim(
            lr=0.01,
            weight_decay=1e-4,
            weight_decay_on="all",
            lr_multipliers={"aspp": 10, "head": 10, "aux_head": 10},
        ),
        loss=Loss(auxiliary=0.2),
        steps=240 * EPOCH,
        sync_batch_norm=True,
        protocol="encoding",
        validate_every=10 * EPOCH,
        keep=Keep(every=2 * EPOCH),
    )
