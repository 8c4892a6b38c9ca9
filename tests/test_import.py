"""Promises of the import: every tensor is explained, nothing is guessed, and the network comes back to life."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rule
import torch
from checkpoint_writers import write_frozen_graph, write_mindspore, write_tf_bundle
from command import expect_mistake, veduta
from golden_data import FOLDER, Golden
from PIL import Image
from safetensors.numpy import save_file

from veduta.checkpoint import load_model
from veduta.data.label_maps import CITYSCAPES, COCO, VOC
from veduta.legacy import CheckpointError, from_arrays, read_checkpoint
from veduta.legacy.importer import choose, import_checkpoint
from veduta.legacy.mapping import Rule, convert, explain, grouped
from veduta.legacy.sources import IMPORTS
from veduta.models import MODELS, build_skeleton

Arrays = dict[str, np.ndarray]


def zeros_of(name: str, **options: Any) -> Arrays:
    """A state dict under our names, which are also the authors', timm's and torchvision's for classifiers."""
    state = build_skeleton(name, options.pop("num_classes", 10), **options).state_dict()
    dtypes = {torch.float32: np.float32, torch.int64: np.int64}
    return {key: np.zeros(tuple(value.shape), dtypes[value.dtype]) for key, value in state.items()}


@pytest.fixture(scope="module")
def mobile() -> Arrays:
    """The smallest of the published TensorFlow networks, filled by rule."""
    return Golden("deeplabv3_mobilenetv2_os16_129").weights()


@pytest.fixture(scope="module")
def mobile_bundle(mobile: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("mobile") / "model.ckpt-30000"
    slots = {f"{name}/Momentum": np.zeros_like(value) for name, value in mobile.items() if "moving" not in name}
    write_tf_bundle(prefix, {**mobile, **slots, "global_step": np.array(30_000, np.int64)}, num_shards=2)
    return prefix


# Rules


def test_numbers_in_names_count_from_0_after_a_rule() -> None:
    rules = [Rule(r"unit_(\d+)/(\w)", r"layer.<\1-1>.x<\1+1>.\2")]
    rows, targets = explain(["unit_10/w", "unit_2/w"], rules)
    assert [(row.source, row.target) for row in rows] == [("unit_2/w", "layer.1.x3.w"), ("unit_10/w", "layer.9.x11.w")]
    assert list(targets) == ["layer.1.x3.w", "layer.9.x11.w"]


def test_groups_are_joined_in_the_order_of_their_numbers() -> None:
    arrays = {f"c.convs.{i}.weight": np.full((1, 2), i) for i in (10, 2, 0)}
    _, targets = explain(arrays, [Rule(r"c\.convs\.\d+\.weight", "c.weight", grouped)])
    assert convert(arrays, targets)["c.weight"][:, 0].tolist() == [0, 2, 10]


def test_two_tensors_do_not_silently_become_one() -> None:
    with pytest.raises(CheckpointError, match="a/w and b/w would both become w"):
        explain(["a/w", "b/w"], [Rule(r"./w", "w")])


@pytest.mark.parametrize("source", IMPORTS)
def test_every_source_names_models_that_exist_with_options_they_have(source: str) -> None:
    for family in IMPORTS[source]:
        for name, options in family.candidates:
            state = build_skeleton(name, 3, **{**family.options, **options}).state_dict()
            assert state[family.head].shape[0] == 3


def test_every_name_of_a_whole_deeplab_checkpoint_maps() -> None:
    arrays = read_checkpoint(FOLDER / "tf_names.ckpt")
    rules = IMPORTS["tensorflow"][0].rules
    rows, targets = explain(arrays, rules)
    assert {row.source for row in rows} == set(arrays)
    state = build_skeleton("deeplabv3plus_xception65", 21).state_dict()
    assert set(targets) == {name for name in state if not name.endswith("num_batches_tracked")}
    assert sum(not row.target for row in rows) == len(arrays) - 732


# Arrays


def test_a_model_comes_back_in_eval_mode_with_the_values_of_the_arrays(mobile: Arrays) -> None:
    model = from_arrays("deeplabv3_mobilenet_v2", mobile, source="tensorflow")
    assert not model.training
    kernel = mobile["MobilenetV2/expanded_conv/depthwise/depthwise_weights"]
    ours = model.state_dict()["backbone.features.1.conv.0.0.weight"]
    assert ours[5, 0, 2, 1] == kernel[2, 1, 5, 0]


def test_the_number_of_classes_is_read_off_the_head_or_given() -> None:
    arrays = zeros_of("resnet18", num_classes=7)
    assert from_arrays("resnet18", arrays, source="torchvision").get_parameter("fc.bias").numel() == 7
    with pytest.raises(CheckpointError, match=r"fc\.weight: \[7, 512\], expected \[8, 512\]"):
        from_arrays("resnet18", arrays, source="torchvision", num_classes=8)


def test_an_unexplained_tensor_is_refused_by_name(mobile: Arrays) -> None:
    with pytest.raises(
        CheckpointError, match="no part of deeplabv3_mobilenet_v2, as 'tensorflow' names them, is aspp9/weights"
    ):
        from_arrays("deeplabv3_mobilenet_v2", {**mobile, "aspp9/weights": np.zeros(1)}, source="tensorflow")


def test_a_missing_tensor_is_refused_by_name(mobile: Arrays) -> None:
    less = {name: value for name, value in mobile.items() if name != "aspp0/BatchNorm/beta"}
    with pytest.raises(
        CheckpointError, match=r"no tensor for 1 of .* parts of deeplabv3_mobilenet_v2: aspp\.branches\.0\.1\.bias"
    ):
        from_arrays("deeplabv3_mobilenet_v2", less, source="tensorflow")


def test_a_wrong_shape_is_refused_by_name(mobile: Arrays) -> None:
    wrong = {**mobile, "aspp0/BatchNorm/beta": np.zeros(255, np.float32)}
    with pytest.raises(CheckpointError, match=r"aspp0/BatchNorm/beta: \[255\], expected \[256\]"):
        from_arrays("deeplabv3_mobilenet_v2", wrong, source="tensorflow")


def test_a_kernel_of_another_rank_is_refused_by_name(mobile: Arrays) -> None:
    wrong = {**mobile, "aspp0/weights": np.zeros(255, np.float32)}
    with pytest.raises(CheckpointError, match=r"aspp0/weights: shape \[255\] cannot be transposed"):
        from_arrays("deeplabv3_mobilenet_v2", wrong, source="tensorflow")


def test_a_checkpoint_of_another_model_says_which_one_it_looks_like(mobile: Arrays) -> None:
    with pytest.raises(CheckpointError, match="looks like deeplabv3_mobilenet_v2 from 'tensorflow' with 21 classes"):
        from_arrays("deeplabv3plus_xception65", mobile, source="tensorflow")
    with pytest.raises(CheckpointError, match="looks like resnet34 from 'torchvision' with 10 classes"):
        from_arrays("resnet18", zeros_of("resnet34"), source="torchvision")


def test_unknown_sources_and_models_list_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no source 'tensorflaw'\. Did you mean tensorflow"):
        from_arrays("resnet18", {}, source="tensorflaw")
    with pytest.raises(ValueError, match=r"no model 'resnet19'\. Did you mean resnet18"):
        from_arrays("resnet19", {}, source="torchvision")
    with pytest.raises(
        ValueError, match="Source 'tensorflow' never published model 'resnest50'. These did: zhanghang, timm"
    ):
        from_arrays("resnest50", {}, source="tensorflow")
    with pytest.raises(ValueError, match="No source did: it is ours"):
        from_arrays("deeplabv3plus_tiny", {}, source="tensorflow")


@pytest.mark.parametrize(
    "options", [{}, {"stride4": False}, {"shared_head": True}, {"stride4": False, "shared_head": True}]
)
def test_the_form_of_a_blitznet_is_seen_from_its_tensors(options: dict[str, bool]) -> None:
    arrays = blitznet_names(300, **options)
    model = from_arrays("blitznet300", arrays, source="tensorflow")
    expected = zeros_of("blitznet300", num_classes=21, **options)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }


def blitznet_names(size: int, *, stride4: bool = True, shared_head: bool = False) -> Arrays:
    """The recorded names of a BlitzNet, as zeros."""
    recording = Golden(f"blitznet{size}_resnet50_{'x4' if stride4 else 'nox4'}")
    arrays = {name: np.zeros(shape, np.float32) for name, shape in recording.meta["parameters"]}
    if not shared_head:
        return arrays
    level = "/ssd/pool6"
    kept = {name.replace(level, ""): value for name, value in arrays.items() if level in name}
    heads = ("ssd/location/", "ssd/confidence/")
    return {**{name: value for name, value in arrays.items() if not name.startswith(heads)}, **kept}


def test_the_mindspore_port_of_resnest_gets_zeros_for_the_biases_it_does_not_have() -> None:
    model = from_arrays("resnest50", Golden("ms_resnest50").weights(), source="mindspore")
    biases = [value for name, value in model.state_dict().items() if "conv2.fc" in name and name.endswith("bias")]
    assert sum(len(bias) for bias in biases) == 9_440 and not any(bias.any() for bias in biases)


def test_a_data_parallel_prefix_is_no_part_of_a_name() -> None:
    arrays = {f"module.{name}": value for name, value in zeros_of("resnet18").items()}
    assert from_arrays("resnet18", arrays, source="torchvision").get_parameter("fc.bias").numel() == 10


# Moving averages


def test_averages_or_raw_weights_is_a_choice_that_nobody_makes_for_the_user() -> None:
    arrays: dict[str, Any] = {"w": np.zeros(1), "w/ExponentialMovingAverage": np.ones(1), "v": np.full(1, 2)}
    with pytest.raises(CheckpointError, match="Say which: --weights ema"):
        choose(arrays, None)
    raw, replaced = choose(arrays, "raw")
    assert raw is arrays and not replaced
    averages, replaced = choose(arrays, "ema")
    assert {name: float(value[0]) for name, value in averages.items()} == {"w": 1, "v": 2}
    assert replaced == {"w": "w/ExponentialMovingAverage"}


def test_averages_that_are_not_there_cannot_be_chosen() -> None:
    with pytest.raises(CheckpointError, match="it holds no moving averages"):
        choose({"w": np.zeros(1)}, "ema")


# Files


def test_a_bundle_becomes_a_model_file_that_says_where_it_comes_from(mobile_bundle: Path, tmp_path: Path) -> None:
    report = import_checkpoint(mobile_bundle, tmp_path / "mobile.safetensors")
    _, info = load_model(tmp_path / "mobile.safetensors")
    assert info == report.info and info.origin is not None
    assert info.recipe.model == "deeplabv3_mobilenet_v2" and info.labels == VOC and info.step == 30_000
    assert info.recipe.protocol == "deeplab" and info.recipe.data.crop_size == (513, 513)
    assert info.origin.source == "tensorflow" and len(info.origin.sha256) == 64
    assert [name.split("-")[-1] for name in info.origin.files] == ["30000.index", "00002", "00002"]
    assert "(0.5, 0.5, 0.5)" in info.origin.preprocessing
    sources = [row.source for row in report.rows if row.source]
    assert sorted(sources) == sorted(read_checkpoint(mobile_bundle))
    assert "global_step" in report.table() and "transposed, HWIM to OIHW" in report.table()
    assert "272 tensors mapped, 165 dropped on purpose, none left over" in report.headline()


def test_a_frozen_graph_gives_the_same_weights_as_the_bundle(
    mobile: Arrays, mobile_bundle: Path, tmp_path: Path
) -> None:
    write_frozen_graph(tmp_path / "graph.anything", mobile)
    first = import_checkpoint(tmp_path / "graph.anything", tmp_path / "graph.safetensors")
    second = import_checkpoint(mobile_bundle, tmp_path / "bundle.safetensors")
    assert first.info.weights_sha256 == second.info.weights_sha256


def test_moving_averages_are_imported_under_the_names_of_the_weights(mobile: Arrays, tmp_path: Path) -> None:
    averages = {f"{name}/ExponentialMovingAverage": value + 1 for name, value in mobile.items()}
    write_tf_bundle(tmp_path / "ckpt", {**mobile, **averages})
    with pytest.raises(CheckpointError, match="--weights ema"):
        import_checkpoint(tmp_path / "ckpt", tmp_path / "a.safetensors")
    report = import_checkpoint(tmp_path / "ckpt", tmp_path / "ema.safetensors", weights="ema")
    weights, _ = load_model(tmp_path / "ema.safetensors")
    assert weights["head.bias"].numpy() == pytest.approx(mobile["logits/semantic/biases"] + 1)
    assert sum(row.what.startswith("dropped: raw weights") for row in report.rows) == len(mobile)
    assert any(row.source.endswith("/ExponentialMovingAverage") and row.target for row in report.rows)


def test_mindspore_and_pytorch_files_are_recognised_whatever_they_are_called(tmp_path: Path) -> None:
    golden = Golden("ms_resnest50").weights()
    slots = {f"moments.{name}": value for name, value in list(golden.items())[:3]}
    write_mindspore(tmp_path / "a.pth", {**golden, **slots, "learning_rate": np.array(0.1, np.float32)})
    report = import_checkpoint(tmp_path / "a.pth", tmp_path / "ms.safetensors")
    assert report.info.recipe.model == "resnest50" and report.info.recipe.task == "classify"
    assert report.info.labels.num_classes == 1000 and report.info.labels.of == "images"
    assert report.info.recipe.protocol == "resnest-mindspore" and report.info.recipe.data.crop_size == (224, 224)
    assert "zeros: the source has no such tensor" in report.table()
    state = {name: torch.from_numpy(value) for name, value in zeros_of("resnet18").items()}
    torch.save(
        {"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"x": torch.zeros(2)}}}}, tmp_path / "b.ckpt"
    )
    report = import_checkpoint(tmp_path / "b.ckpt", tmp_path / "pt.safetensors")
    assert report.info.recipe.model == "resnet18" and report.info.labels.num_classes == 10
    assert report.info.recipe.protocol == "timm" and report.info.recipe.data.crop_size == (224, 224)
    assert any(row.what == "dropped: state of the optimizer" for row in report.rows)
    save_file(zeros_of("resnet34"), tmp_path / "c")
    assert import_checkpoint(tmp_path / "c", tmp_path / "st.safetensors").info.recipe.model == "resnet34"


def test_the_step_is_read_whatever_its_shape(mobile: Arrays, tmp_path: Path) -> None:
    for number, step in enumerate((np.array([7]), np.array(7), np.array(7.5, np.float32), np.array([1, 2]))):
        write_tf_bundle(tmp_path / f"ckpt{number}", {**mobile, "global_step": step})
        report = import_checkpoint(tmp_path / f"ckpt{number}", tmp_path / f"{number}.safetensors")
        assert report.info.step == (7 if number < 2 else 0)


def test_timms_moving_averages_are_a_choice_too(tmp_path: Path) -> None:
    raw = {name: torch.from_numpy(value) for name, value in zeros_of("resnest14").items()}
    averages = {name: value + 1 for name, value in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": averages}, tmp_path / "timm.pth")
    report = import_checkpoint(tmp_path / "timm.pth", tmp_path / "ema.safetensors", weights="ema")
    weights, info = load_model(tmp_path / "ema.safetensors")
    assert weights["fc.bias"].eq(1).all() and sum(row.what.startswith("dropped: raw") for row in report.rows) == len(
        raw
    )
    assert info.origin is not None and info.origin.source == "zhanghang or timm"


def test_a_label_map_of_ones_own_must_have_as_many_classes(mobile_bundle: Path, tmp_path: Path) -> None:
    rows = "".join(f"{i},thing {i},{i},0,0\n" for i in range(21))
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n" + rows)
    report = import_checkpoint(mobile_bundle, tmp_path / "a.safetensors", labels=tmp_path / "classes.csv")
    assert report.info.labels.names[20] == "thing 20" and "assumed" not in report.headline()
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n0,a,0,0,0\n")
    with pytest.raises(ValueError, match="1 classes .*, the checkpoint has 21"):
        import_checkpoint(mobile_bundle, tmp_path / "b.safetensors", labels=tmp_path / "classes.csv")
    assert not (tmp_path / "b.safetensors").exists()


def test_quantised_weights_are_refused() -> None:
    arrays = {name: value.astype(np.int8) for name, value in zeros_of("resnet18").items()}
    with pytest.raises(CheckpointError, match=r"weights must be floating-point numbers, found bn1\.bias: int8"):
        from_arrays("resnet18", arrays, source="torchvision")


def test_weights_of_half_precision_are_taken_as_they_are() -> None:
    arrays = {name: value.astype(np.float16) for name, value in zeros_of("resnet18").items() if value.ndim}
    assert from_arrays("resnet18", arrays, source="torchvision").get_parameter("fc.weight").dtype == torch.float32


def test_a_head_that_claims_more_classes_than_it_holds_costs_no_memory() -> None:
    arrays = {**zeros_of("resnet18"), "fc.weight": np.zeros((60_000_000, 0), np.float32)}
    with pytest.raises(CheckpointError, match=r"fc\.weight: \[60000000, 0\], expected \[60000000, 512\]"):
        from_arrays("resnet18", arrays, source="torchvision")


def test_names_with_digits_of_other_scripts_are_only_unexplained() -> None:
    with pytest.raises(CheckpointError, match="no part of resnet18.* x²"):
        from_arrays(
            "resnet18", {**zeros_of("resnet18"), "x²": np.zeros(1), "9" * 5000: np.zeros(1)}, source="torchvision"
        )


def test_values_that_are_no_numbers_are_refused_by_name(mobile: Arrays, tmp_path: Path) -> None:
    weights = {**mobile, "logits/semantic/biases": np.full(21, np.nan, np.float32)}
    write_tf_bundle(tmp_path / "ckpt", weights)
    with pytest.raises(CheckpointError, match="no finite numbers in logits/semantic/biases"):
        import_checkpoint(tmp_path / "ckpt", tmp_path / "a.safetensors")


def test_a_label_map_of_the_other_kind_is_refused(mobile_bundle: Path, tmp_path: Path) -> None:
    classes = [{"file_id": 300 + i, "name": f"c{i}", "color": [0, 0, 0]} for i in range(21)]
    (tmp_path / "labels.json").write_text(json.dumps({"classes": classes, "of": "images"}))
    with pytest.raises(ValueError, match="names classes of images, here pixels are classified"):
        import_checkpoint(mobile_bundle, tmp_path / "a.safetensors", labels=tmp_path / "labels.json")


def test_classes_are_in_the_order_of_their_index(mobile_bundle: Path, tmp_path: Path) -> None:
    rows = "".join(f"{i},thing {i},{i},0,0\n" for i in reversed(range(21)))
    (tmp_path / "classes.csv").write_text("index,name,r,g,b\n" + rows)
    report = import_checkpoint(mobile_bundle, tmp_path / "a.safetensors", labels=tmp_path / "classes.csv")
    assert report.info.labels.names[:2] == ("thing 0", "thing 1")


def test_an_imported_file_can_be_read_by_whom_the_umask_allows(mobile_bundle: Path, tmp_path: Path) -> None:
    import_checkpoint(mobile_bundle, tmp_path / "a.safetensors")
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_other_precisions_are_said_in_the_table(tmp_path: Path) -> None:
    arrays = {name: value.astype(np.float16) for name, value in zeros_of("resnet18").items() if value.ndim}
    save_file(arrays, tmp_path / "half")
    report = import_checkpoint(tmp_path / "half", tmp_path / "a.safetensors")
    assert "copied; float16 to float32" in report.table()


def test_tensors_of_pytorch_and_lists_are_taken_as_arrays_are() -> None:
    mixed: Any = {name: torch.from_numpy(value) for name, value in zeros_of("resnet18").items()}
    mixed["fc.bias"] = [1.0] * 10
    assert from_arrays("resnet18", mixed, source="torchvision").get_parameter("fc.bias")[0] == 1


def test_label_maps_have_the_published_orders_and_colours() -> None:
    with np.load(FOLDER / "tf_ops.npz") as arrays:
        np.testing.assert_array_equal(VOC.palette[:21], arrays["colormap_pascal"][:21])
        np.testing.assert_array_equal(CITYSCAPES.palette[:19], arrays["colormap_cityscapes"][:19])
    table = Golden("metrics_cityscapes").meta["label_table"]
    ours = [[c.file_id, c.name, list(c.color)] for c in CITYSCAPES.classes]
    assert ours == [[row[0], row[2], row[6]] for row in sorted(table, key=lambda row: row[1]) if 0 <= row[1] < 19]
    assert (VOC.num_classes, COCO.num_classes) == (21, 81) and COCO.names[21:] == tuple(sorted(COCO.names[21:]))


# Command line


def test_import_prints_every_tensor_and_predict_runs_the_result(mobile_bundle: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "mobile.safetensors", tmp_path / "table.json"
    result = veduta("import", mobile_bundle.parent, "--out", out, "--json", table, guard=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "MobilenetV2/Conv/weights" in result.stdout and "none left over" in result.stdout
    assert len(json.loads(table.read_text())["tensors"]) == 272 + 165
    Image.fromarray(rule.image_u8(18, (129, 129, 3))).save(tmp_path / "golden.png")
    whole = ("--set", "protocol=whole")  # the recording has no padding
    result = veduta("predict", out, tmp_path / "golden.png", "--out", tmp_path / "predicted", *whole, guard=tmp_path)
    assert result.returncode == 0, result.stderr
    mask = np.array(Image.open(tmp_path / "predicted/masks/golden.png"))
    assert (mask != Golden("deeplabv3_mobilenetv2_os16_129").arrays["out:prediction"]).sum() <= 1


def test_mistakes_of_import_are_told_without_a_traceback(mobile_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    expect_mistake(veduta("import", tmp_path / "nope", "--out", out), "nope not found")
    expect_mistake(veduta("import", mobile_bundle, "--out", out, "--weights", "best"), "choose ema or raw")
    expect_mistake(veduta("import", mobile_bundle, "--out", out, "--set", "output_stride=7"), "output_stride is 7")
    out.write_text("mine")
    expect_mistake(veduta("import", mobile_bundle, "--out", out), "exists; nothing is overwritten")
    other = tmp_path / "other.safetensors"
    expect_mistake(veduta("import", mobile_bundle, "--out", other, "--json", out), "exists; nothing is overwritten")
    expect_mistake(veduta("import", mobile_bundle, "--out", other, "--json", other), "the same file as --out")
    assert out.read_text() == "mine" and not other.exists()
    expect_mistake(veduta("predict", f"{mobile_bundle}.index", out, "--out", tmp_path / "p"), "veduta import")


def test_a_full_disk_is_told_and_leaves_nothing(mobile_bundle: Path, tmp_path: Path) -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)); "
    limit += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from veduta.cli import app; app()"
    command = [sys.executable, "-c", limit, "import", str(mobile_bundle), "--out", str(tmp_path / "a.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "a.safetensors could not be written" in result.stderr and "Is the disk full?" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": "x.pth"}, "ends in .safetensors"),
        ({"model": "resnest50"}, "is a TensorFlow bundle, as tensorflow write; resnest50 comes from zhanghang, timm"),
        ({"model": "resnset50"}, "no model 'resnset50'. Did you mean .*resnest50"),
        ({"model": "blitznet300"}, "looks like deeplabv3_mobilenet_v2"),
        ({"options": {"outputstride": 8}}, "no option 'outputstride'.* Did you mean output_stride"),
        ({"options": {"num_classes": "many"}}, "option 'num_classes'.*got 'many'"),
        ({"weights": "ema"}, "no moving averages"),
        ({"path": FOLDER / "mindspore_tiny.ckpt"}, "no network that Veduta imports has tensors such as"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_nothing_is_written(
    mobile_bundle: Path, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    given = {"path": mobile_bundle, **arguments, "out": tmp_path / arguments.get("out", "x.safetensors")}
    with pytest.raises(ValueError, match=message):
        import_checkpoint(**given)
    assert not list(tmp_path.iterdir())


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"state_dict": Evil()}, tmp_path / "weights.pth")
    expect_mistake(
        veduta("import", tmp_path / "weights.pth", "--out", tmp_path / "a.safetensors"), "holds the code object"
    )
    assert not (tmp_path / "owned").exists() and not (tmp_path / "a.safetensors").exists()


# Full size


def import_measured(checkpoint: Path, out: Path) -> None:
    """Import by the command line in under 20 s and 2 GB. Processor time, so that a busy machine does not count."""
    measured = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-m", "veduta.cli", "import", str(checkpoint), "--out", str(out)]
    result = subprocess.run([sys.executable, "-c", measured, *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kilobytes, seconds = map(float, result.stderr.splitlines()[-1].split())
    assert kilobytes < 2e6 and seconds < 20


def with_slots(weights: Arrays, *slots: str) -> Arrays:
    """The variables of a training run: weights, slots of the optimizer, the step."""
    trained = [name for name in weights if "moving_" not in name]
    state = {f"{name}/{slot}": np.zeros_like(weights[name]) for slot in slots for name in trained}
    return {**weights, **state, "global_step": np.array(40_000, np.int64)}


def test_a_deeplab_of_full_size_comes_back_and_predicts_what_was_recorded(tmp_path: Path) -> None:
    golden = Golden("deeplabv3plus_xception65_os16_513")
    write_tf_bundle(tmp_path / "model.ckpt-40000", with_slots(golden.weights(), "Momentum"))
    import_measured(tmp_path / "model.ckpt-40000", tmp_path / "deeplab.safetensors")
    Image.fromarray(rule.image_u8(12, (513, 513, 3))).save(tmp_path / "golden.png")
    result = veduta("predict", tmp_path / "deeplab.safetensors", tmp_path / "golden.png", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    mask = np.array(Image.open(tmp_path / "out/masks/golden.png"))
    # The recording counts the pixels whose two best classes lie that close.
    assert (mask != golden.arrays["out:prediction"]).sum() <= 9


def test_a_blitznet_of_full_size_comes_back_and_predicts_what_was_recorded(tmp_path: Path) -> None:
    golden = Golden("blitznet300_resnet50_x4")
    state = with_slots(golden.weights(), "Adam", "Adam_1")
    write_tf_bundle(tmp_path / "model.ckpt-40000", state, num_shards=3)
    import_measured(tmp_path / "model.ckpt-40000", tmp_path / "blitznet.safetensors")
    Image.fromarray(rule.image_u8(21, (300, 300, 3))).save(tmp_path / "golden.png")
    result = veduta("predict", tmp_path / "blitznet.safetensors", tmp_path / "golden.png", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    # At every fourth pixel of the picture the logits are those of the grid of 75 x 75, which were recorded.
    mask = np.array(Image.open(tmp_path / "out/masks/golden.png"))[::8, ::12]
    recorded = golden.arrays["out:segmentation"][0]
    ordered = np.sort(recorded, axis=-1)
    sure = ordered[..., -1] - ordered[..., -2] > 1e-5 * golden.arrays["stat:segmentation"][2]
    np.testing.assert_array_equal(mask[sure], recorded.argmax(-1)[sure])
    boxes = json.loads((tmp_path / "out/predictions.json").read_text())["images"][0]["boxes"]
    assert boxes
    # Suppression never takes the best box of all away.
    best = float(torch.from_numpy(golden.arrays["out:confidence"][0]).softmax(1)[:, 1:].max())
    assert boxes[0]["score"] >= best - 1e-4


def test_every_published_network_of_the_five_systems_can_be_imported() -> None:
    candidates = {name for families in IMPORTS.values() for family in families for name, _ in family.candidates}
    published = ("resnest", "deeplabv3_", "deeplabv3plus_xception", "refinenet_resnet", "blitznet300", "blitznet512")
    assert candidates >= {name for name in MODELS if name.startswith(published)} - {
        "resnest_tiny",
        "blitznet300_timm",
    }
