"""Completion for shells that click knows nothing of: PowerShell and Elvish."""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

SHELLS = ("bash", "elvish", "fish", "powershell", "zsh")


class _Lines(ShellComplete):
    """One that takes a completion a line."""

    def format_completion(self, item: CompletionItem) -> str:
        """See ``ShellComplete``."""
        return str(item.value)


@add_completion_class
class PowerShell(_Lines):
    """Gives the command line as it stands, and the word that is completed."""

    name: ClassVar[str] = "powershell"
    source_template: ClassVar[str] = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $env:%(complete_var)s = 'powershell_complete'
    $env:COMP_WORDS = $commandAst.ToString()
    $env:COMP_CWORD = $wordToComplete
    %(prog_name)s | ForEach-Object {
        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
    }
    Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """See ``ShellComplete``."""
        words = split_arg_string(os.environ["COMP_WORDS"])[1:]
        word = os.environ["COMP_CWORD"]
        return (words[:-1] if word else words), word


@add_completion_class
class Elvish(_Lines):
    """Gives the words, one a line; the last is the one that is completed."""

    name: ClassVar[str] = "elvish"
    source_template: ClassVar[str] = """\
use str
set edit:completion:arg-completer[%(prog_name)s] = {|@words|
    env %(complete_var)s=elvish_complete COMP_WORDS=(str:join "\\n" $words) %(prog_name)s | from-lines
}
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        """See ``ShellComplete``."""
        words = os.environ["COMP_WORDS"].split("\n")[1:]
        return words[:-1], words[-1] if words else ""
