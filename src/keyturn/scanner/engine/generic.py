"""Whether a value that is named like a secret is one: the rules of `data/generic.toml` are weighed here.

A value counts when nothing says otherwise, in this order:

    path       lock files and translations hold none; in code, tests too, only what stands in quotes is a value
    name       a checksum, an id, a public key, a file or a page's token is not what its neighbour words promise
    shape      a reference, a call, an identifier, a path, an address or a stand-in is no value
    mixture    words and sequences explain little of it, and the rest is mixed as random characters are

A word inside a long random value explains little of it, so that none is dropped for what it happens to hold.
"""

from __future__ import annotations

import base64
import re
from enum import Enum
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from keyturn.scanner.engine.randomness import Mixture, mixture
from keyturn.scanner.ruleset.model import Rule

if TYPE_CHECKING:
    from keyturn.scanner.model import Bytes

PROVIDER: Final = "generic"
"""The provider of the rules that are weighed; a foreign rule file's generic rules have allowlists of their own."""
BASIC: Final = "http-basic-header"
"""The rule whose secret is a user and a password in base64."""
NAME_BYTES_MAX: Final = 160
SECRET_BYTES_MAX: Final = 256
ENCODED_MIN: Final = 16
"""Base64 of so many characters is text by chance once in a hundred thousand values."""
_QUOTES: Final = b"\"'`>"
_DIGITS: Final = b"0123456789"
_VALUE: Final = re.compile(rb"[^ \t\n\f\r\"'\\<>]{1,4096}")
"""What the rules take for a value, and perhaps more."""


class Ground(Enum):
    """What sort of file a value stands in."""

    BARREN = "barren"
    """Nothing there is a secret: lock files, translations, style sheets, published vectors."""
    CODE = "code"
    """A value in quotes is one."""
    TEST = "test"
    """Values are made up: only what looks like a real key counts."""
    CONFIGURATION = "configuration"
    """A bare value is a value."""
    OTHER = "other"


_UNEXPLAINED_MIN: Final = {Ground.TEST: 20, Ground.OTHER: 12}
"""So many characters of a value have to be neither of words nor of sequences where it cannot be a short password."""


def weigh(rule: Rule, match: bytes, secret: bytes, path: str) -> bool:
    """Tell whether a match of a generic rule is a secret; a match of any other rule is."""
    if rule.provider != PROVIDER:
        return True
    if len(secret) > SECRET_BYTES_MAX:
        return False
    ground = ground_of(path)
    if rule.id == BASIC:
        return _is_basic(secret, ground)
    at = match.rfind(secret)
    name, quoted = match[max(0, at - NAME_BYTES_MAX) : at], match[at - 1 : at] in _QUOTES and at > 0
    if ground is Ground.BARREN or (not quoted and is_code(path)):
        return False
    return _is_secret(name, secret, ground, quoted=quoted)


def is_weighed(rule: Rule) -> bool:
    """Tell whether a rule's values are weighed as they stand."""
    return rule.provider == PROVIDER and rule.id != BASIC


def is_barren(rule: Rule, path: str) -> bool:
    """Tell whether a rule finds nothing in files of this path, whatever stands in them."""
    return is_weighed(rule) and ground_of(path) is Ground.BARREN


def may_begin(data: Bytes, at: int, path: str) -> bool:
    """Tell whether a value that begins there can be a secret at all, so that it is worth confirming and weighing.

    What stands in code without quotes never is, nor what is too short for its ground, nor what has no digit and letters
    of one case alone.
    """
    ground = ground_of(path)
    if ground is Ground.BARREN or (is_code(path) and (at < 1 or data[at - 1] not in _QUOTES)):
        return False
    found = _VALUE.match(data, at)
    value = found[0] if found else b""
    if len(value) < _UNEXPLAINED_MIN.get(ground, 0):
        return False
    return len(value.translate(None, _DIGITS)) < len(value) or not (value.islower() or value.isupper())


@lru_cache(maxsize=4096)
def _is_secret(name: bytes, secret: bytes, ground: Ground, *, quoted: bool) -> bool:
    """Weigh a value; in the versions of a file the same ones come again and again."""
    secret = _unwrapped(secret)
    if _patterns().harmless_name.search(name) or _patterns().no_value.search(secret):
        return False
    made_of = mixture(secret)
    if _patterns().password.search(name):
        return _is_password(made_of, secret, ground, quoted=quoted)
    return _is_token(made_of, secret, ground)


def _unwrapped(secret: bytes) -> bytes:
    """Return the text that a value is in base64, as in a secret of Kubernetes; the value itself when it is none."""
    if len(secret) < ENCODED_MIN or len(secret) % 4 or not _patterns().base64.search(secret):
        return secret
    text = base64.b64decode(secret).strip()
    return text if text.isascii() and text.decode("ascii").isprintable() else secret


def _is_basic(encoded: bytes, ground: Ground) -> bool:
    """Tell whether credentials of HTTP's basic scheme hold a password that is one."""
    try:
        _, _, password = base64.b64decode(encoded).partition(b":")
    except ValueError:
        return False
    if not password or _patterns().no_value.search(password):
        return False
    return _is_password(mixture(password), password, ground, quoted=True)


def _is_token(made_of: Mixture, secret: bytes, ground: Ground) -> bool:
    """Tell whether a value is as a generator makes them."""
    strict = ground is Ground.TEST
    if (
        made_of.unexplained < _UNEXPLAINED_MIN[Ground.TEST if strict else Ground.OTHER]
        or made_of.explained * 2 > made_of.length
    ):
        return False
    if _patterns().hexadecimal.search(secret):
        return made_of.length >= (32 if strict else 20) and made_of.entropy >= 3.0 and made_of.letters >= 2
    alphabetic = made_of.digits == 0
    if made_of.letters < 3 or (alphabetic and not (made_of.lower and made_of.upper)):
        return False
    changes = made_of.changes / max(1, made_of.letters + made_of.digits - 1)
    is_mixed = changes >= (0.35 if alphabetic else 0.16) or (made_of.consonants >= 5 and not alphabetic)
    return made_of.entropy >= (3.6 if strict else 3.3) and is_mixed


def _is_password(made_of: Mixture, secret: bytes, ground: Ground, *, quoted: bool) -> bool:
    """Tell whether a value is as a person or a generator makes passwords."""
    if _is_token(made_of, secret, ground):
        return True
    if ground in {Ground.TEST, Ground.OTHER} or made_of.length > 40:
        return False
    unexplained = made_of.unexplained + made_of.others
    if made_of.explained * 3 > made_of.length * 2 or unexplained < 5 or made_of.entropy < 2.5:
        return False
    return made_of.classes >= (3 if quoted or ground is Ground.CONFIGURATION else 4) and made_of.digits > 0


@lru_cache(maxsize=512)
def ground_of(path: str) -> Ground:
    """Tell what sort of file a path names; without one it is taken for what prints settings."""
    if not path:
        return Ground.CONFIGURATION
    told, patterns = path.encode("utf-8", "replace"), _patterns()
    if patterns.barren.search(told):
        return Ground.BARREN
    if patterns.test.search(told):
        return Ground.TEST
    if patterns.code.search(told):
        return Ground.CODE
    return Ground.CONFIGURATION if patterns.configuration.search(told) else Ground.OTHER


@lru_cache(maxsize=512)
def is_code(path: str) -> bool:
    """Tell whether a bare value is an expression in files of this path, whatever their ground."""
    return bool(path) and _patterns().code.search(path.encode("utf-8", "replace")) is not None


class _Patterns:
    """The expressions below, each compiled when it is first asked for: a hook needs few of them."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- re2 ships no types
        compiled = _compiled(_EXPRESSIONS[name])
        setattr(self, name, compiled)
        return compiled


@cache
def _patterns() -> _Patterns:
    return _Patterns()


def _compiled(regex: str) -> Any:  # noqa: ANN401 -- re2 ships no types
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.case_sensitive = False
    return re2.compile(regex.encode(), options)


_BARREN: Final = (
    r"(?:^|/)(?:[\w.-]*\.lock|[\w.-]*[.-]lock\.(?:json|ya?ml|hcl)|npm-shrinkwrap\.json|go\.(?:sum|mod)|gradle\.lockfile|RECORD|SHA\d+SUMS)$"
    r"|(?:^|/)(?:i18n|l10n|locales?|translations?|languages?|lang)/"
    r"|(?:^|/)(?:test[_-]?vectors?(?:[_-]?v\d+)?|wycheproof)/"
    r"|(?:^|/)(?:messages|strings|translations?)[\w-]*\.(?:properties|json|ya?ml|xml|js|ts)$"
    r"|\.(?:po|pot|mo|xlf|xliff|resx|strings|arb|svg|s?css|less|sass|snap|lockb|sum|sha\d+|md5|asc|sig|pem|crt|cer|tsv"
    r"|bib|tex|ipa|ttf|woff2?)$"
)
_TEST: Final = (
    r"(?:^|[/._-])(?:tests?|specs?|testing|testdata|test[_-]?utils?|fixtures?|mocks?|stubs?|__tests__|e2e|examples?|samples?"
    r"|demos?|cassettes?|try|conftest|docs?|documentation|snapshots?|benchmarks?|golden|vectors?|wycheproof)(?:[/._-]|$)"
    r"|(?-i:[a-z0-9](?:Tests?|Spec))\.(?:java|kt|cs|php|swift|scala|groovy|js|ts|hs|fs|vb|m|cpp|py)$"
    r"|\.(?:md|mdx|rst|adoc|markdown|rdoc|pod|http|feature|t)$"
)
_CODE: Final = (
    r"\.(?:[cm]?jsx?|[cm]?tsx?|py[iw]?|go|rb|java|kts?|cs|php|rs|lua|swift|scala|sc|c|cc|cpp|cxx|hh?|hpp|m|mm|pl|pm|ex"
    r"|exs|erl|hs|ml|fs|vb|clj[cs]?|dart|groovy|gradle|jl|r|sol|vue|svelte|astro|html?|jinja2?|j2|erb|haml|slim|ejs|hbs"
    r"|sql|proto|graphql|gql|tf|hcl|cue|nix|zig|nim|map|json[5c]?|toml|xml|xsd|wsdl|ps1|psm1|vim|el|rego|bzl|mk|am|ac|cmake)$"
)
_CONFIGURATION: Final = (
    r"(?:^|/)(?:\.env[\w.-]*|[\w.-]*\.(?:env|ya?ml|ini|cfg|conf|config|properties|cnf|rc|sh|bash|zsh|fish|bat|cmd|envrc"
    r"|tfvars|netrc|pgpass|credentials|service|plist|reg|npmrc|pypirc|txt|log)"
    r"|dockerfile[\w.-]*|[\w.-]*credentials|\.?\w*rc|makefile|jenkinsfile|procfile|config)$"
)
_HARMLESS_NAME: Final = (
    r"public|pub_?key|(?:^|[_.-]|[a-z0-9])(?:key|token|secret|credential|password|access)s?[_.-]?(?:ids?|refs?|names?|paths?|files?"
    r"|dirs?|ur[li]s?|endpoints?|types?|kinds?|headers?|prefix(?:es)?|suffix(?:es)?|formats?|patterns?|regexp?|columns?|fields?"
    r"|labels?|titles?|text|desc\w*|messages?|placeholder|hints?|help|lengths?|size|count|limit|ttl|expir\w*|lifetime"
    r"|timeout|policy|policies|scopes?|roles?|version|index|status|state|usage|algorithm|alg|class|mode|strategy|provider"
    r"|sources?|backends?|stores?|arn|param\w*|input|error|hash(?:es|ed)?|digests?|fingerprint|sha\d*|md5|checksum)[\"'`\]]*\s*"
    r"(?:=|:|,)|hash|digest|checksum|sha(?:\d|sum)|md5|integrity|fingerprint|etag|csrf|xsrf|nonce|page[_.-]?token"
    r"|next[_.-]?token|continuation|cursor|sync[_.-]?token|idempoten|design[_.-]?token|cache[_.-]?key|partition|primary[_.-]?key"
    r"|foreign[_.-]?key|sort[_.-]?key|keyword|site[_.-]?key|recaptcha|captcha|author\b|monkey|passenger|passive|compass|bypass"
    r"|passthrough|accessor|commit|revision|tokenize|cancel\w*token|lock[_.-]?token|invalid|wrong|expected|token_?address|secretsmanager|amz[_-]credential"
    r"|(?:change|starting|creation|update|resume|work[_-]?unit)[_.-]?token"
)
_NO_VALUE: Final = (
    r"[$#%@]\{|\{\{|\}\}|\$\(|<%|%>|%\(|%[sdvq]\b|^\$[a-z_][\w.:]*$|^%\w+%$|^[<\[(&*!]|\.\.\.|\*\*\*|\x{e2}\x{80}\x{a6}|x{5}|\?\?\?"
    r"|process\.env|os\.environ|getenv|\benv[.\[(]|secrets?\.|vault[:.]|^(?:ref|arn|file|env|ssm|sops|op|projects)[+:/]"
    r"|^[\w.$:]+\(|^\{|\}$|::|->|=>|://"
    r"|^signature=|^[a-z][\w-]*(?:\.[a-z][\w-]*)+/[\w./-]+$"
    r"|^[a-z_][\w$]*(?:\??\.[a-z_][\w$-]*)+$|^(?:\.{0,2}|~|[a-z]:)[/\\]|^[\w.-]+(?:/[\w.-]+)*\.[a-z]{1,5}[0-9]?$"
    r"|^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$|^\d[\d.:,_-]*$|^0x[0-9a-f]{1,16}$|^[\w.+-]+@[\w-]+\.[\w.]+$"
    r"|^(?:hmac[-_]|scram-)?sha-?(?:1|256|384|512)(?:[-_:=]|$)|(?-i:EXAMPLE)|^A[KS]IA[0-9A-Z]{16}$|^\$(?:argon2|scrypt|pbkdf2|apr1|2[aby]|[156y])|(?-i:^[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+$)|^\{\w+\}|^pbkdf2|^(?:application|text|image)/|^ssh-(?:rsa|ed25519)|^AAAA[BCE]3Nz"
)
_SPOKEN_WORD: Final = (
    r"pass(?:word|wd|phrase|code)?\b|pass(?:word|wd|phrase)|pwd|pass[_.-]"
    r"|network_?credential|directory_?entry|basic_?auth(?:entication)?\s?\("
)
_EXPRESSIONS: Final = {
    "barren": _BARREN,
    "test": _TEST,
    "code": _CODE,
    "configuration": _CONFIGURATION,
    "harmless_name": _HARMLESS_NAME,
    "no_value": _NO_VALUE,
    "password": _SPOKEN_WORD,
    "base64": r"^[A-Za-z0-9+/]+={0,2}$",
    "hexadecimal": r"^(?:0x)?[0-9a-f]+$",
}
