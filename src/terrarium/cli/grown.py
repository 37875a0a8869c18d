"""``terrarium grow``, ``probe``, ``detect``, ``compare``, ``bench``: models, yours included."""

from __future__ import annotations

import shlex
import shutil
import sys
import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terrarium.cli import words
from terrarium.cli.console import give_json, give_table, tell
from terrarium.cli.places import default_folder
from terrarium.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from terrarium.organisms.grow import Organism
    from terrarium.studies.base import Size, Study

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a Hugging Face causal language model.")
]
Template = Annotated[
    str | None, typer.Option(help="Text around each statement, with {statement} in it.")
]
Chat = Annotated[
    bool | None,
    typer.Option("--chat/--no-chat", help="Use the model's chat template (if it has one)."),
]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16, float16 or auto.")]
DeviceMap = Annotated[
    str | None, typer.Option(help="For large models, passed to accelerate, e.g. auto.")
]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the results (terrarium-results/...).")
]
Workers = Annotated[
    int | None,
    typer.Option(help="Worker processes of one thread each; 0: in this process.", min=0),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="NAME=COLUMN",
        help="Which column is what, e.g. statement=text; may be repeated.",
    ),
]


_TITLES = {"right": "right (balanced)"}


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
        "you like quirky_label, difficulty, split and group. Rows of one group depend on each "
        "other: they stay in one split, and intervals are over groups."
    )(probe)
    app.command(
        epilog="Examples:\n\n  terrarium detect my-model --trusted normal.csv --suspect new.csv\n\n"
        "  terrarium detect my-model --trusted normal.csv --suspect new.csv --control other.csv\n\n"
        "Detectors are fitted on half of the trusted statements; no label is needed. A control "
        "holds harmless statements that are as unfamiliar as the suspect ones. Rows of one group "
        "(a column group, if you like) stay in one half, and intervals are over groups."
    )(detect)
    app.command(
        epilog="Examples:\n\n  terrarium compare my_probe.py\n\n"
        "  terrarium compare my_detector.py --size smoke\n\n"
        "The file defines one class with a method fit, which returns something with a method "
        "score; a probe also has the attribute supervised. Yours and the built-in ones meet the "
        "same organisms and seeds, in pairs."
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
    from terrarium.organisms.device import check_device
    from terrarium.organisms.recipe import load_recipe

    asked = load_recipe(recipe)
    if out is not None:
        _check_name(asked.name)
    check_device(device, "--device")
    wanted = [asked, asked.twin()] if twin and asked.has_twin else [asked]
    from terrarium.organisms.grow import grow as grow_all
    from terrarium.store import Store
    from terrarium.studies.resources import single_thread

    pairs = [(one, seed) for one in wanted for seed in range(seeds)]
    # Small organisms gain nothing by more threads, and are then those that a study would grow.
    small = asked.model.kind != "huggingface"
    with Display() as display, single_thread() if small else nullcontext():
        organisms = grow_all(pairs, Store(), display, device)
    told = [_told(organism, out) for organism in organisms]
    if as_json:
        give_json(told)
    else:
        shown = [name for name in told[0] if name != "reason" or any(t[name] for t in told)]
        columns = [_TITLES.get(name, name) for name in shown]
        give_table(columns, [_line({name: t[name] for name in shown}) for t in told])
    lost = [o for o in organisms if o.status != "grown"]
    if lost:
        tell(
            f"{len(lost)} of {len(organisms)} organisms did not come out: {lost[0].recipe.name}, "
            f"seed {lost[0].seed}, {lost[0].status} ({lost[0].reason}); change the recipe, a "
            "smaller learning rate first."
        )
        raise typer.Exit(1)


def _check_name(name: str) -> None:
    """Refuse a recipe's name that would lead out of the folder that copies go to."""
    if Path(name).name != name or "\\" in name:
        raise InputError(f"A recipe named '{name}' cannot name a folder; leave out slashes.")


def _told(organism: Organism, out: Path | None) -> dict[str, Any]:
    from terrarium.organisms.card import accuracies

    folder = organism.folder
    if out is not None:
        folder = out / f"{organism.recipe.name}-seed-{organism.seed}"
        _copy(organism.folder, folder)
    told = {
        "organism": organism.recipe.name,
        "seed": organism.seed,
        "status": organism.status,
        "reason": organism.reason,
        "steps": ", ".join(map(str, organism.steps)),
    }
    right = accuracies(organism) if organism.status == "grown" else {}
    return {**told, "right": right, "folder": str(folder)}


def _copy(source: Path, folder: Path) -> None:
    """Copy an organism whole or not at all, in place of an earlier copy."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    if folder.exists() and not (folder / "phase.json").is_file():
        raise InputError(f"{folder} exists and is no organism; name another folder with --out.")
    try:
        shutil.copytree(source, draft)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _line(told: dict[str, Any]) -> list[str]:
    """Return a told organism as a line of a table."""
    right = ", ".join(
        f"{who} {'undefined' if share is None else format(share, '.3f')}"
        for who, share in told["right"].items()
    )
    return [right if name == "right" else str(value) for name, value in told.items()]


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
    workers: Workers = None,
    as_json: words.JsonOption = False,
) -> None:
    """Fit every probe at every layer of your model on your statements; write rows and report."""
    from terrarium.studies.own_model import probe_study

    study = probe_study(
        model,
        data,
        columns=_columns(columns or []),
        template=template,
        chat="auto" if chat is None else chat,
        dtype=dtype,
        device_map=device_map,
    )
    _own_study(study, f"{model.resolve().name}-{data.stem}", out, workers, as_json)


def detect(
    model: Model,
    trusted: Annotated[Path, typer.Option("--trusted", metavar="A", help="Statements to trust.")],
    suspect: Annotated[Path, typer.Option("--suspect", metavar="B", help="Statements to judge.")],
    control: Annotated[
        Path | None,
        typer.Option("--control", metavar="C", help="Unfamiliar but harmless statements."),
    ] = None,
    columns: Columns = None,
    template: Template = None,
    chat: Chat = None,
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    out: Out = None,
    workers: Workers = None,
    as_json: words.JsonOption = False,
) -> None:
    """Say how anomalous the suspect statements look to your model, by every detector."""
    from terrarium.studies.own_model import detect_study

    study = detect_study(
        model,
        trusted,
        suspect,
        control=control,
        columns=_columns(columns or []),
        template=template,
        chat="auto" if chat is None else chat,
        dtype=dtype,
        device_map=device_map,
    )
    _own_study(study, f"{model.resolve().name}-{suspect.stem}", out, workers, as_json)


def _columns(given: Sequence[str]) -> dict[str, str]:
    """Return ``["statement=text"]`` as a mapping; raises ``InputError`` without equals sign."""
    found: dict[str, str] = {}
    for pair in given:
        name, _, column = pair.partition("=")
        if not name.strip() or not column.strip():
            raise InputError(
                f"--column expects NAME=COLUMN, such as --column statement=text; got '{pair}'."
            )
        found[name.strip()] = column.strip()
    return found


def _own_study(
    study: Study,
    about: str,
    out: Path | None,
    workers: int | None,
    as_json: bool,
    asked: Size = "quick",
    changes: Mapping[str, str] | None = None,
) -> None:
    """Run a study of the user's own model or instrument as every other one.

    ``about`` names the folder of the results where ``out`` does not.
    """
    from terrarium.cli.running import conduct
    from terrarium.store import Store
    from terrarium.studies.plan import plan

    store = Store()
    planned = plan(study, asked, changes, store, workers=workers)
    folder = out or default_folder(study.name, about)
    command = shlex.join(["terrarium", *sys.argv[1:]])
    if conduct(
        study,
        planned,
        store,
        folder,
        command=command,
        overrides=changes,
        workers=workers,
        as_json=as_json,
        strict=True,
    ):
        raise typer.Exit(1)


def compare(
    file: Annotated[Path, typer.Argument(metavar="MY_PROBE.py", help="A file with your probe.")],
    size: words.SizeOption = "quick",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
    ] = None,
    out: Out = None,
    workers: Workers = None,
    as_json: words.JsonOption = False,
) -> None:
    """Compare your own probe or detector with all built-in ones on standard organisms."""
    from terrarium.studies.compare import compare_study

    study = compare_study(file)
    asked, settings = words.size(size), words.settings(changes or [])
    _own_study(study, file.stem, out, workers, as_json, asked, settings)


def bench(
    only: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="growing, reading, probe_sweep, dictionaries, policy, ...; all if left out.",
        ),
    ] = None,
    as_json: words.JsonOption = False,
) -> None:
    """Measure growing, reading and probing beside what you would use instead, on this machine."""
    from terrarium.bench import run, summary
    from terrarium.cli.display import Display

    with Display() as display:
        found = run(progress=display, only=only)
    if as_json:
        give_json(found)
        return
    # each benchmark has columns of its own
    for name in dict.fromkeys(line["benchmark"] for line in found):
        lines = summary([line for line in found if line["benchmark"] == name])
        give_table(list(lines[0]), [[str(value) for value in line.values()] for line in lines])
