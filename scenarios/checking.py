"""`check`: is what a run's directory holds sound, and can it be? Read-only, beside live nodes too.

Structure first: every page of the LMDB files. Then every saga, by itself and against its journal; then the services'
ledgers, outboxes and books, and both databases against each other, as they stood at one instant.
"""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from persistence.backup import one_instant
from persistence.environment import Environment
from persistence.transaction import Transaction
from persistence.verify import verify_live
from scenarios import library
from scenarios.check_sagas import check_orphans, check_sagas
from scenarios.check_services import ServiceCheck
from scenarios.findings import Findings
from scenarios.run_directory import has_database, scenario_of
from scenarios.scenario import COORDINATOR, SERVICES, Scenario, ScenarioError

ROLES = (COORDINATOR, SERVICES)
DAMAGED = "stop the node, and restore the directory from a backup"


def check_directory(data: Path, reference: str | None = None) -> Findings:
    """Check the databases in a directory; `reference` names the scenario if the directory does not.

    Raises ScenarioError or StorageError if there is nothing that could be checked.
    """
    roles = [role for role in ROLES if has_database(data, role)]
    if not roles:
        raise ScenarioError(f"{data}: there is no node's database here")
    findings = Findings()
    findings.notes += [f"there is no database of the {role} here" for role in ROLES if role not in roles]
    scenario = _scenario(data, reference, findings)
    roles = [role for role in roles if _is_sound(data, role, findings)]
    with ExitStack() as stack:
        environments = [Environment.open_read_only(data / role) for role in roles]
        for environment in environments:
            stack.callback(environment.close)
        if environments:
            reads = stack.enter_context(one_instant(environments))
            _check_contents(dict(zip(roles, reads, strict=True)), scenario, findings)
    return findings


def _scenario(data: Path, reference: str | None, findings: Findings) -> Scenario | None:
    if reference is not None:
        return library.find(reference)
    try:
        return scenario_of(data)
    except ScenarioError as error:
        findings.notes.append(f"whose sagas these are is not known, so none is replayed and no ledger read: {error}")
        return None


def _is_sound(data: Path, role: str, findings: Findings) -> bool:
    """Whether LMDB may touch the file. A damaged page under a memory map can end the process."""
    findings.looked_at["databases"] += 1
    problems = verify_live(data / role)
    if problems is None:
        findings.notes.append(f"{role}: its node commits too often for a look at every page: a sample was checked")
        return True
    for problem in problems:
        findings.add(role, "structure", f"{data / role / 'data.mdb'}: {problem}", DAMAGED)
    return not problems


def _check_contents(reads: dict[str, Transaction], scenario: Scenario | None, findings: Findings) -> None:
    coordinator, services = reads.get(COORDINATOR), reads.get(SERVICES)
    against = None
    if services is not None and scenario is not None:
        against = ServiceCheck(services, coordinator, scenario, findings)
    if coordinator is not None:
        sagas = {} if scenario is None else scenario.domain.sagas
        for record, saga in check_sagas(coordinator, sagas, findings):
            if against is not None and saga is not None:
                against.compare(record, saga)
        check_orphans(coordinator, findings)
    if against is not None:
        against.finish()


# --- what is told ----------------------------------------------------------------------------------------------


def findings_lines(data: Path, findings: Findings) -> list[str]:
    """A line a finding, then what was looked at and the verdict."""
    looked_at = ", ".join(f"{count:,} {what}" for what, count in findings.looked_at.items())
    total = findings.total
    verdict = "sound" if not total else "1 finding" if total == 1 else f"{total:,} findings"
    notes = [f"({note})" for note in findings.notes]
    return [*map(str, findings.shown), *findings.left_out(), *notes, f"{data}: {looked_at}: {verdict}"]


def findings_json(data: Path, findings: Findings) -> dict[str, Any]:
    return {
        "data": str(data),
        "is_sound": not findings.total,
        "total": findings.total,
        "looked_at": dict(findings.looked_at),
        "findings": [asdict(finding) for finding in findings.shown],
        "notes": findings.notes,
    }
