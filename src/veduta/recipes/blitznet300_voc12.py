"""BlitzNet300 on PASCAL VOC 2012 with SBD's masks: the Ascend port's run of dvornikita/blitznet."""

from veduta.config import Augment, Data, Keep, Optim, Recipe


def blitznet300_voc12() -> Recipe:
    """BlitzNet300 at stride 4, boxes and masks of VOC 2012 train_aug (10,582), Adam, 40,000 steps of 32.

    veduta train blitznet300-voc12 --data VOCdevkit/VOC2012 --init trunk.safetensors --out runs/blitznet300
    trunk.safetensors: He's ResNet-50, see docs/systems/blitznet.md; from scratch it will not reach the number.
    One device. On more: data.batch_size = 32 / devices and sync_batch_norm=true; the hardest negatives are chosen from
    the batches of all devices. Do not accumulate: each part would choose among its own.
    Cost: 0.35 s a step on the GPU of the port, 4 hours. Expect 80.0 mAP and 72.8 mIoU on val (1449), fp32; the port
    reports 78.3 and 72.0 for fp16 on a GPU, 77.6 and 70.1 for an Ascend 910.
    """
    return Recipe(
        name="blitznet300-voc12",
        model="blitznet300",
        task="detect_segment",
        data=Data(
            dataset="voc",
            train_split="train_aug",
            crop_size=(300, 300),
            batch_size=32,
            workers=8,
            augment=Augment(pipeline="blitznet"),
        ),
        optim=Optim(
            name="adam",
            lr=1e-4,
            schedule="milestones",
            milestones=(25_000, 35_000),
            warmup="constant",  # of the very first step, and no other
            warmup_steps=1,
            warmup_lr=1e-5,
            weight_decay=5e-5,
        ),
        steps=40_000,
        protocol="blitznet-voc12",
        validate_every=5000,
        keep=Keep(every=1000),
    )
