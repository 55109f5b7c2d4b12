from __future__ import annotations

from functools import cache
from importlib import resources

import pytest

from keyturn.scanner.engine.detect import Engine
from keyturn.scanner.engine.open import open_engine
from keyturn.scanner.ruleset.load import parse_rules, without_samples
from keyturn.scanner.ruleset.model import Ruleset, SampledRule
from keyturn.scanner.ruleset.samples import expand

PATHS = {
    "pgpass-password": ["home/.pgpass", "pgpass.conf"],
    "npmrc-password": [".npmrc", "app/npmrc"],
    "pypirc-password": ["home/.pypirc"],
    "git-credentials-password": ["home/.git-credentials"],
    "htpasswd-hash": ["etc/nginx/.htpasswd", "htpasswd.users"],
    "rails-master-key": ["config/master.key", "config/credentials/production.key"],
    "gradle-property-password": ["gradle.properties"],
    "composer-auth-token": ["auth.json"],
    "filezilla-password": ["FileZilla.xml", "filezilla/sitemanager.xml"],
    "mysql-option-file-password": [".my.cnf", "etc/mysql/debian.cnf"],
    "mail-client-password": [".msmtprc", "home/.muttrc"],
    "rclone-secret": [".config/rclone/rclone.conf"],
    "s3cfg-secret-key": [".s3cfg", "home/.boto"],
    "s3fs-password": ["etc/passwd-s3fs"],
    "terraform-variable-secret": ["terraform.tfvars", "prod.auto.tfvars"],
    "terraform-state-secret": ["terraform.tfstate", "terraform.tfstate.backup"],
    "vnc-password": ["ultravnc.ini", "office.vnc"],
    "remmina-password": ["a.remmina"],
    "tomcat-user-password": ["conf/tomcat-users.xml"],
    "windows-unattend-password": ["Autounattend.xml", "sysprep/unattend.xml"],
    "dbeaver-database-password": ["dbeaver-data-sources.json", ".vscode/sftp.json"],
    "pkcs12-file": ["a/b.p12", "b.PFX"],
    "keepass-file": ["x.kdbx"],
    "java-keystore-file": ["x.jks"],
    "gcloud-credentials-file": [".config/gcloud/credentials.db"],
    "macos-keychain-file": ["login.keychain-db"],
    "gnome-keyring-file": ["login.keyring"],
    "onepassword-file": ["x.agilekeychain/data", "x.opvault"],
    "password-safe-file": ["x.psafe3"],
    "electrum-wallet-file": ["wallet.dat", "wallets/default_wallet"],
}
ELSEWHERE = "src/app.txt"


def _rules() -> list[SampledRule]:
    folder = resources.files("keyturn.scanner.ruleset").joinpath("data")
    return parse_rules(folder.joinpath("config-files.toml").read_text("utf-8"), "config-files.toml")


RULES = {rule.id: rule for rule in _rules()}


@cache
def engine() -> Engine:
    rules = tuple(without_samples(rule) for rule in RULES.values())
    return open_engine(Ruleset(name="files", rules=rules), cache=None, fallback=True)


def finds(rule: SampledRule, text: str, path: str) -> bool:
    return rule.id in {one.rule.id for one in engine().detect(text.encode(), path)}


def test_every_rule_with_a_path_is_listed_here() -> None:
    assert set(PATHS) == {rule.id for rule in RULES.values() if rule.path}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_finds_its_examples_in_its_files_alone(name: str) -> None:
    rule = RULES[name]
    for template in rule.examples or ("anything",):
        text = expand(template, name)
        for path in PATHS.get(name, [ELSEWHERE]):
            assert finds(rule, text, path), (text, path)
        if name in PATHS:
            assert not finds(rule, text, ELSEWHERE)
