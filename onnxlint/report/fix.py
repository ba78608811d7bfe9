"""Result of a fix, as text."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from onnxlint.fixes.results import FixReport, Left
from onnxlint.report._common import LIMIT, disarmed
from onnxlint.text import counted, listed, printable, shortened

_OPTION = re.compile(r"(?<![\w-])--[a-z]")


def render_fix(report: FixReport, output: str | None, by: str = "fix") -> str:
    """The summary of a fix: patches by rule with their proof, remaining findings with reasons, and the verification.

    Args:
        report: The report of the fix.
        output: Path of the result; None if nothing was written.
        by: The command that prints it. Options are those of `onnxlint fix`: another command says so.
    """
    lines = [printable(report.model)]
    lines += [f"  {text}" for text in report.asked]
    lines += _table(report)
    left = list(_left(report))
    lines += left
    if by != "fix" and any(_OPTION.search(line) for line in left):
        lines.append(f"  to use options that are named here: run 'onnxlint fix' with them, and {by} its result")
    lines += _simplified(report)
    for back in report.rolled_back:
        lines.append(f"  rolled back: {back.finding.code} at {printable(back.finding.location.place)}: {back.why}")
    assumed = [
        *map(printable, report.conditions),
        *([f"sizes of at least 1{' (--allow-empty keeps 0)' if by == 'fix' else ''}"] * report.has_minimum),
    ]
    if assumed:
        lines.append(f"  assumes  {' and '.join(assumed)}; written into the model's metadata")
    lines.append(f"  verified {_verified(report)}")
    before, after = report.nodes
    size = f"{counted(before, 'node')} → {after:,}" if before != after else counted(after, "node")
    tail = f", {len(report.left)} left" if report.left else ""
    wrote = f"; wrote {printable(output)}" if output is not None else ""
    lines += ["", f"{_done(report)}{tail} ({size}, {report.seconds:.2f} s){wrote}"]
    return disarmed("".join(f"{shortened(line, LIMIT)}\n" for line in lines))


def _done(report: FixReport) -> str:
    shorter = counted(len(report.shortened), "chain")
    if report.applied:
        return f"Fixed {counted(len(report.applied), 'finding')}{f', shortened {shorter}' if report.shortened else ''}"
    return f"Shortened {shorter}" if report.shortened else "Nothing to fix"


def _table(report: FixReport) -> Iterator[str]:
    fixed: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    measured = report.verification is not None and report.verification.verified
    for applied in report.applied:
        proof = f"{applied.proof}, and measured" if applied.is_rounded and measured else applied.proof
        fixed[applied.finding.code, applied.finding.name][proof] += 1
    left = Counter((one.finding.code, one.finding.name) for one in report.left)
    shortened = Counter((one.finding.code, one.finding.name) for one in report.shortened)
    rows = [("rule", "fixed", "left", "evidence")]
    for code, name in sorted(fixed.keys() | left.keys()):
        proofs = fixed[code, name]
        how = ", ".join(proof if len(proofs) == 1 else f"{n} {proof}" for proof, n in proofs.items())
        if shortened[code, name]:
            how += f"{', ' * bool(how)}{shortened[code, name]} of those left shortened"
        rows.append((f"{code} {name}", str(sum(proofs.values())), str(left[code, name]), printable(how)))
    if len(rows) > 1:
        width = max(len(row[0]) for row in rows)
        yield from (f"  {rule:<{width}}  {n:>5}  {m:>4}  {how}".rstrip() for rule, n, m, how in rows)


def _left(report: FixReport) -> Iterator[str]:
    grouped: dict[tuple[str, str], list[Left]] = defaultdict(list)
    taken_back = {id(one.finding) for one in report.rolled_back}
    for left in report.left:
        if id(left.finding) in taken_back:
            continue  # said below
        grouped[left.finding.code, left.why].append(left)
    for (code, why), ones in sorted(grouped.items()):
        places = ", ".join(printable(one.finding.location.place) for one in ones[:3])
        more = f" and {len(ones) - 3} more" if len(ones) > 3 else ""
        yield f"  left: {code} at {places}{more}"
        if why:
            yield f"        {printable(why)}"


def _simplified(report: FixReport) -> Iterator[str]:
    """What onnxsim did beyond our own rules."""
    done = report.simplified
    if done is None:
        return
    if done.refused:
        yield f"  onnxsim  not used: {printable(done.refused)}"
        return
    gone = [f"{count} {printable(op)}" for op, count in done.removed if count > 0]
    new = [f"{-count} {printable(op)}" for op, count in done.removed if count < 0]
    said = [f"removed {listed(gone, 6)}"] if gone else []
    said += [f"added {listed(new, 6)}"] if new else []
    yield f"  onnxsim  {'; '.join(said) or 'removed nothing'} beyond the rules"


def _verified(report: FixReport) -> str:
    if not report.changed:
        return "not needed: the model is unchanged"
    if report.verification is None:
        return "no: the models were not run (--no-verify)"
    left_out = f"; not compared: {'; '.join(report.not_compared)}" if report.not_compared else ""
    return f"{report.verification.summary()}{left_out}"
