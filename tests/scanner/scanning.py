"""What tests of the scanner share: a few rules, a source in memory, and findings."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cache
from typing import Any

from msgspec import structs

from keyturn.kernel.secret import Secret
from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.examination import Hit
from keyturn.scanner.judging import Judges
from keyturn.scanner.model import Batch, Context, Document, Finding, Notice, Place, Report
from keyturn.scanner.policy import default_policy
from keyturn.scanner.ruleset.model import Kind, Rule, Ruleset
from keyturn.scanner.running import ScanSettings, scan
from keyturn.wire.certainty import Certainty

TODAY = date(2026, 6, 1)
SHOP = Rule(
    id="shop-key",
    title="Shop key",
    provider="shop",
    regex=r"\b(shop_[0-9a-z]{24})\b",
    keywords=("shop_",),
    revoke="https://shop.example.com/keys",
)
SHOP_TEST = Rule(
    id="shop-test-key", title="Shop test key", provider="shop", regex=r"\b(tshop_[0-9a-z]{24})\b", environment="test"
)
SITE = Rule(
    id="shop-site-key", title="Site key", provider="shop", regex=r"\b(site_[0-9a-z]{24})\b", kind=Kind.PUBLISHABLE
)
NAMED = Rule(id="generic-secret", title="Named secret", regex=r"secret\s*=\s*(\S{8,80})", generic=True)
BLOCK = Rule(id="block-key", title="Key block", regex=r"(?s)(-----BEGIN KEY-----.{10,500}-----END KEY-----)")
NETRC = Rule(id="netrc-file", title="A .netrc file", path=r"(^|/)\.netrc$")
RULES = Ruleset(name="tests", rules=(SHOP, SHOP_TEST, SITE, NAMED, BLOCK, NETRC), inline_allow=("other:allow",))


def shop_key(letter: str = "a") -> str:
    """Return a key that the rule `shop-key` finds."""
    return "shop_" + (letter + "7") * 12


@cache
def engine() -> Engine:
    """Return an engine of the few rules."""
    return open_engine(RULES, cache=None)


class MemorySource:
    """Documents in memory, so many to a batch; `before` is called in whichever process reads one."""

    def __init__(
        self, files: dict[str, bytes], size: int = 2, before: Callable[[str], None] | None = None, **given: Any
    ) -> None:
        self._files, self._size, self._before, self._given = files, size, before, given

    def batches(self) -> Iterator[Batch | Notice]:
        names = list(self._files)
        for at in range(0, len(names), self._size):
            yield tuple(names[at : at + self._size])

    def documents(self, batch: Batch) -> Iterator[Document | Notice]:
        for name in batch:
            assert isinstance(name, str)
            if self._before is not None:
                self._before(name)
            yield Document(self._files[name], name, **self._given)


def judges(**given: Any) -> Judges:
    """Return the judges of a run without files."""
    return Judges(**{"policy": default_policy(), "today": TODAY, **given})


def scanned(files: Mapping[str, bytes | str], *, jobs: int | None = 1, size: int = 2, **given: Any) -> Report:
    """Return the report of a scan of these files."""
    raw = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    return scan(MemorySource(raw, size), engine(), ScanSettings(judges=judges(**given), jobs=jobs, progress=False))


def finding(rule: Rule = SHOP, secret: str | None = None, path: str = "src/app.py", **given: Any) -> Finding:
    """Return a finding of a rule."""
    text = secret or shop_key()
    place = given.pop("place", None) or Place(path, given.pop("line", 3), 8, given.pop("end_line", 3))
    made = Finding(
        rule=rule,
        certainty=Certainty.PROVIDER,
        secret=Secret(text),
        masked="shop_…(29 characters)",
        fingerprint="ab" * 20,
        place=place,
        contexts=frozenset({Context.SOURCE}),
        environment=rule.environment,
        line_text="key = shop_…(29 characters)",
        verdict="block",
    )
    return structs.replace(made, **given)


def hit(rule: Rule = SHOP, secret: bytes = b"", path: str = "src/app.py", line: int = 1, **given: Any) -> Hit:
    """Return a hit of a rule."""
    content = secret or shop_key().encode()
    made = Hit(rule, Certainty.PROVIDER, content, "", Place(path, line, 1, line), frozenset(), "", frozenset())
    return structs.replace(made, **given)
