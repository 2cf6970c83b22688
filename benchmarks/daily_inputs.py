"""What people feed the product: every input of the list is built from scratch and run again, with a verdict a line.

    python benchmarks/daily_inputs.py [--only GROUP ...] [--json] [--out benchmarks/results]

Names, sources (a local web server, a local SeaweedFS), manifests, camera files, hostile text, machines' habits,
pictures and outputs go through the `lyra` command: planned by a dry run where planning decides, else run whole with the
smallest worlds of the baseline and no Ray. Rules checked for each: no traceback, nothing swapped, one reject a bad row,
the rest of the batch goes on, the second run starts nothing. Prints a Markdown table; the exit code is 1 if a case
fails. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from daily_desk import Desk, Finding, environment_of
from daily_planned import all_planned
from daily_runs import RUNS
from results import RESULTS, cpu_name

GROUPS = (
    *("Names", "Sources", "Manifests", "Camera files", "Data is never markup", "Environment", "Pictures", "Output"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=GROUPS, help="this group; may be repeated")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--out", type=Path, help="also write the table here, as daily-inputs-DATE.md")
    arguments = parser.parse_args()
    started = time.monotonic()
    root = Path(tempfile.mkdtemp(prefix="lyra-daily-"))
    desk = Desk(root, environment_of(root / "home"))
    findings = []
    try:
        for finding in cases(desk, arguments.only or GROUPS):
            findings.append(finding)
            print(f"{'ok  ' if not finding.faults else 'FAIL'} {finding.group}: {finding.case}", file=sys.stderr)
            for fault in finding.faults:
                print(f"     {fault}", file=sys.stderr)
    finally:
        desk.lyra("down")
        shutil.rmtree(root, ignore_errors=True)
    report = table(findings, time.monotonic() - started, root)
    print(json.dumps([asdict(finding) for finding in findings], indent=2) if arguments.json else report)
    if arguments.out is not None:
        name = f"daily-inputs-{dt.datetime.now(dt.UTC).date().isoformat()}.md"
        (arguments.out or RESULTS).joinpath(name).write_text(report + "\n", encoding="utf-8")
    return 1 if any(finding.faults for finding in findings) else 0


def cases(desk: Desk, groups: tuple[str, ...] | list[str]) -> Iterator[Finding]:
    """The lines of the table, as they are found."""
    planned = all_planned()
    for group in GROUPS:
        if group not in groups:
            continue
        for case in planned:
            if case.group == group:
                yield guarded(Finding(group=group, case=case.case), lambda case=case: case.run(desk))
        for home, name, run in RUNS:
            if home == group:
                finding = Finding(group=group, case=name)
                yield guarded(finding, lambda f=finding, run=run: run(desk, desk.folder(f"{f.group} {f.case}"), f) or f)


def guarded(finding: Finding, work: Callable[[], Finding]) -> Finding:
    """What a case itself stumbles over is a fault of that case, and the others go on."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  of whatever kind
        finding.faults.append(f"{type(error).__name__}: {error}")
        return finding


def table(findings: list[Finding], seconds: float, root: Path) -> str:
    """Markdown: where, when, and a line a case."""
    good = sum(not finding.faults for finding in findings)
    lines = [
        f"# Daily inputs, {dt.datetime.now(dt.UTC).date().isoformat()}",
        "",
        f"{good} of {len(findings)} cases kept every rule, in {seconds:.0f} s on {len(os.sched_getaffinity(0))} cores.",
        f"Processor: {cpu_name()}. Command: `python benchmarks/daily_inputs.py --out benchmarks/results`.",
        "",
        "| group | case | exit code | worlds | rejects | first sentence told | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in findings:
        verdict = "ok" if not found.faults else "FAIL: " + "; ".join(found.faults)
        cells = (found.group, found.case, found.code, found.made, found.rejects, cut(found.told, root), verdict)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def cut(sentence: str, root: Path) -> str:
    """A sentence for a cell: without this run's folder, and not endless."""
    plain = sentence.replace(f"{root}/", "").encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= 220 else f"{plain[:220]}..."


if __name__ == "__main__":
    sys.exit(main())
