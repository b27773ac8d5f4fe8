"""report.html of a run, a two-stage system or a sweep: one file that opens from disk, made from a folder's files alone.

python -m xray_lightning.evaluation.report outputs/sweeps/<name>
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from xray_lightning.artifacts import atomic_write, read_json
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.cascade_table import CascadeRow
from xray_lightning.evaluation.report import captions, evidence_tables, run_tables, tables, words
from xray_lightning.evaluation.report.cascade import cascade_page
from xray_lightning.evaluation.report.cascade_tables import cascades_table
from xray_lightning.evaluation.report.data import (
    Comparison,
    EnsembleLine,
    Run,
    embedded,
    figure_files,
    read_comparisons,
    read_ensembles,
    read_run,
    read_sweep,
    side_of,
    status_of,
)
from xray_lightning.evaluation.report.tables import Table
from xray_lightning.evaluation.runs import gather_cascades

MOST_EMBEDDED = 12  # runs whose figures go into the report of their sweep
BAD_SHOWN = 50
INTERVAL = re.compile(r"\(?−?\d+\.\d+(?:–| to )−?\d+\.\d+\)?")


def write_report(folder: Path) -> Path:
    """Writes report.html of a run folder (metrics.json), of a two-stage system (cascade.json) or of a sweep folder
    (runs with status.json), and says where.

    Raises XRayError where the folder is none of them.
    """
    template = "page.html.j2"
    if (folder / "cascade.json").exists():
        page, template = cascade_page(folder), "cascade.html.j2"
    elif (folder / "metrics.json").exists():
        page = _page(folder, [read_run(folder)], [], [], [], is_sweep=False)
    elif any(folder.glob("*/status.json")):
        made = read_comparisons(folder), read_ensembles(folder), gather_cascades(folder)
        page = _page(folder, read_sweep(folder), *made, is_sweep=True)
    else:
        raise XRayError(_refusal(folder))
    environment = Environment(
        loader=PackageLoader("xray_lightning.evaluation", "report"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    script = environment.get_template("page.js").render()
    digest = b64encode(sha256(script.encode()).digest()).decode()  # the browser runs this script and no other
    html = environment.get_template(template).render(page, script=Markup(script), script_digest=digest)
    with atomic_write(folder / "report.html", "wb") as file:
        file.write(html.encode("utf-8", "replace"))  # names of files may hold what is no Unicode
    return folder / "report.html"


def unbroken(text: str) -> Markup:
    """The text for a page whose lines do not break within an interval."""
    return Markup(INTERVAL.sub(r'<span class="unbroken">\g<0></span>', str(escape(text))))


def _refusal(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no folder. Give one that train.py or test.py wrote, such as outputs/sweeps/<name>."
    status = read_json(folder / "status.json")
    if status is not None:
        reason = f": {status['error']}" if status.get("error") else ""
        return f"{folder} is a run without a score, {status.get('state', 'broken')}{reason}. Run it again."
    return (
        f"{folder} holds neither a run (metrics.json, or cascade.json) nor the runs of a sweep (<run>/status.json). "
        "Give the folder of one, such as outputs/sweeps/<name>."
    )


def _page(
    folder: Path,
    runs: Sequence[Run],
    comparisons: Sequence[Comparison],
    ensembles: Sequence[EnsembleLine],
    cascades: Sequence[CascadeRow],
    *,
    is_sweep: bool,
) -> dict[str, Any]:
    """What the template shows."""
    done = [run for run in runs if run.record]
    embeds = len(runs) <= MOST_EMBEDDED
    sections = [_section(run, is_sweep, embeds) for run in done]
    links = {section["run"].row.run: f"#{quote(section['id'])}" for section in sections} if is_sweep else {}
    names = {run.row.run: run.name for run in runs}
    whole_in = f"each run's {'section' if embeds else 'own report'}"
    return {
        "title": f"{'Sweep' if is_sweep else 'Run'} {folder.resolve().name}",
        "is_sweep": is_sweep,
        "side": side_of([run.record for run in done]),
        "embeds": embeds,
        "when": words.when([*(run.status for run in runs), *(status_of(folder / c.run) for c in cascades)]),
        "summary": words.summary(runs, comparisons, cascades),
        "facts": words.facts(runs, cascades),
        "method": next((m for run in done if (m := words.interval_method(run.record))), ""),
        "results": _filled(tables.results_table(runs, links)),
        "cascades": _filled(cascades_table(cascades, _reports(folder, cascades))),
        "ensembles": _filled(tables.ensembles_table(ensembles)),
        "comparisons": _filled(tables.comparisons_table(comparisons, names)),
        "comparable": is_sweep and len(done) > len({run.row.dataset for run in done}),
        "figures_of_sweep": [
            {
                "title": captions.title_of(f.stem),
                "alt": captions.sweep_alt_text(f.stem, runs),
                "src": embedded(f),
                "is_gallery": False,
                "caution": "",
            }
            for f in (figure_files(folder) if is_sweep else [])
        ],
        "operating": _filled(evidence_tables.operating_table(done, whole_in if is_sweep else "")),
        "calibration": _filled(evidence_tables.calibration_table(done)),
        "subgroups": _filled(evidence_tables.subgroups_table(done)),
        "sections": sections,
        "failed": [
            *((run.name, run.row.error) for run in runs if run.row.error),
            *((cascade.run, cascade.error) for cascade in cascades if cascade.error),
        ],
    }


def _reports(folder: Path, cascades: Sequence[CascadeRow]) -> dict[str, str]:
    """Where each cascade's own page lies."""
    own = [cascade.run for cascade in cascades if (folder / cascade.run / "report.html").is_file()]
    return {run: f"{quote(run)}/report.html" for run in own}


def _filled(table: Table) -> Table | None:
    return table if table.lines else None


def _section(run: Run, is_sweep: bool, embeds: bool) -> dict[str, Any]:
    """A run's part of the page."""
    record = run.record
    figures = figure_files(run.folder) if embeds else []
    bad = list((record.get("bad_images") or {}).items())
    own = run.folder / "report.html"
    return {
        "run": run,
        "id": f"run-{run.row.run}",
        "report": f"{quote(run.row.run)}/report.html" if is_sweep and own.is_file() else "",
        "folder": run.folder,
        "figures": [
            {
                "title": captions.title_of(f.stem),
                "alt": captions.alt_text(f.stem, run),
                "src": embedded(f),
                "is_gallery": f.stem in captions.GALLERIES,
                "caution": captions.caution(f.stem, run),
            }
            for f in figures
        ],
        "tables": {
            "Operating points": _filled(evidence_tables.operating_table([run])) if is_sweep else None,
            "Confusion matrix": _filled(run_tables.confusion_table(record)),
            "Each class": _filled(run_tables.class_table(record)),
            "Every metric": run_tables.metrics_table(record),
            "Images": _filled(run_tables.counts_table(record)),
        },
        "audit": words.audited(record),
        "bad": bad[:BAD_SHOWN],
        "more_bad": max(0, len(bad) - BAD_SHOWN),
        "environment": run.facts,
    }
