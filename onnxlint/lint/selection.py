"""Which rules run on a model, and why others do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from onnxlint.errors import OnnxlintError
from onnxlint.lint.configuration import Config, Settings
from onnxlint.lint.finding import Severity
from onnxlint.lint.registry import Registry
from onnxlint.lint.rule import Options, Rule, Status

_EXACT = 7
"""How specific a code or a name is: more than the longest prefix, a code of six characters."""


class Selection(NamedTuple):
    """The rules that a configuration selects.

    Attributes:
        rules: In the order of their codes.
        options: Options of the rules.
        severities: Overrides, by code.
        notes: What the user should know about the selection: one line each.
    """

    rules: tuple[type[Rule], ...]
    options: Options
    severities: tuple[tuple[str, Severity], ...] = ()
    notes: tuple[str, ...] = ()

    def without(self, ignored: Iterable[type[Rule]]) -> tuple[type[Rule], ...]:
        """The selected rules but those of `per-file-ignores`."""
        left_out = set(ignored)
        return tuple(rule for rule in self.rules if rule not in left_out)


def select(registry: Registry, config: Config) -> Selection:
    """Choose rules as a configuration says.

    Without `select`, those are the stable rules that are on by default. A `select` of the command line replaces all that
    the file says about selection; its other options come on top of the file's. Within one place the more specific
    selector wins (`SHP001` over `SHP` over `ALL`), and of two equal ones `ignore`.

    A rule about targets needs one of them named; a rule that reads weights needs `--weights` or its own code.

    Raises:
        OnnxlintError: A selector matches no rule, a target is unknown, or no rule is left.
    """
    chosen = {rule for rule in registry if rule.default and rule.status is Status.STABLE}
    named: dict[type[Rule], str] = {}  # rules that were asked for by code, name or prefix, and in which words
    exact: set[type[Rule]] = set()
    notes: dict[str, None] = {}
    for layer in config.layers:
        if layer.select is not None:
            chosen, named, exact = set(), {}, set()
            if not layer.select:
                raise OnnxlintError(f"{layer.name('select')} names no rule; leave it out to run the default ones")
        on = list(_expanded(registry, layer, "select", layer.select or ()))
        on += _expanded(registry, layer, "extend-select", layer.extend_select)
        off = list(_expanded(registry, layer, "ignore", layer.ignore))
        notes.update(dict.fromkeys([*_renamed(on + off), *_incomplete(on + off)]))
        strength = _strongest(off)
        for rule, level, selector in on:
            if level <= strength.get(rule, 0) or (rule.status is Status.PREVIEW and level < _EXACT):
                continue
            chosen.add(rule)
            named[rule] = selector
            if level == _EXACT:
                exact.add(rule)
        wanted = _strongest(on)
        for rule, level in strength.items():
            if level >= wanted.get(rule, 0):
                chosen.discard(rule)
                named.pop(rule, None)
    targets = _targets(config)
    weights = config.weights
    running = {rule for rule in chosen if _runs(rule, config, targets, weights is not False and rule in exact)}
    notes.update(dict.fromkeys(_left_out([rule for rule in named if rule not in running], targets)))
    notes.update({f"{r.code} ({r.name}) is deprecated": None for r in named if r.status is Status.DEPRECATED})
    if not running:
        raise OnnxlintError(f"no rule is left to run{''.join(f'; {note}' for note in notes)}")
    reads = any(rule.needs_weights for rule in running)
    return Selection(
        tuple(rule for rule in registry if rule in running),
        Options(targets, config.min_opset, weights=bool(weights) or reads),
        tuple(_severities(registry, config)),
        tuple(notes),
    )


def ignored_rules(registry: Registry, config: Config, path: str) -> set[type[Rule]]:
    """Rules that `per-file-ignores` turns off for a model.

    Raises:
        OnnxlintError: A selector matches no rule.
    """
    selectors = config.ignored_in(path)
    return {rule for rule, _, _ in _expanded(registry, config.file, "per-file-ignores", selectors)}


def check_selectors(registry: Registry, config: Config) -> None:
    """Raise OnnxlintError for an unknown rule in `per-file-ignores`, whether or not its glob matches anything."""
    for _, selectors in config.file.per_file_ignores:
        list(_expanded(registry, config.file, "per-file-ignores", selectors))


_Match = tuple[type[Rule], int, str]


def _expanded(registry: Registry, layer: Settings, key: str, selectors: Iterable[str]) -> Iterator[_Match]:
    """(rule, how specific, selector) of each rule that a list of selectors matches."""
    for selector in selectors:
        try:
            rules = registry.expand(selector)
        except OnnxlintError as error:
            raise OnnxlintError(f"{layer.name(key)}: {error}") from None
        is_prefix = len(rules) > 1 or rules[0].code != selector.upper()
        is_prefix = is_prefix and rules[0].code.startswith(selector.upper())
        level = 1 if selector == "ALL" else 1 + len(selector) if is_prefix else _EXACT
        for rule in rules:
            yield rule, level, selector


def _strongest(matches: Iterable[_Match]) -> dict[type[Rule], int]:
    levels: dict[type[Rule], int] = {}
    for rule, level, _ in matches:
        levels[rule] = max(level, levels.get(rule, 0))
    return levels


def _renamed(matches: Iterable[_Match]) -> Iterator[str]:
    for rule, _, selector in matches:
        if selector in rule.aliases:
            yield f"{selector} is now called {rule.code} ({rule.name})"


def _incomplete(matches: Iterable[_Match]) -> Iterator[str]:
    """Which rules a code that lacks digits stands for: it may have been meant as a whole one."""
    codes: dict[str, list[str]] = {}
    for rule, _, selector in matches:
        if rule.code.startswith(selector.upper()) and selector[-1].isdigit() and len(selector) < len(rule.code):
            codes.setdefault(selector, []).append(rule.code)
    yield from (f"{selector} stands for {', '.join(found)}" for selector, found in codes.items())


def _runs(rule: type[Rule], config: Config, targets: tuple[str, ...], is_exact: bool) -> bool:
    if rule.targets and not rule.targets.intersection(targets):
        return False
    return not rule.needs_weights or bool(config.weights) or is_exact


def _left_out(rules: list[type[Rule]], targets: tuple[str, ...]) -> Iterator[str]:
    """Why rules that the user selected do not run: one line for each reason."""
    for_target: dict[str, list[str]] = {}
    for_weights = []
    for rule in sorted(rules, key=lambda rule: rule.code):
        if rule.targets and not rule.targets.intersection(targets):
            for_target.setdefault(" or ".join(sorted(rule.targets)), []).append(rule.code)
        else:
            for_weights.append(rule.code)
    for names, codes in for_target.items():
        yield f"{_did_not_run(codes)}: only for --target {names}"
    if for_weights:
        yield f"{_did_not_run(for_weights)}: reads weights, which --weights allows"


def _did_not_run(codes: list[str]) -> str:
    return f"{', '.join(codes)} did not run"


def _targets(config: Config) -> tuple[str, ...]:
    """The targets that the user named, by their own names: rules know no aliases."""
    if not config.targets:
        return ()
    from onnxlint.lint.targets import load

    try:
        return tuple(dict.fromkeys(load(target).name for target in config.targets))
    except OnnxlintError as error:
        name = "--target" if config.command.targets is not None else config.file.name("targets")
        raise OnnxlintError(f"{name}: {error}") from None


def _severities(registry: Registry, config: Config) -> Iterator[tuple[str, Severity]]:
    for layer in config.layers:
        levels = dict(layer.severity)
        matches = _expanded(registry, layer, "severity", levels)
        for rule, _, selector in sorted(matches, key=lambda match: match[1]):  # the most specific comes last and wins
            yield rule.code, levels[selector]
