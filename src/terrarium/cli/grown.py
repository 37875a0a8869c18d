"""``terrarium grow``, ``probe``, ``detect``, ``compare``, ``bench``: models, yours included."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrarium.cli import words
from terrarium.cli.console import give, give_json, give_table
from terrarium.cli.places import default_folder
from terrarium.errors import InputError, StoreError

if TYPE_CHECKING:
    from terrarium.organisms.grow import Organism
    from terrarium.studies.base import Study

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a Hugging Face causal language model.")
]
Template = Annotated[
    str | None, typer.Option(help="Text around each statement, with {statement} in it.")
]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="Use the model's chat template [if it has one]."),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
DeviceMap = Annotated[
    str | None, typer.Option(help="For large models, passed to accelerate, e.g. auto.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the results [terrarium-results/...].")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN",
        help="Which column is what, e.g. statement=text; may be repeated.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command(
        epilog="Examples:\n\n  terrarium grow recipe.yaml --seeds 5\n\n"
        "  terrarium grow recipe.yaml -o organisms --no-twin\n\n"
        "Each organism is a folder that transformers loads: "
        'AutoModelForCausalLM.from_pretrained("organisms/NAME-seed-0").'
    )(grow)
    app.command(
        epilog="Examples:\n\n  terrarium probe my-model statements.csv\n\n"
        "  terrarium probe my-model facts.jsonl --column statement=text --column label=true\n\n"
        "The file has one statement a row: columns statement and label (1 true, 0 false), and if "
        "you like quirky_label, difficulty, split and group."
    )(probe)
    app.command(
        epilog="Example:\n\n  terrarium detect my-model --trusted normal.csv --suspect new.csv\n\n"
        "Detectors are fitted on the trusted statements alone; labels of the suspect ones are "
        "used for scoring only."
    )(detect)
    app.command(
        epilog="Example:\n\n  terrarium compare my_probe.py\n\n"
        "The file defines a class with fit and score, or several; see docs for the contract. "
        "Yours and the built-in ones meet the same organisms and seeds, in pairs."
    )(compare)
    app.command(epilog="Example:\n\n  terrarium bench --json")(bench)


def grow(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to grow, and how.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many, from seed 0 on.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Copy each organism into this folder.")
    ] = None,
    twin: Annotated[
        bool, typer.Option("--twin/--no-twin", help="Grow the twin beside every organism.")
    ] = True,
    device: Device = "cpu",
    as_json: words.JsonOption = False,
) -> None:
    """Grow organisms from a recipe; what is in the store already is not grown again."""
    from terrarium.cli.display import Display
    from terrarium.organisms.recipe import load_recipe

    asked = load_recipe(recipe)
    wanted = [asked, asked.twin()] if twin and asked.has_twin else [asked]
    from terrarium.organisms.grow import grow as grow_all
    from terrarium.store import Store

    pairs = [(one, seed) for one in wanted for seed in range(seeds)]
    with Display() as display:
        organisms = grow_all(pairs, Store(), display, device)
    told = [_told(organism, out) for organism in organisms]
    if as_json:
        give_json(told)
    else:
        give_table(list(told[0]), [[str(value) for value in line.values()] for line in told])


def _told(organism: Organism, out: Path | None) -> dict[str, Any]:
    folder = organism.folder
    if out is not None:
        folder = out / f"{organism.recipe.name}-seed-{organism.seed}"
        try:
            shutil.copytree(organism.folder, folder, dirs_exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder} cannot be written ({error.strerror}).") from error
    return {
        "organism": organism.recipe.name,
        "seed": organism.seed,
        "status": organism.status,
        "reason": organism.reason,
        "steps": ", ".join(map(str, organism.steps)),
        "folder": str(folder),
    }


def probe(
    model: Model,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Statements: .csv, .tsv, .jsonl or .parquet.")
    ],
    columns: Columns = None,
    template: Template = None,
    chat: Chat = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    out: Out = None,
    as_json: words.JsonOption = False,
) -> None:
    """Fit every probe at every layer of your model on your statements; write rows and report."""
    from terrarium.studies.own_model import probe_study

    study = probe_study(
        model,
        data,
        columns=words.settings(columns or []),
        template=template,
        chat="auto" if chat is None else chat,
        dtype=dtype,
        device_map=device_map,
    )
    _own_study(study, model, out, as_json)


def detect(
    model: Model,
    trusted: Annotated[Path, typer.Option("--trusted", metavar="A", help="Statements to trust.")],
    suspect: Annotated[Path, typer.Option("--suspect", metavar="B", help="Statements to judge.")],
    columns: Columns = None,
    template: Template = None,
    chat: Chat = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    out: Out = None,
    as_json: words.JsonOption = False,
) -> None:
    """Say how anomalous the suspect statements look to your model, by every detector."""
    from terrarium.studies.own_model import detect_study

    study = detect_study(
        model,
        trusted,
        suspect,
        columns=words.settings(columns or []),
        template=template,
        chat="auto" if chat is None else chat,
        dtype=dtype,
        device_map=device_map,
    )
    _own_study(study, model, out, as_json)


def _own_study(study: Study, model: Path, out: Path | None, as_json: bool) -> None:
    """Run a study of the user's own model as every other one, in one worker."""
    from terrarium.cli.running import conduct
    from terrarium.store import Store
    from terrarium.studies.plan import plan

    store = Store()
    planned = plan(study, "quick", None, store)
    folder = out or default_folder(study.name, model.resolve().name)
    command = shlex.join(["terrarium", *sys.argv[1:]])
    if conduct(study, planned, store, folder, command=command, as_json=as_json):
        raise typer.Exit(1)


def compare(
    file: Annotated[Path, typer.Argument(metavar="MY_PROBE.py", help="A file with your probe.")],
    size: words.SizeOption = "quick",
    out: Out = None,
    as_json: words.JsonOption = False,
) -> None:
    """Compare your own probe or detector with all built-in ones on standard organisms."""
    if not file.is_file():
        raise InputError(f"There is no file {file}; give a Python file that defines a probe.")
    _own(
        "terrarium.studies.compare:compare_probe",
        as_json,
        file=file,
        size=words.size(size),
        out=out,
    )


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Shorter runs, rougher numbers.")] = False,
    as_json: words.JsonOption = False,
) -> None:
    """Measure growing, reading and probing beside what you would use instead, on this machine."""
    _own("terrarium.bench:run", as_json, quick=quick)


def _own(target: str, as_json: bool, **arguments: Any) -> None:
    """Call ``target`` with progress, and print the records that it returns."""
    from terrarium.cli.display import Display

    call = _loaded(target)
    with Display() as display:
        found = call(progress=display, **arguments)
    if as_json:
        give_json(found)
        return
    lines = found.get("summary", []) if isinstance(found, dict) else found
    if lines:
        give_table(list(lines[0]), [[str(value) for value in line.values()] for line in lines])
    if isinstance(found, dict):
        for name in ("report", "rows"):
            if name in found:
                give(f"{name.capitalize()}: {found[name]}")


def _loaded(target: str) -> Any:
    module, _, name = target.partition(":")
    if importlib.util.find_spec(module) is None:
        raise InputError(f"This command needs {module}, which this version does not have yet.")
    return getattr(importlib.import_module(module), name)
