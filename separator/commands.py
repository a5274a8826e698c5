"""The commands of `separator`: where each is, what it does, and how it is used."""

import inspect
import textwrap
from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    Attributes:
        module: has `main(argv)`, which returns the exit status.
        task: the heading under which `separator --help` lists it.
        summary: one line for `separator --help`.
        examples: command lines, each with what it does below it, for the end of the command's own
            help.
    """

    module: str
    task: str
    summary: str
    examples: str


SEPARATE = "Separate songs"
TRAIN = "Train a model"
SHARE = "Score and share a model"
MACHINE = "Try and set up"

LOG_OPTIONS = {
    "--quiet": "errors only: no messages, no progress",
    "--verbose": "details, and where an error came from, like SEPARATOR_DEBUG=1",
    "--log-json": "messages as JSON objects, one a line, like SEPARATOR_LOG=json",
}
STATUSES = {
    "0": "all of the work was done",
    "1": "some or all of it failed, such as a missing or damaged file",
    "2": "wrong usage, such as an unknown key, model or stem; nothing was started",
    "3": "a training reached its time limit (max_minutes) and saved its state",
    "130, 143, 129": "stopped by SIGINT (Ctrl-C), SIGTERM or SIGHUP; finished work is saved",
    "141": "the program that reads the output, such as `head`, has ended",
}

COMMANDS = {  # in the order of `separator --help`
    "separate": Command(
        "separator.inference.separate",
        SEPARATE,
        "write the instrumental of songs",
        """
        separator separate song.mp3
            write the instrumental into stems/
        separator separate ~/Music/album -o ~/Instrumentals --stems --format mp3
            a folder, with the vocals
        separator separate song.flac -m runs/four/model.safetensors --stems vocals drums
            two stems of a model that has four
        separator separate song.flac --bits 16
            16 bits a sample, dithered
        separator separate song.mp3 --mix vocals=-12
            the song with quieter vocals
        separator separate clip.mp4 --video
            the picture with the instrumental
        separator separate ~/Music -o ~/Instrumentals --keep
            continue, and keep what an earlier model made
        separator separate ~/Music -o ~/Instrumentals --report report.json --name \\
          '{artist}/{album}/{title} ({stem}).{format}'
            a library, with names from tags and a report
        """,
    ),
    "serve": Command(
        "separator.inference.serve.command",
        SEPARATE,
        "show a page on which songs are separated and played",
        """
        separator serve --open
            open the page in the browser
        separator serve --port 0 --max-minutes 60
            on a free port, for longer songs
        """,
    ),
    "models": Command(
        "separator.inference.models",
        SEPARATE,
        "list the models that come with the package",
        """
        separator models
            list them
        separator models tiny-vocals
            show the card of one
        """,
    ),
    "pull": Command(
        "separator.inference.pull",
        SEPARATE,
        "fetch a model from the Hugging Face hub or a web address",
        """
        separator pull hf:me/vocals -o vocals.safetensors
            fetch it, check it, write it
        """,
    ),
    "scan": Command(
        "separator.cli.scan_command",
        TRAIN,
        "find the usable songs of a music library; report broken files",
        """
        separator scan ~/Music /mnt/more
            index two folders
        separator scan ~/Music --report scan.json
            and list what cannot be used
        separator scan ~/MUSDB18
            show which file counts as which stem
        separator scan ~/Music --pairs ~/Pairs
            write songs that exist with and without vocals as training pairs
        """,
    ),
    "pretrain": Command(
        "separator.cli.pretrain",
        TRAIN,
        "pretrain on songs without stems",
        """
        separator pretrain pretrain/recipe.yaml tiny.yaml 'data.roots=[~/Music]'
            pretrain a small model on a library
        separator pretrain pretrain/recipe.yaml base.yaml \\
          'data.roots=[~/Music,"/mnt/disk #2"]' run=runs/base steps=200000
            a larger one; put names with ' #' or ': ' in double quotes
        separator pretrain pretrain/teacher.yaml tiny.yaml 'data.roots=[~/Music]' \\
          'teacher.models=[runs/vocals/model.safetensors]'
            learn from the stems that a trained model estimates
        """,
    ),
    "train": Command(
        "separator.cli.train",
        TRAIN,
        "train or fine-tune on stems",
        """
        separator train train/vocals.yaml tiny.yaml 'data.roots=[~/MUSDB18]'
            train from scratch
        separator train train/vocals.yaml tiny.yaml 'data.roots=[~/MUSDB18]' \\
          pretrained=runs/pretrain/model.safetensors run=runs/vocals
            fine-tune a pretrained model
        """,
    ),
    "monitor": Command(
        "separator.cli.monitor",
        TRAIN,
        "show the curves, pictures and sounds of runs on a page, and compare them",
        """
        separator monitor runs/vocals --open
            open the page of a run in the browser
        separator monitor runs
            all runs in a folder, side by side
        """,
    ),
    "compare": Command(
        "separator.cli.compare.comparison",
        TRAIN,
        "pretrain, fine-tune and score several arms side by side",
        """
        separator compare compare/masks.yaml 'library=[~/Music]' 'stems=[~/MUSDB18]'
            compare masking strategies; after a stop, the same command continues
        """,
    ),
    "evaluate": Command(
        "separator.inference.evaluate_command",
        SHARE,
        "score models, or stems of other programs, on songs with known stems",
        """
        separator evaluate runs/vocals/model.safetensors --data ~/MUSDB18
            print the scores of every song
        separator evaluate runs/a/model.safetensors runs/b/model.safetensors --data \\
          ~/MUSDB18 --json scores.json
            compare two models in one table
        separator evaluate runs/vocals/model.safetensors --data ~/MUSDB18 --estimates \\
          separated/htdemucs --estimates spleeter
            compare a model with stems that other programs wrote
        separator evaluate --data ~/MUSDB18 --split test --estimates separated/htdemucs
            score such stems alone
        """,
    ),
    "export": Command(
        "separator.inference.export",
        SHARE,
        "write a model file of half the size for sharing, or ONNX",
        """
        separator export runs/vocals/model.safetensors -o vocals.safetensors --license cc-by-4.0
            store the weights as 16-bit floats
        separator export tiny-vocals -o vocals.onnx
            write the network as ONNX
        """,
    ),
    "push": Command(
        "separator.inference.push",
        SHARE,
        "upload a model and its card to the Hugging Face hub",
        """
        separator push runs/vocals/model.safetensors me/vocals --license cc-by-4.0
            upload the model; others use it with -m hf:me/vocals
        """,
    ),
    "doctor": Command(
        "separator.cli.doctor",
        MACHINE,
        "check this machine, and say how to install what is missing",
        """
        separator doctor
            print the report, which can be pasted into a bug report
        """,
    ),
    "completion": Command(
        "separator.cli.completion",
        MACHINE,
        "print a script with which a shell completes commands, options and files",
        """
        separator completion bash > ~/.separator.bash
            for bash; then add '. ~/.separator.bash' to ~/.bashrc
        separator completion zsh > ~/_separator
            for zsh; then add 'fpath=(~ $fpath); autoload -Uz compinit; compinit' to ~/.zshrc
        separator completion fish > ~/.separator.fish
            for fish; then add 'source ~/.separator.fish' to ~/.config/fish/config.fish
        """,
    ),
    "demo": Command(
        "separator.cli.demo",
        MACHINE,
        "run the whole chain on a small corpus, in minutes",
        """
        separator demo
            on songs that it composes itself
        separator demo --data ~/Music
            pretrain on your own music
        """,
    ),
}


def usage() -> str:
    """Return the text of `separator --help`."""
    lines = ["usage: separator COMMAND ..."]
    for task in (SEPARATE, TRAIN, SHARE, MACHINE):
        lines += ["", f"{task}:"]
        for name, command in COMMANDS.items():
            if command.task == task:
                example = command.examples.split("\n")[1].strip()
                lines += [f"  {name:<10} {command.summary}", f"{'':13}  {example}"]
    end = "`separator help COMMAND` explains a command; `separator --version` is the version."
    return "\n".join([*lines, "", end, "", _options(), "", _statuses(), ""])


def epilog(name: str) -> str:
    """Return the end of a command's help; nothing for other names."""
    if name not in COMMANDS:
        return ""
    examples = textwrap.indent(inspect.cleandoc(COMMANDS[name].examples), "  ")
    statuses = _statuses(times_out=name in ("pretrain", "train"))
    return "\n".join([_options(), "", "examples:", examples, "", statuses])


def _options() -> str:
    rows = [f"  {option:<11} {text}" for option, text in LOG_OPTIONS.items()]
    return "\n".join(["options of every command:", *rows])


def _statuses(times_out: bool = True) -> str:
    shown = {key: text for key, text in STATUSES.items() if times_out or key != "3"}
    rows = [f"  {status:<14} {text}" for status, text in shown.items()]
    return "\n".join(["exit status:", *rows])
