"""What is to be exported, and what can be wrong with it before any work is done."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from veduta.backends.openvino_file import weights_path
from veduta.backends.probes import probes_path
from veduta.data.sample import SampleDataset
from veduta.engine.changes import check_changes
from veduta.export import TARGETS
from veduta.files import check_new_file, check_new_folder

if TYPE_CHECKING:
    from veduta.export.trace import Shape


MAX_DROP = 1.0  # points of 100


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A split of a data set, on which the network and the file are scored. calibration: another one, for int8."""

    name: str
    split: str
    samples: SampleDataset
    batch_size: int
    calibration: SampleDataset | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """target: of TARGETS. out: the file or folder. shape: of the images, (N, 3, H, W); None is open.

    full: predictions in place of the network's own outputs. changes: assignments to fields of the recipe. max_drop:
    points (of 100) by which the first score of an int8 file may be lower.
    """

    target: str
    out: Path
    full: bool = False
    int8: bool = False
    shape: "Shape" = (None, 3, None, None)
    changes: tuple[str, ...] = ()
    max_drop: float = MAX_DROP


def check_request(request: Request) -> None:
    """Raises ValueError, or an OSError where the output cannot be written."""
    target, out = TARGETS[request.target], request.out
    check_changes(request.changes)
    if any(change.partition("=")[0].strip() == "precision" for change in request.changes):
        raise ValueError("--set precision: an exported file computes in fp32, or with --int8. Leave it out.")
    for option, given in (("--full", request.full), ("--int8", request.int8)):
        if given and target.format == "torch":
            raise ValueError(
                f"{option} is for the targets that are made of ONNX. Leave it out, or choose another --to."
            )
        if given and request.target == "ascend":
            raise ValueError(
                f"{option} is nothing that ATC takes: it compiles a network in float for its chip. Leave it out."
            )
    if not target.ending:
        check_new_folder(out)
        return
    if out.suffix != target.ending:
        name = (out.stem or "model") + target.ending
        raise ValueError(f"--out {out}: --to {request.target} writes a {target.ending}. Call it {out.with_name(name)}.")
    for path in reversed(files_of(request)):
        if path != probes_path(out):  # of another target they may be there, and the same
            check_new_file(path)


def files_of(request: Request) -> list[Path]:
    """The files that are written, in the order in which they get their names: the one that is opened comes last."""
    out = request.out
    weights = [weights_path(out)] if TARGETS[request.target].format == "openvino" else []
    return [probes_path(out), *weights, out]
