"""Rules for imports and sizes of modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {
    "slide_deploy": ROOT / "slide_deploy",
    "slide_deploy.exporters": ROOT / "exporters",
    "slide_deploy.validators": ROOT / "validators",
}
TARGETS = ("onnx", "coreml", "openvino", "torchscript")
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "coremltools", "onnxscript"}


@dataclass(frozen=True)
class Import:
    """One imported module; `name` is what was taken from it, "" for the module itself."""

    module: str
    name: str
    lazy: bool
    line: int


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the project by its installed name."""
    found = {}
    for package, folder in ROOMS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            own = [part for part in parts if part != "__init__"]
            found[".".join([package, *own])] = ast.parse(path.read_text())
    return found


def is_package(module: str) -> bool:
    return any(other.startswith(f"{module}.") for other in sources())


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports; under TYPE_CHECKING nothing is really imported."""
    return tuple(_imports(module, sources()[module].body, lazy=False))


def _imports(module: str, body: list[ast.stmt], lazy: bool) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, "", lazy, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module
            for alias in node.names:
                if f"{node.module}.{alias.name}" in sources():
                    yield Import(f"{node.module}.{alias.name}", "", lazy, node.lineno)
                else:
                    yield Import(node.module, alias.name, lazy, node.lineno)
        inside = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for field in ("body", "orelse", "finalbody", "handlers"):
            inner = getattr(node, field, [])
            if isinstance(inner, list):
                yield from _imports(module, inner, inside)


def own(module: str) -> set[str]:
    """The project's modules that a module imports, wherever it does so."""
    return {found.module for found in imports(module) if found.module.startswith("slide_deploy")}


def below(*packages: str) -> list[str]:
    """Modules of these packages and of those below them."""
    return [
        module
        for module in sources()
        if any(
            module == f"slide_deploy.{p}" or module.startswith(f"slide_deploy.{p}.")
            for p in packages
        )
    ]


def within(module: str, allowed: tuple[str, ...]) -> bool:
    names = [f"slide_deploy.{name}" for name in allowed]
    return module in names or module.startswith(tuple(f"{name}." for name in names))


# Rooms from the bottom up: each imports only itself and those before it. A room is a folder, or
# a module of the root.
ORDER = (
    *("errors", "types", "utils", "hexagon", "protocols", "ethos_u", "registry", "parity"),
    *("models", "fusion", "capture", "lowering", "packaging", "quantization"),
    *("loading", "reference", "artifacts", "verification", "evaluation", "coreml"),
    *("report", "bench", "pipeline", "cli"),
)
VOCABULARY = ("errors", "types", "protocols")
TARGET_ROOMS = ("exporters", "validators")

# Where torch is at home. All other rooms load without any optional library.
TORCH_ROOMS = (
    *("models", "fusion", "capture", "lowering", "loading", "reference"),
    *("artifacts", "bench", "pipeline"),
)


def room(module: str) -> str:
    """The folder or root module that a module belongs to; "" for the package itself."""
    return module.removeprefix("slide_deploy").lstrip(".").partition(".")[0]


ROOM_NAMES = {room(module) for module in sources()} - {"", "__main__"}


def test_every_room_has_its_place_in_the_order() -> None:
    assert {*ORDER, *TARGET_ROOMS} == ROOM_NAMES


def test_the_root_holds_few_modules() -> None:
    assert len(list((ROOT / "slide_deploy").glob("*.py"))) <= 9


# What examples, benchmarks and extensions may import, beside the names of the package itself:
# the vocabulary of targets, model families to train, comparison, and the MIL interpreter.
PUBLIC = (*VOCABULARY, "registry", "capture", "models", "quantization", "parity", "coreml")


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("examples", "benchmarks", "tests/core/extension_example")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_examples_and_benchmarks_use_public_names_alone(path: Path) -> None:
    import slide_deploy

    # Apple's tests run on the interpreter itself, and one of its operations is broken on purpose.
    public = (*PUBLIC, "validators._mil") if path.parent.name == "conformance" else PUBLIC
    if path.is_relative_to(ROOT / "benchmarks"):
        # Compilers and files, which they measure and break.
        public = (*public, "hexagon", "ethos_u")
    found = _imports(path.stem, ast.parse(path.read_text()).body, lazy=False)
    internal = [
        f"{path.name}:{one.line} {one.module} {one.name}"
        for one in found
        if one.module.partition(".")[0] == "slide_deploy" and not within(one.module, public)
        if one.module != "slide_deploy" or one.name not in ("", *slide_deploy.__all__)
    ]
    assert internal == []


def test_no_public_name_is_hidden_by_a_folder_of_the_same_name() -> None:
    """Importing `slide_deploy.bench.latency` makes `slide_deploy.bench` the folder."""
    import slide_deploy

    assert {room(module) for module in sources()}.isdisjoint(slide_deploy.__all__)


def test_every_public_name_is_there() -> None:
    import slide_deploy

    assert [n for n in slide_deploy.__all__ if not hasattr(slide_deploy, n)] == []


@pytest.mark.parametrize("module", [m for m in sources() if room(m) in ORDER])
def test_no_list_of_targets_stands_in_the_code(module: str) -> None:
    """Targets come from the registry: adding one edits nothing here."""
    collections = (ast.List, ast.Tuple, ast.Set, ast.Dict)
    for node in ast.walk(sources()[module]):
        if isinstance(node, collections):
            entries = node.keys if isinstance(node, ast.Dict) else node.elts
            words = {entry.value for entry in entries if isinstance(entry, ast.Constant)}
            assert len(words & set(TARGETS)) < 2, f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", [m for m in sources() if room(m) in ORDER])
def test_no_import_points_upward(module: str) -> None:
    allowed = {"", *ORDER[: ORDER.index(room(module)) + 1]}
    above = [name for name in own(module) if room(name) not in allowed]
    assert [name for name in above if not offers_interpreter(module, name)] == []


def offers_interpreter(module: str, name: str) -> bool:
    """The room `coreml` offers the MIL interpreter, which is no target, to everybody."""
    return room(module) == "coreml" and within(name, ("validators._mil",))


def test_the_registry_alone_finds_targets() -> None:
    """By name, when one is asked for: no import statement leads to a target."""
    users = [
        module
        for module in sources()
        if room(module) in ORDER
        for name in own(module)
        if room(name) in TARGET_ROOMS and not offers_interpreter(module, name)
    ]
    assert users == []


@pytest.mark.parametrize("module", below("models", "fusion", "lowering"))
def test_model_code_never_sees_the_name_of_a_target(module: str) -> None:
    tree = sources()[module]
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words += [node.value] if id(node) not in docstrings else []
        elif isinstance(node, (ast.Name, ast.Attribute, ast.FunctionDef, ast.ClassDef, ast.arg)):
            words += [v for f in ("id", "attr", "name", "arg") if (v := getattr(node, f, ""))]
    told = [word for word in words for target in TARGETS if target in word.lower().replace(" ", "")]
    assert told == []


@pytest.mark.parametrize("module", below("models"))
def test_models_know_nothing_of_what_is_done_with_them(module: str) -> None:
    assert [n for n in own(module) if not within(n, ("errors", "types", "utils", "models"))] in (
        [],
        ["slide_deploy"] * (module == "slide_deploy.models.families"),
    )


def family_words() -> set[str]:
    """Modules and classes of the families, and the names of what only one of them has."""
    files = [m for m in below("models") if exported(m) and "FAMILY" in (exported(m) or [])]
    names = {name for module in files for name in exported(module) or []} - {"FAMILY", "Block"}
    return {m.rpartition(".")[2] for m in files} | names | {"attn_mask", "relative_position_index"}


@pytest.mark.parametrize(
    "module",
    [
        m
        for m in sources()
        if room(m) not in ("models", "validators") and m != "slide_deploy.models"
    ],
)
def test_only_models_name_a_family(module: str) -> None:
    """What a family needs elsewhere is a hook of `Family`."""
    told = {
        value
        for node in ast.walk(sources()[module])
        for field in ("id", "attr", "name", "module", "value")
        if isinstance(value := getattr(node, field, None), str) and len(value) < 100
    }
    words = {word for text in told for word in re.findall(r"\w+", text)}
    assert words & family_words() == set()


@pytest.mark.parametrize("module", below("parity"))
def test_the_parity_engine_is_numpy_alone(module: str) -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "slide_deploy"}
    assert {found.module.split(".")[0] for found in imports(module)} <= allowed
    assert all(within(name, (*VOCABULARY, "utils", "parity")) for name in own(module))


@pytest.mark.parametrize("module", below("exporters", "validators"))
def test_a_target_imports_only_the_shared_vocabulary(module: str) -> None:
    exporting = module.startswith("slide_deploy.exporters")
    own_parts = (
        "exporters._quantize",
        "exporters._coreml",
        "exporters._repeated",
        "exporters._onnx_file",
    )
    private = ("_coreml_classifier", "_mil", "_quantized", "_reduce", "_widened")
    reading = tuple(f"validators.{name}" for name in private)
    inner = own_parts if exporting else reading
    allowed = (*VOCABULARY, "hexagon", "ethos_u", *inner, *(("capture",) if exporting else ()))
    assert [name for name in own(module) if not within(name, allowed)] == []


@pytest.mark.parametrize("module", [m for m in below("validators._mil") if "_mil" in m])
def test_the_interpreter_knows_no_target(module: str) -> None:
    assert [n for n in own(module) if within(n, tuple(f"validators.{t}" for t in TARGETS))] == []


@pytest.mark.parametrize("module", below("exporters", "validators"))
def test_third_party_libraries_of_targets_load_inside_functions(module: str) -> None:
    eager = [found for found in imports(module) if not found.lazy]
    assert [found for found in eager if found.module.split(".")[0] in HEAVY] == []


def test_renderers_know_records_and_not_how_they_came_about() -> None:
    machinery = ("loading", "models", "lowering", "fusion", "artifacts.prepare", "artifacts.write")
    for module in below("report"):
        assert [name for name in own(module) if within(name, machinery)] == [], module


def test_modules_do_not_import_each_other_in_circles() -> None:
    arrows = {
        module: {
            found.module
            for found in imports(module)
            if not found.lazy and found.module in sources()
        }
        for module in sources()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module not in done:
            for other in arrows[module]:
                visit(other, (*path, module))
            done.add(module)

    for module in sources():
        visit(module, ())


@pytest.mark.parametrize("module", [m for m in sources() if room(m) != "models"])
def test_files_and_functions_stay_short(module: str) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef)
    functions = [node for node in ast.walk(sources()[module]) if isinstance(node, definitions)]
    # Without the signature: that of a command is the list of its options.
    long = {f.name: f.end_lineno - f.body[0].lineno + 1 for f in functions if f.end_lineno}
    assert {name: lines for name, lines in long.items() if lines > 60} == {}
    assert max((node.end_lineno or 0 for node in sources()[module].body), default=0) <= 350


@pytest.mark.parametrize("module", sources())
def test_every_module_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(sources()[module])
    assert docstring


def exported(module: str) -> list[str] | None:
    for node in sources()[module].body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return list(ast.literal_eval(node.value))
    return None


# A package that holds nothing but modules, and what `python -m` runs, offer no names.
NAMELESS = [
    module
    for module, tree in sources().items()
    if (is_package(module) and len(tree.body) == 1) or module.endswith("__main__")
]


@pytest.mark.parametrize("module", [module for module in sources() if module not in NAMELESS])
def test_public_names_are_listed_and_exist(module: str) -> None:
    import importlib

    names = exported(module)
    assert names is not None, "no __all__"
    assert len(set(names)) == len(names)
    loaded = importlib.import_module(module)
    assert [name for name in names if not hasattr(loaded, name)] == []


def test_what_others_import_is_public() -> None:
    private = [
        f"{module}:{found.line} takes {found.name} from {found.module}"
        for module in sources()
        for found in imports(module)
        if found.name
        and found.module in sources()
        and found.name not in (exported(found.module) or [])
        and not found.name.startswith("__")
    ]
    assert private == []


def calls(node: ast.AST) -> Iterator[ast.Call]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call):
            yield inner.exc


ERRORS = {
    "UsageError",
    "CheckpointError",
    "UnsafeCheckpoint",
    "AmbiguousModel",
    "OutputError",
    "ConversionError",
    "ArtifactError",
}


def test_every_error_that_a_user_meets_says_what_to_do_about_it() -> None:
    """Those of validators become lines of a verdict, which has its own way out."""
    silent = [
        f"{module}:{call.lineno} {call.func.id}"
        for module, tree in sources().items()
        if not module.startswith("slide_deploy.validators")
        for call in calls(tree)
        if isinstance(call.func, ast.Name) and call.func.id in ERRORS
        if len(call.args) + len(call.keywords) < 2
    ]
    assert silent == []


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


BLOCK = """
import sys
from importlib.abc import MetaPathFinder
class Block(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_help_loads_neither_torch_nor_a_converter() -> None:
    done = python(
        "import sys\n"
        "sys.argv = ['slide-deploy', '--help']\n"
        "from slide_deploy.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('LOADED', sorted({HEAVY | {'pydantic', 'filelock'}!r} & sys.modules.keys()))"
    )
    assert done.stdout.splitlines()[-1] == "LOADED []", done.stderr


LIGHT = [
    module
    for module in sources()
    if room(module) not in (*TORCH_ROOMS, "coreml") and "_mil" not in module
]
OPTIONAL = HEAVY | {"scipy", "google", "PIL", "matplotlib"}


def test_what_needs_no_torch_loads_without_any_optional_library() -> None:
    code = BLOCK.format(blocked=OPTIONAL)
    code += "import importlib\n"
    code += f"for name in {LIGHT!r}: name.endswith('__main__') or importlib.import_module(name)\n"
    done = python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["targets"], 0),
        (["inspect", "MODEL"], 3),
        (["export", "MODEL", "-t", "onnx"], 3),
        (["fuse", "MODEL", "-o", "/tmp/never.safetensors"], 3),
        (["export", "MODEL", "-t", "onxx"], 2),
        (["inspect", "missing.pth"], 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_an_install_without_torch_says_so(golden: Path, arguments: list[str], code: int) -> None:
    model = str(golden / "micro_official.pth")
    argv = ["slide-deploy", *(model if word == "MODEL" else word for word in arguments)]
    program = BLOCK.format(blocked=HEAVY)
    program += f"sys.argv = {argv!r}\nfrom slide_deploy.cli import main\nmain()\n"
    done = python(program)
    assert "Traceback" not in done.stderr, done.stderr[-500:]
    assert done.returncode == code, done.stderr


@pytest.fixture(scope="module")
def onnx_folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `export -t onnx` writes for one Slide Attention module."""
    folder = tmp_path_factory.mktemp("exported") / "module-deploy"
    model = golden / "module_dat_default.pth"
    command = ["export", model, "-t", "onnx", "--image-size", "8", "-o", folder]
    run = [sys.executable, "-m", "slide_deploy", *map(str, command)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("command", ["targets", "verify", "bench"])
def test_onnx_runtime_and_onnx_alone_are_enough_for_an_exported_folder(
    onnx_folder: Path, command: str
) -> None:
    [artifact] = onnx_folder.glob("*.onnx")
    rest = {
        "targets": [],
        "verify": [onnx_folder],
        "bench": [artifact, "--rounds", "1", "--calls", "1", "--warmup", "0", "--threads", "1"],
    }
    argv = ["slide-deploy", command, *map(str, rest[command])]
    program = BLOCK.format(blocked=OPTIONAL - {"onnx", "onnxruntime", "google"})
    program += f"sys.argv = {argv!r}\nfrom slide_deploy.cli import main\nmain()\n"
    done = python(program)
    assert done.returncode == 0, done.stderr
