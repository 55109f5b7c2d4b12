"""Where a key stands, told from its path alone; sources and opened contents add what only they know."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from keyturn.scanner.model import Context

_FOLDERS: Final[dict[str, Context]] = {
    **dict.fromkeys(
        ("test", "tests", "testing", "__tests__", "spec", "specs", "e2e", "integration-tests"), Context.TEST
    ),
    **dict.fromkeys(("testdata", "test-data", "test_data", "fixtures", "fixture", "__fixtures__"), Context.FIXTURE),
    **dict.fromkeys(("mocks", "__mocks__", "mock", "cassettes", "__snapshots__", "snapshots"), Context.FIXTURE),
    **dict.fromkeys(("example", "examples", "sample", "samples", "demo", "demos", "tutorial"), Context.EXAMPLE),
    **dict.fromkeys(("doc", "docs", "documentation", "wiki"), Context.DOCUMENTATION),
    **dict.fromkeys(
        ("config", "configs", "conf", "conf.d", "settings", "deploy", "helm", "k8s"), Context.CONFIGURATION
    ),
    **dict.fromkeys((".circleci", ".buildkite", ".gitea", ".forgejo"), Context.CI_CONFIGURATION),
    **dict.fromkeys(("dist", "bundle", "bundles", ".next", "_next", ".nuxt", "www"), Context.CLIENT_BUNDLE),
}
_PARTS: Final[tuple[tuple[str, Context], ...]] = (
    (r"\.github/(?:workflows|actions)/", Context.CI_CONFIGURATION),
    (r"(?:^|/)src/(?:test|androidTest|integrationTest)/", Context.TEST),
    (r"(?:^|/)(?:public|static|assets|build)/.*\.(?:m?js|css|html)$", Context.CLIENT_BUNDLE),
)
_NAMES: Final[tuple[tuple[str, Context], ...]] = (
    (
        r"test_.*\.\w+|.*_test\.\w+|.*[.-](?:test|spec)s?\.\w+|.*(?:Test|Tests|IT|Spec)\.(?:java|kt|scala|cs)",
        Context.TEST,
    ),
    (r"conftest\.py", Context.TEST),
    (r"(?i:.*\.(?:md|mdx|rst|adoc|asciidoc)|readme.*|changelog.*|contributing.*)", Context.DOCUMENTATION),
    (r".*[._-](?:example|sample|template|dist)(?:\.\w+)?|(?:example|sample)[._-].*", Context.EXAMPLE),
    (r"\.env(?:\..+|rc)?|.*\.env", Context.ENVIRONMENT_FILE),
    (r".*\.(?:min|bundle|chunk)\.(?:m?js|css)|.*[.-][0-9a-f]{8,20}\.(?:m?js|css)", Context.CLIENT_BUNDLE),
    (r".*\.(?:m?js|css|ts)\.map", Context.SOURCE_MAP),
    (r"\.gitlab-ci\.ya?ml|Jenkinsfile|\.travis\.yml|azure-pipelines\.ya?ml|\.drone\.yml", Context.CI_CONFIGURATION),
    (r"bitbucket-pipelines\.yml|appveyor\.yml|cloudbuild\.ya?ml|buildspec\.ya?ml", Context.CI_CONFIGURATION),
    (r".*\.(?:ya?ml|toml|ini|cfg|conf|config|properties|tfvars|tfstate|plist)", Context.CONFIGURATION),
    (r".*\.json|Dockerfile.*|(?:docker-)?compose.*\.ya?ml|\.npmrc|\.pypirc|\.netrc|\.pgpass", Context.CONFIGURATION),
    (r".*\.(?:exe|dll|so|dylib|o|a|class|pyc|wasm|bin)", Context.BINARY),
)
_SOURCE: Final = (
    r".*\.(?:py|pyi|js|mjs|cjs|jsx|ts|tsx|vue|svelte|go|rs|rb|php|java|kt|kts|scala|groovy|cs|fs|vb|c|h|cc|cpp|hpp|m|mm"
    r"|swift|dart|lua|pl|pm|r|jl|ex|exs|erl|clj|hs|ml|sh|bash|zsh|fish|ps1|bat|cmd|sql|tf|hcl|proto|graphql|ipynb)"
)


@lru_cache(maxsize=4096)
def contexts_of(path: str, members: tuple[str, ...] = ()) -> frozenset[Context]:
    """Return every context that a path, or the members that lead into it, speak of; `source` when it is code."""
    found: set[Context] = set()
    for one in (path, *members):
        found |= _of_path(one)
    if members:
        found.add(Context.ARCHIVE)
    if not found - {Context.ARCHIVE} and re.fullmatch(_SOURCE, _name((path, *members)[-1])):
        found.add(Context.SOURCE)
    return frozenset(found)


def _of_path(path: str) -> set[Context]:
    *folders, name = path.split("/")
    found = {_FOLDERS[one] for one in map(str.lower, folders) if one in _FOLDERS}
    found |= {context for pattern, context in _compiled(_PARTS) if pattern.search(path)}
    found |= {context for pattern, context in _compiled(_NAMES) if pattern.fullmatch(name)}
    return found


def _name(path: str) -> str:
    return path.rpartition("/")[2]


@lru_cache(maxsize=4)
def _compiled(patterns: tuple[tuple[str, Context], ...]) -> tuple[tuple[re.Pattern[str], Context], ...]:
    return tuple((re.compile(pattern), context) for pattern, context in patterns)
