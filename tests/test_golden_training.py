"""Recorded training steps of the references come out again: our losses, groups, optimizers and BatchNorm together."""

from collections.abc import Iterator

import numpy as np
import pytest
import rule
import torch
import torch.nn.functional as F
from golden_data import Golden
from torch import Tensor, nn

from veduta.config import Optim
from veduta.engine.optim import build_optimizer
from veduta.engine.step import set_training_mode
from veduta.legacy.build import import_arrays
from veduta.models.resnest import ResNeStClassifier, Variant
from veduta.tasks.losses import cross_entropy, soft_cross_entropy
from veduta.tasks.mixup import Mixup

HWIO_TO_OIHW, HWIM_TO_OIHW = (3, 2, 0, 1), (2, 3, 0, 1)


def near(found: Tensor, expected: np.ndarray, *, rtol: float, atol: float, name: str) -> None:
    """atol: a share of the largest expected value."""
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=rtol, atol=atol * largest, err_msg=name)


@pytest.fixture
def plain_convolutions() -> Iterator[None]:
    """PyTorch's own: the convolutions of oneDNN round otherwise, which decides ReLUs and maxima of a small network."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.usefixtures("plain_convolutions")
def test_two_steps_of_resnest_with_mixup_and_smoothing_are_the_authors() -> None:
    golden = Golden("train_step_radix2")
    arrays, meta = golden.arrays, golden.meta
    model = ResNeStClassifier(Variant((1, 1, 1, 1), stem_width=8), num_classes=20)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in golden.weights().items()})
    model.normalize = nn.Identity()  # type: ignore[assignment]  # the recorded input is normalised already
    mix = Mixup(meta["mixup"]["lambda"], torch.tensor(meta["mixup"]["permutation"]))
    images = mix(golden.images())
    targets = mix(F.one_hot(torch.tensor(meta["targets"]), 20).float())
    optimizer = build_optimizer(model, Optim(lr=0.05, weight_decay=1e-4, weight_decay_on="names"), fused=False)

    parameters = dict(model.named_parameters())
    names = {parameter: name for name, parameter in parameters.items()}
    spared = {names[p] for group in optimizer.param_groups if not group["weight_decay"] for p in group["params"]}
    assert spared == set(meta["no_decay"])

    set_training_mode(model, frozen_statistics=False)
    for step in (0, 1):
        logits = model(images)["class_logits"]
        loss = soft_cross_entropy(logits, targets, smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        np.testing.assert_allclose(loss.item(), arrays["loss"][step], rtol=1e-4)
        if step == 0:
            near(logits, arrays["out:logits_step0"], rtol=1e-4, atol=1e-4, name="logits")
            found = torch.stack([parameters[name].grad.norm() for name in meta["grad_norm_names"]])  # type: ignore[union-attr]
            near(found, arrays["grad0_norm"], rtol=2e-3, atol=1e-3, name="norms of the gradients")
            for key in (key for key in arrays if key.startswith("grad0:")):
                gradient = parameters[key.removeprefix("grad0:")].grad
                assert gradient is not None
                if key.endswith("fc1.bias"):  # BatchNorm follows: 0 but for rounding
                    assert gradient.abs().max() < 1e-6 and np.abs(arrays[key]).max() < 1e-6
                    continue
                near(gradient.flatten()[:600], arrays[key], rtol=2e-3, atol=1e-3, name=key)
        optimizer.step()
    state = model.state_dict()
    for key in (key for key in arrays if key.startswith("after2:")):
        value = state[key.removeprefix("after2:")]
        near(value.flatten()[:1000], arrays[key], rtol=2e-3, atol=1e-3, name=key)


class DeepLabTraining:
    """A recorded run of research/deeplab: our network, its parameters by TensorFlow's names, the steps.

    In float64, which has no rounding that could decide a ReLU: in float32 that alone moves norms of gradients by more
    than the recording leaves.
    """

    def __init__(self, recording: str) -> None:
        self.golden = Golden(recording)
        meta = self.golden.meta
        variant = meta["model"]["variant"].replace("_", "")
        imported = import_arrays(f"deeplabv3plus_{variant}", self.golden.weights(), source="tensorflow")
        self.model = imported.model.double()
        self.ours = {row.source: row.target for row in imported.rows}
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # left out of the recording
        optim = Optim(
            lr=meta["lr"],
            momentum=meta["momentum"],
            weight_decay=meta["weight_decay"],
            weight_decay_on="full-kernels",
            lr_multipliers={self.ours[name]: factor for name, factor in meta["gradient_multipliers"].items()},
        )
        self.optimizer = build_optimizer(self.model, optim, fused=False)
        crop, count = meta["model"]["crop"], meta["inputs"]["batch"]
        seeds = [int(part.split("(")[1].split(" ")[0]) for part in (meta["inputs"]["images"], meta["inputs"]["labels"])]
        pictures = np.stack([rule.image_u8(seeds[0] + k, (crop, crop, 3)) for k in range(count)])
        self.images = torch.from_numpy(pictures).permute(0, 3, 1, 2).double() / 255
        self.masks = torch.from_numpy(np.stack([rule.labels(seeds[1] + k, (crop, crop), 21) for k in range(count)]))

    def decays(self) -> dict[nn.Parameter, float]:
        return {p: group["weight_decay"] for group in self.optimizer.param_groups for p in group["params"]}

    def steps(self, *, frozen_statistics: bool) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """Per step: cross-entropy, penalty, total; gradients of the total by TensorFlow's names, before the update."""
        parameters = dict(self.model.named_parameters())
        for _ in range(self.golden.meta["steps"]):
            set_training_mode(self.model, frozen_statistics=frozen_statistics)
            loss = cross_entropy(self.model(self.images)["mask_logits"], self.masks)
            self.optimizer.zero_grad()
            loss.backward()
            decays = self.decays()
            penalty = sum(float(decay * p.detach().double().square().sum() / 2) for p, decay in decays.items())
            gradients = {}
            for name in self.golden.meta["trainable"]:
                p = parameters[self.ours[name]]
                assert p.grad is not None
                gradients[name] = p.grad + decays[p] * p.detach()
            yield np.array([loss.item(), penalty, loss.item() + penalty]), gradients
            self.optimizer.step()

    def recorded(self, kind: str) -> Iterator[tuple[str, np.ndarray]]:
        """TensorFlow's name and the recorded array, in our layout; kind is "gradient" or "after"."""
        for key, array in self.golden.arrays.items():
            if key.startswith(f"{kind}:"):
                name = key.removeprefix(f"{kind}:")
                order = HWIM_TO_OIHW if name.endswith("depthwise_weights") else HWIO_TO_OIHW
                yield name, array.transpose(order) if array.ndim == 4 else array


def test_two_steps_with_frozen_statistics_are_deeplabs() -> None:
    training = DeepLabTraining("deeplabv3plus_train_frozen_bn")
    arrays, meta = training.golden.arrays, training.golden.meta
    ends = {name.removesuffix("/kernel/Regularizer/l2_regularizer") for name in meta["regularised"]}
    decays = training.decays()
    parameters = dict(training.model.named_parameters())
    decayed = {name for name in meta["trainable"] if decays[parameters[training.ours[name]]]}
    assert decayed == {f"{end}/weights" for end in ends} and len(decayed) == 79

    for step, (losses, gradients) in enumerate(training.steps(frozen_statistics=True)):
        np.testing.assert_allclose(losses, arrays["losses"][step], rtol=5e-7)
        norms = torch.stack([gradients[name].norm() for name in meta["trainable"]])
        np.testing.assert_allclose(norms.numpy(), arrays[f"gradient_norms{step}"], rtol=(6e-4, 4e-3)[step])
        for name, expected in training.recorded("gradient") if step == 0 else ():
            near(gradients[name], expected, rtol=6e-4, atol=6e-4, name=name)
    state = training.model.state_dict()
    for name, expected in training.recorded("after"):
        near(state[training.ours[name]], expected, rtol=0, atol=5e-7, name=name)


def test_a_step_with_statistics_of_the_batch_is_deeplabs() -> None:
    training = DeepLabTraining("deeplabv3plus_train_bn")
    arrays, meta = training.golden.arrays, training.golden.meta
    for losses, gradients in training.steps(frozen_statistics=False):
        np.testing.assert_allclose(losses, arrays["losses"][0], rtol=2e-5)
        found = torch.stack([gradients[name].norm() for name in meta["trainable"]]).numpy()
        expected = arrays["gradient_norms0"]
        off = np.abs(found - expected) / expected
        assert off[expected > 1e-3 * expected.max()].max() < 0.02  # below that they are rounding
        assert np.median(off) < 3e-3
    state = training.model.state_dict()
    for name, expected in training.recorded("after"):
        statistic = name.endswith(("moving_mean", "moving_variance"))  # no gradient enters them, so they are exact
        near(state[training.ours[name]], expected, rtol=0, atol=1e-6 if statistic else 8e-4, name=name)
