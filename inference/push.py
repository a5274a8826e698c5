"""`separator push MODEL OWNER/NAME`: a model and its card on the Hugging Face hub."""

import json
import logging
import re
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separator.config import parse
from separator.errors import SeparatorError, one_line, printable
from separator.model_sources import FILE, import_hub, model_file

log = logging.getLogger(__name__)

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class PushConfig:
    """Upload a model and its card to a repository of the Hugging Face hub.

    Log in first with `hf auth login`, or set HF_TOKEN. The card says what the file says of the
    model, and what --scores holds.

    Attributes:
        model: the model file, then OWNER/NAME of the repository; it is made if there is none.
        license: licence of the weights, such as cc-by-nc-sa-4.0; required where the file has none.
        scores: a file that `separator evaluate --json` wrote for this model.
        onnx: upload the network as ONNX too, for installations without PyTorch.
        private: make a new repository private, so that only you see it.
    """

    model: list[str] = field(metadata={"metavar": "MODEL OWNER/NAME"})
    license: str = ""
    scores: str = field(default="", metadata={"metavar": "FILE"})
    onnx: bool = False
    private: bool = False

    def __post_init__(self) -> None:
        if len(self.model) != 2 or not REPOSITORY.fullmatch(self.model[1]):
            raise SeparatorError("push: give MODEL OWNER/NAME")


def main(argv: list[str]) -> int:
    """Upload the model and its card."""
    config = parse(PushConfig, argv, "push", positional="model")
    from separator.engine.model_file import load_model
    from separator.engine.onnx_file import export_onnx

    path, repository = config.model
    file = model_file(path)
    if file.suffix != ".safetensors":
        raise SeparatorError(
            f"{path}: is not a .safetensors file; `separator export` makes one of a checkpoint"
        )
    network, _, description = load_model(file)  # a damaged or foreign file is refused here
    license = config.license or description.get("license", "")
    if not license:
        raise SeparatorError("--license: the file names none; give one, such as cc-by-nc-sa-4.0")
    parameters = sum(value.numel() for value in network.state_dict().values())
    scores = _scores(config.scores, description["digest"])
    text = card(repository, description, parameters, license, scores)
    hub = import_hub()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(file, Path(folder) / f"{FILE}.safetensors")
        if config.onnx:
            export_onnx(Path(folder) / f"{FILE}.onnx", path, license)
        (Path(folder) / "README.md").write_text(text, "utf-8")
        try:
            hub.create_repo(repository, private=config.private, exist_ok=True)
            about = hub.upload_folder(
                repo_id=repository,
                folder_path=folder,
                commit_message="Upload the model",
                delete_patterns=f"{FILE}.onnx",  # of an earlier model
            )
        except Exception as error:  # its own classes, those of its HTTP client, and the system's
            raise SeparatorError(f"{repository}: {one_line(error)}") from error
    log.info("%s: uploaded (%s)", repository, printable(str(about.commit_url)))
    return 0


def card(
    repository: str,
    description: dict[str, Any],
    parameters: int,
    license: str,
    scores: dict[str, Any],
) -> str:
    """Return the model card, as the hub reads it: YAML between two lines, then Markdown.

    Args:
        repository: OWNER/NAME.
        description: what the model's file says of it.
        parameters: number of its weights.
        license: of the weights.
        scores: the summary of `separator evaluate --json`; empty where there is none.
    """
    import yaml

    head = {
        "license": re.sub(r"\s+", "-", license.lower()),
        "library_name": "separator",
        "pipeline_tag": "audio-to-audio",
        "tags": ["music-source-separation", description["architecture"]],
    }
    trained, stft = description.get("trained", {}), description["stft"]
    use = f"separator separate song.mp3 -m hf:{repository}"
    if description["stage"] != "train":
        use = f"separator train train/vocals.yaml pretrained=hf:{repository}"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        f"# {repository.partition('/')[2]}",
        "",
        "A model of separator, which separates music into stems.",
        "",
        f"    pip install 'separator[hub]'\n    {use}",
        "",
        f"- architecture: {description['architecture']}, {parameters:,} weights",
        f"- input: {description['rate']} Hz; STFT of {stft['n_fft']} samples, hop {stft['hop']}",
        f"- stage: {description['stage']}, step {trained.get('step')}",
        f"- licence of the weights: {license}",
        f"- digest of weights and description: {description['digest']}",
    ]
    if trained.get("score") is not None:
        lines.append(f"- best validation score: {trained['score']:.2f} dB")
    for name, value in scores.items():
        lines.append(f"- {name}: {value:.2f} dB")
    settings = json.dumps(description.get("model", {}))
    return "\n".join([*lines, "", "The network's settings:", "", f"    {settings}", ""])


def _scores(path: str, digest: str) -> dict[str, float]:
    """Return the mean scores in a file of `separator evaluate --json`, by name; in dB.

    Raises:
        SeparatorError: no such file, one of another kind, or the scores of another model.
    """
    if not path:
        return {}
    try:
        report = json.loads(Path(path).read_text("utf-8"))
        data = f"{report['n_tracks']} songs of the split {report['split']!r}"
        scores = {
            f"{stem}, mean global SDR over {data}": float(row["sdr_global_mean"])
            for stem, row in report["summary"]["ours"].items()
        }
        scored = report["model"]["description"]["digest"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SeparatorError(
            f"--scores: {path}: not a file of `separator evaluate MODEL --json`"
        ) from error
    if scored != digest:
        raise SeparatorError(f"--scores: {path}: are of another model; evaluate this one")
    return scores
