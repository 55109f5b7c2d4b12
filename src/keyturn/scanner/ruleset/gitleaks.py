"""Rule files of gitleaks, read so that they find here what they find there.

A file is a set of rules and allowlists, and may extend another by path, or gitleaks' own default file.
That default file is not ours to ship: who extends it gives their copy.

    extended and extending rule of one id   the extending one's regex, path, entropy, group and description win when
                                            they are set; keywords and allowlists of both count; what is required
                                            is the extended one's
    targetRules                             counts in the file that is read, not in those that it extends
    depth                                   a file extends one that extends one; from there on nothing is followed

What is unknown is passed over, as gitleaks does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec.structs import replace

from keyturn.errors import InputError
from keyturn.scanner.ruleset.loose import Table, parse
from keyturn.scanner.ruleset.model import Allowlist, Required, Rule, Ruleset

EXTEND_DEPTH: Final = 2
WINDOW: Final = 128 << 10
"""Most bytes of a match that its expression does not bound: gitleaks reads in fragments that are not longer."""
INLINE_ALLOW: Final = ("gitleaks:allow",)
_CONDITIONS: Final[dict[str, Literal["any", "all"]]] = {"": "any", "OR": "any", "||": "any", "AND": "all", "&&": "all"}
_TARGETS: Final[dict[str, Literal["secret", "match", "line"]]] = {
    "": "secret",
    "secret": "secret",
    "match": "match",
    "line": "line",
}


def read_gitleaks(
    text: str,
    *,
    name: str,
    read_extended: Callable[[str], str] | None = None,
    default: Callable[[], str] | None = None,
) -> Ruleset:
    """Return the rules of a gitleaks file.

    `read_extended` returns the text of the file at the path that `[extend]` names.
    `default` returns the text of gitleaks' default file, for `useDefault`.

    Raises:
        InputError: the file, or one it extends, is malformed or cannot be had; it names the rule.

    """
    reader = _Reader(read_extended, default)
    file = reader.file(text, name, 0)
    for rule_id, allowlists in file.targeted.items():
        if rule_id not in file.rules:
            raise InputError(f"{name}: an allowlist targets the rule {rule_id}, and there is none", field=name)
        rule = file.rules[rule_id]
        file.rules[rule_id] = replace(rule, allow=(*rule.allow, *allowlists))
    if not file.rules:
        raise InputError(f"{name} holds no rule", field=name, hint="a rule file of gitleaks has [[rules]] or [extend]")
    rules = tuple(_finished(rule, file, name) for rule in file.rules.values())
    return Ruleset(name=name, rules=rules, allow=tuple(file.allow), inline_allow=INLINE_ALLOW)


@dataclass(slots=True)
class _File:
    """What a file and those it extends say; a rule without a description has an empty title."""

    rules: dict[str, Rule] = field(default_factory=dict)
    allow: list[Allowlist] = field(default_factory=list)
    targeted: dict[str, list[Allowlist]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a file and what it extends."""

    read_extended: Callable[[str], str] | None
    default: Callable[[], str] | None

    def file(self, text: str, name: str, depth: int) -> _File:
        top = parse(text, name)
        file = _File()
        for table in top.tables("rules"):
            rule = _rule(table)
            file.rules[rule.id] = rule
        for table in _allowlist_tables(top):
            allowlist = _allowlist(table)
            for rule_id in (targets := table.texts("targetrules")):
                file.targeted.setdefault(rule_id, []).append(allowlist)
            if not targets:
                file.allow.append(allowlist)
        extend = top.table("extend")
        if extend is not None and depth < EXTEND_DEPTH:
            self._extend(file, extend, depth)
        return file

    def _extend(self, file: _File, extend: Table, depth: int) -> None:
        path, use_default = extend.text("path"), extend.flag("usedefault")
        if path and use_default:
            raise extend.error("a file extends a path or the default, not both")
        if path:
            extended = self.file(self._by_path(extend, path), path, depth + 1)
        elif use_default:
            extended = self.file(self._default(extend), "gitleaks' default file", depth + 1)
        else:
            return
        disabled = set(extend.texts("disabledrules"))
        for rule_id, inherited in extended.rules.items():
            if rule_id not in disabled:
                own = file.rules.get(rule_id)
                file.rules[rule_id] = _merged(inherited, own) if own else inherited
        file.allow.extend(extended.allow)

    def _by_path(self, extend: Table, path: str) -> str:
        if self.read_extended is None:
            raise extend.error(f"it extends {path}, and files that are extended are not read here")
        return self.read_extended(path)

    def _default(self, extend: Table) -> str:
        if self.default is None:
            raise InputError(
                f"{extend.where}: it extends gitleaks' default rules, which do not come with Keyturn",
                field="usedefault",
                hint="save config/gitleaks.toml of gitleaks, and name it by --gitleaks-default",
            )
        return self.default()


def _rule(table: Table) -> Rule:
    rule_id = table.text("id")
    if not rule_id.strip():
        raise table.error("the rule has no id")
    named = table.called(f"rule {rule_id} of {table.where.partition(',')[0]}")
    return Rule(
        id=rule_id,
        title=named.text("description"),
        regex=_regex(named, "regex", named.text("regex")),
        path=_regex(named, "path", named.text("path")),
        secret_group=named.whole("secretgroup") or 0,
        entropy=named.number("entropy"),
        keywords=tuple(dict.fromkeys(word.lower() for word in named.texts("keywords"))),
        component=named.flag("skipreport"),
        allow=tuple(_allowlist(one) for one in _allowlist_tables(named)),
        requires=tuple(_required(one) for one in named.tables("required")),
    )


def _allowlist_tables(table: Table) -> list[Table]:
    tables, old = table.tables("allowlists"), table.table("allowlist")
    if old is not None and tables:
        raise table.error("`allowlist` is the old form of `allowlists`; only one of them can be used")
    return tables if old is None else [old]


def _allowlist(table: Table) -> Allowlist:
    condition, target = table.text("condition"), table.text("regextarget")
    if condition.upper() not in _CONDITIONS:
        raise table.error(f"condition is {condition}; it has to be OR or AND")
    if target not in _TARGETS:
        raise table.error(f"regexTarget is {target}; it has to be secret, match or line")
    allowlist = Allowlist(
        description=table.text("description"),
        condition=_CONDITIONS[condition.upper()],
        paths=tuple(_regex(table, "paths", one) for one in table.texts("paths")),
        commits=tuple(dict.fromkeys(one.strip().lower() for one in table.texts("commits"))),
        regexes=tuple(_regex(table, "regexes", one) for one in table.texts("regexes")),
        target=_TARGETS[target],
        stopwords=tuple(dict.fromkeys(one.lower() for one in table.texts("stopwords"))),
    )
    if not (allowlist.paths or allowlist.commits or allowlist.regexes or allowlist.stopwords):
        raise table.error("an allowlist needs commits, paths, regexes or stopwords")
    return allowlist


def _required(table: Table) -> Required:
    if not table.text("id"):
        raise table.error("what is required has no id")
    return Required(
        rule=table.text("id"), within_lines=table.whole("withinlines"), within_columns=table.whole("withincolumns")
    )


def _merged(inherited: Rule, own: Rule) -> Rule:
    return replace(
        inherited,
        title=own.title or inherited.title,
        entropy=own.entropy or inherited.entropy,
        secret_group=own.secret_group or inherited.secret_group,
        regex=own.regex or inherited.regex,
        path=own.path or inherited.path,
        keywords=tuple(dict.fromkeys((*inherited.keywords, *own.keywords))),
        allow=(*inherited.allow, *own.allow),
    )


def _finished(rule: Rule, file: _File, name: str) -> Rule:
    """Check what can only be checked when everything is together, and fill in what the engine needs."""
    if not rule.regex and not rule.path:
        raise InputError(f"rule {rule.id} of {name} has neither regex nor path", field=rule.id)
    groups = _compiled(rule.regex).groups if rule.regex else 0
    if not 0 <= rule.secret_group <= (groups if rule.regex else rule.secret_group):
        raise InputError(
            f"rule {rule.id} of {name}: secretGroup is {rule.secret_group}, and its regex has {groups} groups",
            field=rule.id,
        )
    for one in rule.requires:
        if one.rule not in file.rules:
            raise InputError(f"rule {rule.id} of {name} requires {one.rule}, and there is none", field=rule.id)
    return replace(
        rule,
        title=rule.title or rule.id,
        window=WINDOW,
        generic="generic" in rule.id.lower(),
    )


def _regex(table: Table, key: str, regex: str) -> str:
    r"""Check that RE2 takes an expression; a NUL is written as `\x00`, since compilers end at one."""
    regex = regex.replace("\0", r"\x00")
    if not regex:
        return ""
    import re2

    try:
        _compiled(regex)
    except re2.error as error:
        raise table.error(f"{key} is no regular expression that RE2 takes: {_told(error)}") from None
    return regex


def _compiled(regex: str) -> Any:  # noqa: ANN401 -- re2 ships no types
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return re2.compile(regex.encode("utf-8", "replace"), options)


def _told(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
