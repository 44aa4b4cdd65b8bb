"""The table of all commands. A command's module is imported only when that command is used."""

from __future__ import annotations

import importlib

import click

from keyhole.cli.base import Group, shared_options

# Area -> name -> (where it is, what it does). The words stand here, so that help imports none of the modules.
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Everyday": {
        "init": ("init:init_command", "Make a vault."),
        "add": ("add:add_command", "Store a known API's key, bind it and grant it, in one step."),
        "import": ("import_:import_command", "Move credentials in from where they lie."),
        "export": ("moving.leaving:export", "Write secrets into a file that other programs read."),
        "scan": ("scan:scan_command", "Find credentials that lie about, and move them in."),
        "scrub": ("scrubbing:scrub_command", "Copy a stream without credentials."),
        "run": ("run:run_command", "Run a command as an agent, with placeholders instead of keys."),
        "call": ("call:call_command", "Make one call with a credential attached."),
        "env": ("env:env_command", "The environment that a child of run would get."),
        "tail": ("tail:tail_command", "What agents do right now, a line for each call."),
        "why": ("why:why_command", "What would be attached to a call, or why not."),
        "demo": ("demo:demo_command", "See it work, without the internet."),
        "doctor": ("doctor:doctor_command", "Check this machine and this vault."),
        "version": ("version:version_command", "The version."),
        "completion": ("completion:completion_command", "Completion for your shell."),
    },
    "Secrets": {
        "set": ("secrets:set_command", "Store a value."),
        "get": ("secrets:get_command", "Show a value; needs read."),
        "list": ("listing:list_command", "Names of secrets."),
        "show": ("listing:show_command", "All about a secret but its value."),
        "history": ("versions:history_command", "Versions of a secret."),
        "rollback": ("versions:rollback_command", "Make an older version the current one."),
        "expire": ("versions:expire_command", "Say when a secret expires."),
        "rotate": ("rotation:rotate_command", "Replace a value at its source."),
        "rotation": ("rotation:rotation", "How values are replaced by themselves."),
        "rm": ("versions:rm_command", "Delete a secret."),
        "external": ("external:external", "Secrets that stay in another manager."),
        "who-can": ("grants:who_can_command", "Who can use or read a secret."),
        "what-can": ("grants:what_can_command", "What an agent can use."),
    },
    "Services, agents, policies": {
        "service": ("service:service", "Where secrets may go and how they are attached."),
        "agent": ("agent:agent", "Machine identities and their tokens."),
        "catalog": ("catalog:catalog", "The services that add knows, and your own."),
        "grant": ("grants:grant_command", "Let an agent use a service."),
        "revoke": ("grants:revoke_command", "Take a grant back."),
        "policy": ("policy:policy", "Rules on API paths."),
        "oauth": ("oauth:oauth", "Accounts at providers of OAuth tokens."),
        "honey": ("honey:honey", "Secrets that are bait."),
        "notice": ("notice:notice", "How administrators are told."),
        "requests": ("approvals:requests_command", "Calls that wait for an approval."),
        "approve": ("approvals:approve_command", "Let one of them through."),
        "deny": ("approvals:deny_command", "Refuse it, or take a standing approval back."),
    },
    "Repo vaults": {
        "repo": ("repo:repo", "Secrets in git, for exactly those who may read them, without a server."),
    },
    "Tools": {
        "mcp": ("mcp:mcp", "Tools for clients of the Model Context Protocol."),
        "workflow": ("workflow:workflow", "Steps that name tools and services, and never a credential."),
    },
    "Server": {
        "server": ("server:server_command", "Run a server."),
        "login": ("login:login_command", "Keep a token for a server."),
        "logout": ("login:logout_command", "Forget it."),
        "operator": ("operator:operator", "Unseal, seal, status, new keys."),
        "org": ("org:org", "Tenants of a server."),
        "leases": ("leases:leases", "What was made for a time, and is taken back."),
        "audit": ("audit:audit", "Who used what, and proof that the journal is whole."),
        "report": ("report:report", "Who has access to what, and what nobody needs."),
    },
}
_BY_NAME = {name: where for area in COMMANDS.values() for name, (where, _) in area.items()}


class _Root(Group):
    """All commands, each loaded when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        del ctx
        return list(_BY_NAME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        where = _BY_NAME.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        found = getattr(importlib.import_module(f"keyhole.cli.{module}"), attribute)
        return found if isinstance(found, click.Command) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``--version``, as other programs have it, for the command."""
        return super().parse_args(ctx, ["version", *args[1:]] if args[:1] == ["--version"] else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; for a mistyped one say which is near."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from difflib import get_close_matches  # noqa: PLC0415  # only for a mistake

            near = get_close_matches(args[0] if args else "", _BY_NAME, n=2)
            # What was typed may be a value that slipped in, and is not repeated.
            perhaps = f"; perhaps {' or '.join(near)}" if near else ""
            raise click.UsageError(f"there is no such command{perhaps}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, without importing what is in it."""
        del ctx
        for area, commands in COMMANDS.items():
            with formatter.section(area):
                formatter.write_dl([(name, help_text) for name, (_, help_text) in commands.items()])

    def format_epilog(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """First steps, and what the exit codes mean."""
        with formatter.section("Examples"):
            for line in self.examples.strip().splitlines():
                formatter.write(f"  {line.strip()}\n")
        formatter.write(
            "\nA value is never given in the command line: it is asked for, read from stdin, or from --from-file.\n"
            "Exit codes: 0 done, 1 a check found a violation, 2 failed, 3 usage, 4 denied, 5 not found,\n"
            "6 unreachable or sealed.\n"
        )


_EXAMPLES = """
keyhole add stripe
keyhole run -- claude
keyhole set stripe/api-key < key.txt
KEYHOLE_ADDR=https://keyhole.internal:8200 keyhole list
"""


@click.pass_context
def _nothing(context: click.Context) -> None:
    """AI agents use credentials without ever holding them."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


root = _Root(
    "keyhole",
    params=[*shared_options(hidden=False)],
    callback=_nothing,
    help="AI agents use credentials without ever holding them.",
    invoke_without_command=True,
    examples=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
