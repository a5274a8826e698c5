"""List what breaks the rules of the house that no linter knows; `tests/test_house.py` holds them.

    python -m tests.house            # every finding, and the number of each kind
    python -m tests.house words      # one kind

A kind is the name of a function in CHECKS. LIMITS holds how many findings of a kind there may be:
lower a limit when you have removed some, and never raise one. The status is 1 where there are more.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
ROOMS = ("separator", "pretrain", "train", "inference")
MAX_LINES = 60  # of a function
REPEATED_NAMES = {"__init__.py", "config.py", "task.py"}

REGISTERED = {"LAYOUTS"}  # constants that a registry reads from each of its modules

# What a docstring says of a result: a verb that begins it, or a section.
RESULT = r"^(Return|Yield|Whether|Make|Build|Create|Open|Load|Read|List|Count)\b|Returns:|Yields:"

STEMS = {"vocals", "accompaniment", "drums", "bass"}  # and "other", where it is a whole string
STEM_FILES = (  # where a stem's name may stand: the contract, layouts of data, titles of files
    "separator/stems.py",
    "separator/data/layouts/",
    "separator/data/splits.py",
    "separator/data/stem_files.py",
    "separator/data/musdb_sample.py",
    "inference/files.py",
)
USER_NAMES = {"drop_vocals", "tiny-vocals", "train/vocals.yaml"}  # of a key, a model and a preset


class Finding(NamedTuple):
    """One place that breaks a rule."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


class Word(NamedTuple):
    """A word that is to go.

    Attributes:
        pattern: regular expression of the word.
        instead: the word that replaces it.
        rooms: beginnings of the paths in which it means what is to go; elsewhere it may stand.
    """

    pattern: str
    instead: str
    rooms: tuple[str, ...] = ("",)


MODELS, PRETRAIN = ("separator/models/",), ("pretrain/", "configs/pretrain/")
TRAINING = (*MODELS, *PRETRAIN, "train/", "configs/train/", "separator/model_config.py")

# Whole names of variables, arguments, attributes, functions, classes, modules and configuration
# keys. In sentences these are ordinary English.
NAMES = (
    Word("cells?", "blocks (a network's), patches (masked regions)", TRAINING),
    Word("hidden", "ffn_dim (a width), masked (what a mask hides)", TRAINING),
    Word("Recall|recall", "CrossFrameAttention, cross_frame_bands"),
    Word("profile", "mask_bias", TRAINING),
    Word("PACE", "lr_scale of a parameter group"),
    Word("HEARD", "VISIBLE_LOGIT"),
    Word("PRIOR", "MEAN_MAGNITUDE_LOGIT, COVARIANCE_SHRINKAGE"),
    Word("levels?", "input_norm, depth, rms", (*TRAINING, "separator/losses.py", "separator/dsp/")),
    Word("fine", "pre_head", TRAINING),
    Word("deep", "bottleneck", TRAINING),
    Word("shared", "balance_point", TRAINING),
    Word("separator_token|joints?|Joint", "[SEP], boundary", PRETRAIN),
    Word("fates?", "draw"),
    Word("splices?", "segment pair"),
    Word("companions?", "discriminator"),
    Word("deceives?|deceived", "adversarial_objective"),
    Word("fool|fooled", "generator_loss"),
    Word("mine", "ranking_objective", PRETRAIN),
    Word("health", "cluster_metrics"),
    Word("at|on|stair", "Schedule.value, .enabled, .step_value", ("pretrain/",)),
    Word("[Tt]runks?", "backbone, BackboneFeatures"),
    Word("fill|kept", "mask, keep", PRETRAIN),
    Word("excerpts?|pieces?|stretch|stretches|snippets?|passages?|cuts?",
         "segment (data), crop (pretraining), chunk (inference)",
         ("separator/data/", "inference/", "separator/supervised/", *TRAINING)),
    Word("Found", "SongFiles"),
    Word("Part", "StemFile", ("separator/data/",)),
    Word("recogni[sz]e", "detect_layout"),
    Word("FINDERS", "LAYOUTS"),
    Word("FOUR|TWO|ONE", "a StemSet"),
    Word("FREE|ANYWHERE", "RESUMABLE_KEYS"),
    Word(r"LEAST(_\w+)?", "MIN_…"),
    Word(r"MOST(_\w+)?", "MAX_…"),
    Word("TINY", "SILENCE_DB, or a noun"),
    Word("SHOWN", "a noun"),
    Word("found|left|known|own|told|here", "a noun: songs, remaining, …"),
)  # fmt: skip

# Words in any text: sentences, comments, help, log tags, keys, names of files.
TEXTS = (
    Word(r"trunks?", "backbone"),
    Word(r"companions?", "discriminator"),
    Word(r"separator token", "[SEP]"),
    Word(r"fates?", "one corruption draw"),
    Word(r"splices?|spliced", "segment pair"),
    Word(r"recall(s|ed)?", "cross-frame attention"),
    Word(r"PACE", "lr_scale"),
    Word(r"deceives?|deceived|fools?|fooled", "adversarial loss"),
    Word(r"cells?", "blocks (a network's), patches (masked regions)",
         (*TRAINING, "README.md", "docs/", "separator/cli/compare/")),
    Word(r"(the )?source document|Source \d\d\d", "a bibliography entry, cited by name"),
    Word(r"seed'?s? (preset|author|document|recipe|repository)|seed\.yaml|of the seed's",
         "a bibliography entry, cited by name"),
)  # fmt: skip


@cache
def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of every source file by its path."""
    paths = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def stem_names() -> Iterator[Finding]:
    """Find files that spell a stem's name outside those that may; one finding a file."""
    for path, tree in sources().items():
        if path.startswith(STEM_FILES):
            continue
        prose = {id(node) for node in _docstrings(tree)}
        places = [place for node in ast.walk(tree) for place in _stems(node, prose)]
        if places:
            lines = ", ".join(str(line) for line in sorted({line for line, _ in places}))
            names = ", ".join(sorted({name for _, name in places}))
            yield Finding(path, min(places)[0], f"spells {names} (lines {lines})")


def _stems(node: ast.AST, prose: set[int]) -> Iterator[tuple[int, str]]:
    """Yield line and name of the stems in a string without blanks, or in an identifier."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
        texts = [] if " " in node.value.strip() else [node.value]
        yield from ((node.lineno, "other") for text in texts if text == "other")
    else:
        texts = [name for _, name in _identifiers(node)]
    for text in set(texts) - USER_NAMES:
        yield from ((node.lineno, name) for name in STEMS & set(re.split(r"[\W_]+", text.lower())))


def repeated_constants() -> Iterator[Finding]:
    """Find names of constants that several modules define."""
    places = defaultdict(list)
    for path, tree in sources().items():
        names = {name: node.lineno for node in tree.body for _, name in _targets(node)}
        for name, line in names.items():
            if name.isupper():
                places[name].append((path, line))
    for name, rows in sorted(places.items()):
        if len(rows) > 1 and name not in REGISTERED:
            others = ", ".join(path for path, _ in rows[1:])
            yield Finding(*rows[0], f"{name} is defined in {others} too")


def repeated_files() -> Iterator[Finding]:
    """Find names of files that occur twice."""
    places = defaultdict(list)
    for path in sources():
        places[Path(path).name].append(path)
    for name, paths in sorted(places.items()):
        if len(paths) > 1 and name not in REPEATED_NAMES:
            yield Finding(paths[0], 1, f"there is {', '.join(paths[1:])} too")


def long_functions() -> Iterator[Finding]:
    """Find functions of more than MAX_LINES lines."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_LINES:
                    yield Finding(path, node.lineno, f"{node.name} has {lines} lines")


def docstring_sections() -> Iterator[Finding]:
    """Find public functions that do not document arguments, result or errors.

    "Args:" is needed where the text does not name every argument; "Returns:" or "Yields:" where
    there is a result, unless the first line names it ("Return the …", "Whether …"); "Raises:" where
    the function itself raises. Exempt: a command's `main(argv)`, whose contract stands in one
    place; methods with two underscores; what overrides a method of a class of ours; a function that
    `register` adds to a registry, whose class documents the call; arguments and results of a
    property; overloads of a function that is documented.
    """
    documented = _methods_by_class()
    for path, tree in sources().items():
        for owner, node in _public_functions(tree):
            bases = [_class_name(base) for base in getattr(owner, "bases", [])]
            overrides = any(node.name in documented.get(base, ()) for base in bases)
            if (owner is tree and node.name == "main") or overrides or _is_registered(node):
                continue
            missing = _missing_sections(node)
            if missing:
                yield Finding(path, node.lineno, f"{node.name}: no {', '.join(missing)}")


def _class_name(base: ast.expr) -> str:
    """Return the name of a base class, without its type arguments: Objective[LabelConfig]."""
    return ast.unparse(base).split("[")[0]


def _is_registered(node: ast.FunctionDef) -> bool:
    """Whether the decorator `register` adds a function to a registry."""
    return any(ast.unparse(d).split("(")[0] == "register" for d in node.decorator_list)


def _missing_sections(node: ast.FunctionDef) -> list[str]:
    """Return the sections that a function's docstring needs and has not."""
    text = ast.get_docstring(node) or ""
    names = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in
             node.decorator_list}  # fmt: skip
    if "overload" in names:
        return []
    is_property = bool(names & {"property", "cached_property", "setter"})
    spec = node.args
    arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    arguments = [arg.arg for arg in arguments if arg and arg.arg not in ("self", "cls")]
    result = ast.unparse(node.returns) if node.returns else "None"
    unnamed = [name for name in arguments if not re.search(_in_words(name), text, re.IGNORECASE)]
    missing = []
    if unnamed and not is_property and "Args:" not in text:
        missing.append("Args")
    if result != "None" and not (is_property or re.search(RESULT, text)):
        missing.append("Returns")
    if any(_raises(child) for child in node.body) and "Raises:" not in text:
        missing.append("Raises")
    return missing


def _in_words(name: str) -> str:
    """Return a pattern that finds an argument's name in a sentence: `run_folder` as run folder."""
    return rf"\b{name.rstrip('s').replace('_', '[_ ]')}(s|es)?\b"


def _raises(node: ast.AST) -> bool:
    """Whether a statement raises an error of its own, functions within it aside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return False
    if isinstance(node, ast.Raise):
        return node.exc is not None and "NotImplementedError" not in ast.unparse(node.exc)
    return any(_raises(child) for child in ast.iter_child_nodes(node))


def _public_functions(tree: ast.Module) -> Iterator[tuple[ast.AST, ast.FunctionDef]]:
    """Yield the public functions of a module and of its public classes, each with its owner."""
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    for owner in (tree, *classes):
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield owner, node


def _methods_by_class() -> dict[str, set[str]]:
    """Return the names of the methods of every class, by the class's name, and of its bases."""
    classes = {
        node.name: node
        for tree in sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }

    def methods(name: str) -> set[str]:
        node = classes.get(name)
        if node is None:
            return set()
        own = {child.name for child in node.body if isinstance(child, ast.FunctionDef)}
        bases = [base for base in map(_class_name, node.bases) if base != name]
        return own.union(*map(methods, bases))

    return {name: methods(name) for name in classes}


def words() -> Iterator[Finding]:
    """Find the words of NAMES and TEXTS in code, presets and documents."""
    for path, tree in sources().items():
        stereo = "right" in {name for node in ast.walk(tree) for _, name in _targets(node)}
        places = [(1, Path(path).stem), *(p for n in ast.walk(tree) for p in _identifiers(n))]
        if stereo:  # `left` is a channel or a side
            places = [place for place in places if place[1] != "left"]
        yield from _names(path, places)
    for preset in sorted((ROOT / "configs").rglob("*.yaml")):
        path = preset.relative_to(ROOT).as_posix()
        keys = _keys(yaml.compose(preset.read_text("utf-8")))
        yield from _names(path, [(1, preset.stem), *keys])
    documents = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md")]
    for path in [*sources(), *(p.relative_to(ROOT).as_posix() for p in documents), "README.md"]:
        yield from _texts(path)


def _names(path: str, places: list[tuple[int, str]]) -> Iterator[Finding]:
    for word in _words_for(path, NAMES):
        lines = sorted({(n, name) for n, name in places if re.fullmatch(word.pattern, name)})
        yield from (Finding(path, n, f"{name} -> {word.instead}") for n, name in lines)


def _texts(path: str) -> Iterator[Finding]:
    """Find the words of TEXTS in the lines of a file."""
    lines = (ROOT / path).read_text("utf-8").splitlines()
    for word in _words_for(path, TEXTS):
        for number, line in enumerate(lines, 1):
            for match in re.finditer(rf"\b(?:{word.pattern})\b", line):
                yield Finding(path, number, f"{match[0]!r} -> {word.instead}")


def _words_for(path: str, table: tuple[Word, ...]) -> list[Word]:
    """Return the words that are to go from a file."""
    return [word for word in table if path.startswith(word.rooms)]


def _identifiers(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of whatever a node defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.lineno, node.name
    elif isinstance(node, ast.arg):
        yield node.lineno, node.arg
    elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr


def _targets(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of the variables that an assignment defines."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.For | ast.comprehension):
        for target in targets:
            yield from (place for child in ast.walk(target) for place in _identifiers(child))


def _docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the constants that are expressions of their own: docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def _keys(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """Yield line and name of the keys of a YAML file, nested ones too."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key.start_mark.line + 1, str(key.value)
            yield from _keys(value)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    stem_names, repeated_constants, repeated_files, long_functions, docstring_sections, words,
)  # fmt: skip

LIMITS = {
    "stem_names": 0,
    "repeated_constants": 0,
    "repeated_files": 0,
    "long_functions": 0,
    "docstring_sections": 0,
    "words": 0,
}


def main() -> int:
    """Print the findings of the kinds that are named, or of all; the status is 1 for too many."""
    chosen = [c for c in CHECKS if c.__name__ in sys.argv[1:] or len(sys.argv) == 1]
    counts = {}
    for check in chosen:
        findings = list(check())
        counts[check.__name__] = len(findings)
        print(f"\n{check.__name__}: {check.__doc__.splitlines()[0]}")
        for finding in findings:
            print(f"  {finding}")
    print()
    for name, count in counts.items():
        print(f"{name:<20} {count:>5}, at most {LIMITS[name]}")
    return int(any(count > LIMITS[name] for name, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
