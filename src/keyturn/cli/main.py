"""Entry point: `keyturn COMMAND`.  Commands are imported when used, because start-up time counts in hooks."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import click

from keyturn import __version__
from keyturn.cli.failure import USAGE, exit_code_of, flush_streams, print_failure
from keyturn.errors import InputError, KeyturnError

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("keyturn.cli.serve:serve", "Start the server."),
    "migrate": ("keyturn.cli.serve:migrate", "Bring the database schema up to date."),
    "keyspaces": ("keyturn.cli.keyspaces:keyspaces", "Manage keyspaces."),
    "plans": ("keyturn.cli.plans:plans", "Manage plans."),
    "owners": ("keyturn.cli.owners:owners", "Manage what holds for all keys of an owner."),
    "keys": ("keyturn.cli.keys:keys", "Issue, verify, rotate and revoke keys."),
    "run": ("keyturn.cli.run:run", "Run a program with held secrets in its environment."),
    "template": ("keyturn.cli.templates:template", "Fill held secrets into text."),
    "secrets": ("keyturn.cli.secrets:secrets", "Hold secrets for the APIs that you use."),
    "guards": ("keyturn.cli.approvals:guards", "Hold actions on secrets back until a second principal approves."),
    "approvals": ("keyturn.cli.approvals:approvals", "Ask for approval, and decide what others ask for."),
    "wrap": ("keyturn.cli.wraps:wrap", "Wrap a JSON object that can be opened once."),
    "unwrap": ("keyturn.cli.wraps:unwrap", "Open a wrap."),
    "credential-sources": (
        "keyturn.cli.leases:credential_sources",
        "Manage the systems in which accounts are made on demand.",
    ),
    "credential-roles": ("keyturn.cli.leases:credential_roles", "Manage what accounts of a source may do."),
    "leases": ("keyturn.cli.leases:leases", "Make credentials on demand, renew and revoke them."),
    "scan": ("keyturn.cli.scan:scan", "Find leaked keys in files, repositories, images and logs."),
    "hooks": ("keyturn.cli.hooks:hooks", "Stop leaked keys in git, before a commit or a push, and on a server."),
    "watch": ("keyturn.cli.watch:watch", "Scan repositories and folders on a schedule."),
    "rules": ("keyturn.cli.detection_rules:rules", "See what the scanner looks for, and check your own rules."),
    "findings": ("keyturn.cli.findings:findings", "Look at what has leaked, and decide about it."),
    "leak-policies": ("keyturn.cli.leak_policies:leak_policies", "Say what is done by itself about a leak."),
    "usage": ("keyturn.cli.usage:usage", "Show how keys are used."),
    "audit": ("keyturn.cli.audit:audit", "Read, export and verify the audit log."),
    "quotas": ("keyturn.cli.quotas:quotas", "Look at balances, and top them up."),
    "leak-intakes": ("keyturn.cli.leak_intakes:leak_intakes", "Let partners outside report leaked keys, signed."),
    "leaked-key": ("keyturn.cli.leak_intakes:leaked_key", "Ask whether a key is one of a server's, and report it."),
    "decoys": ("keyturn.cli.decoys:decoys", "Plant keys and secrets whose use is an alarm."),
    "webhooks": ("keyturn.cli.webhooks:webhooks", "Send events to endpoints, and look after deliveries."),
    "workspaces": ("keyturn.cli.access:workspaces", "Manage workspaces."),
    "principals": ("keyturn.cli.access:principals", "Manage principals and their tokens."),
    "roles": ("keyturn.cli.access:roles", "Manage roles and their members."),
    "grants": ("keyturn.cli.access:grants", "Manage grants, and explain a decision."),
    "nodes": ("keyturn.cli.session:nodes", "List the nodes that verify keys."),
    "whoami": ("keyturn.cli.session:whoami", "Show who the token belongs to and what it may do."),
    "login": ("keyturn.cli.login:login", "Save an address and a token as a profile, or log a workload in."),
    "login-methods": ("keyturn.cli.logins:login_methods", "Manage how workloads log in."),
    "login-roles": ("keyturn.cli.logins:login_roles", "Manage which workload becomes which principal."),
    "login-tokens": ("keyturn.cli.logins:login_tokens", "Look at the tokens of logins, renew and revoke them."),
    "doctor": ("keyturn.cli.doctor:doctor", "Look for faults in the set-up and name the cause."),
    "backup": ("keyturn.cli.offline:backup", "Write a backup of the database."),
    "restore": ("keyturn.cli.offline:restore", "Restore a backup into an empty database."),
    "root-key": ("keyturn.cli.root_keys:root_key", "Rotate the root key while the server runs."),
    "workspace-keys": ("keyturn.cli.root_keys:workspace_keys", "Rotate, reseal and destroy workspace keys."),
    "admin-token": ("keyturn.cli.offline:admin_token", "Issue a break-glass admin token, offline."),
}
"""Every command: where it lives, and its line in `keyturn --help`."""


class LazyGroup(click.Group):
    """A group that imports a command only when it is run or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Name every command in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        """Import one command; None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's signature
        """List the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _of_the_system(error: OSError) -> KeyturnError:
    what = (error.strerror or type(error).__name__).lower()
    about = "" if error.filename is None else f": {os.fsdecode(error.filename)}"
    return KeyturnError(
        f"{what}{about}", code="system", hint="the command may have been carried out: look before you repeat it"
    )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="keyturn")
def cli() -> None:
    """Keyturn: issue, verify, rotate and revoke API keys.

    KEYTURN_URL names the server, KEYTURN_TOKEN_FILE (or KEYTURN_TOKEN) the management token.
    """


def main(argv: list[str] | None = None) -> int:
    """Run the command line; never shows a traceback for a deliberate error."""
    try:
        result: Any = cli.main(args=argv, prog_name="keyturn", standalone_mode=False)
    except click.exceptions.Exit as ending:
        code = ending.exit_code
    except click.Abort:
        click.echo("aborted", err=True)
        code = 2
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except KeyturnError as error:
        print_failure(error)
        code = exit_code_of(error)
    except BrokenPipeError:
        code = 0
    except UnicodeEncodeError:
        print_failure(InputError("an argument is not text in UTF-8", hint="check the locale and the argument's bytes"))
        code = USAGE
    except OSError as error:  # the disk is full, or a folder may not be read
        print_failure(_of_the_system(error))
        code = USAGE
    else:
        code = result if isinstance(result, int) else 0
    if argv is None:
        sys.exit(code if flush_streams() or code else USAGE)
    return code
