"""The container files are not run here; these tests keep what they say true to the code."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from keyturn.config import SETTINGS, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "keyturn"]


def _instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    pairs = (line.partition(" ") for line in joined.splitlines() if line)
    return [(name, rest) for name, _, rest in pairs]


def _arguments(instruction: str) -> list[str]:
    return [rest for name, rest in _instructions() if name == instruction]


def _image_environment() -> dict[str, str]:
    return dict(part.split("=", 1) for rest in _arguments("ENV") for part in shlex.split(rest))


def _keyturn_variables() -> set[str]:
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    mentioned = re.findall(r"KEYTURN_[A-Z_]+", DOCKERFILE)
    return {name for name in names | _image_environment().keys() | set(mentioned) if name.startswith("KEYTURN_")}


def _images() -> list[str]:
    stages = {rest.split(" AS ")[1] for rest in _arguments("FROM") if " AS " in rest}
    bases = [rest.split(" ")[0] for rest in _arguments("FROM")]
    return [image for image in bases + [service["image"] for service in SERVICES.values()] if image not in stages]


def test_every_setting_used_is_one_that_the_server_knows() -> None:
    known = {setting.variable for setting in SETTINGS}
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.secret}
    assert _keyturn_variables() <= known


@pytest.mark.parametrize("name", OURS)
def test_the_server_accepts_the_settings_of_the_compose_file(name: str, tmp_path: Path) -> None:
    """A container that is reached from outside needs TLS; this set-up must satisfy that rule, not avoid it."""
    environment = _image_environment() | SERVICES[name]["environment"]
    url = tmp_path / "database_url"
    url.write_text("postgresql://keyturn@database/keyturn")
    settings = {key: value for key, value in environment.items() if key.startswith("KEYTURN_")}
    settings["KEYTURN_DATABASE_URL_FILE"] = str(url)
    limits = tmp_path / "valkey_url"
    limits.write_text("redis://limits:6379/0")
    settings["KEYTURN_VALKEY_URL_FILE"] = str(limits)
    parsed = load_settings(settings)
    parsed.check_serving()
    assert parsed.host == "0.0.0.0"  # noqa: S104 - what the rule is about
    assert parsed.tls == "terminated"


def test_the_listed_proxy_is_the_gateway_of_the_network_and_nothing_wider() -> None:
    """A wider network would let another container say whose address a request comes from."""
    (config,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert SERVICES["keyturn"]["environment"]["KEYTURN_TRUSTED_PROXIES"] == f"{config['gateway']}/32"


def test_every_path_the_image_copies_exists_and_reaches_the_build() -> None:
    let_in = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    sources = {
        source for rest in _arguments("COPY") if not rest.startswith("--from=") for source in shlex.split(rest)[:-1]
    }
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    assert sources == let_in


def test_no_image_names_a_registry() -> None:
    hosts = [image.split("/")[0] for image in _images() if "/" in image]
    assert not [host for host in hosts if "." in host or ":" in host or host == "localhost"]


def test_images_have_a_version_or_are_ours() -> None:
    assert all(":" in image and not image.endswith(":latest") for image in _images() if image != "keyturn")


def test_the_image_runs_without_root_and_installs_by_hash() -> None:
    """A stolen process is not root, and a replaced package is not installed."""
    assert _arguments("USER") == ["10001"]
    assert all(
        "--require-hashes" in rest or ("--no-deps" in rest and "--no-build-isolation" in rest)
        for rest in _arguments("RUN")
        if "pip install" in rest
    )


def test_the_data_folder_is_a_volume_in_image_and_compose() -> None:
    data = _image_environment()["KEYTURN_DATA"]
    assert _arguments("VOLUME") == [data]
    assert all(f"data:{data}" in SERVICES[name]["volumes"] for name in OURS)
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == COMPOSE["volumes"].keys()


def test_the_health_check_is_a_program_that_compiles() -> None:
    (check,) = _arguments("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/health/live" in command[2]


def test_ports_are_published_to_this_machine_alone() -> None:
    """The traffic is not encrypted until the proxy: no other machine may reach it."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published == [f"127.0.0.1:{_image_environment()['KEYTURN_PORT']}:{_image_environment()['KEYTURN_PORT']}"]


def test_secrets_are_files_outside_the_repository() -> None:
    """A password in a file that is committed, or with a default, is no password."""
    environment = {
        name: value for service in SERVICES.values() for name, value in service.get("environment", {}).items()
    }
    secret = re.compile(r"PASSWORD|_KEK\b|TOKEN|_URL")
    assert all(value.startswith("/run/secrets/") for name, value in environment.items() if secret.search(name))
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    files = {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert all(file.startswith("./secrets/") for file in files)
    assert {name for service in SERVICES.values() for name in service["secrets"]} == COMPOSE["secrets"].keys()
