"""The entrance: ``main`` turns whatever happens into an exit code and at most one message.

Exit codes: 0 done, 1 a check found a violation, 2 failed or cannot tell, 3 usage, 4 denied, 5 not found,
6 unreachable or sealed, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

from keyhole.cli.base import PROG, Session, interruptions
from keyhole.cli.root import root
from keyhole.core.errors import InternalError, InvalidRequest, KeyholeError

_COMPLETE = "_KEYHOLE_COMPLETE"
FAILED, USAGE, INTERRUPTED, UNREAD = 2, 3, 130, 141
_UNWRITABLE = {errno.EBADF, errno.EFBIG, errno.EIO, errno.ENOSPC}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command, and give its exit code.

    Args:
        args: what follows the program's name; the process's own arguments by default, and then the process is its own.
    """
    words = list(sys.argv[1:] if args is None else args)
    if os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete  # noqa: PLC0415  # only a shell asks for it

        from keyhole.cli.names import limit_time  # noqa: PLC0415  # the same

        limit_time()
        return shell_complete(root, {"obj": Session()}, PROG, _COMPLETE, os.environ[_COMPLETE])
    # A usage error can come before --json was read, and its reader is the same program.
    json = "--json" in words[: words.index("--") if "--" in words else None]
    session = Session(json=json, program=args is None)
    try:
        return _run(words, session)
    except BrokenPipeError:
        # Python would complain at exit that it cannot flush; there is nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    except interruptions():
        import warnings  # noqa: PLC0415  # few commands are interrupted

        # What was cut between being asked and being begun is no mistake of anybody's.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        return INTERRUPTED


def _run(words: list[str], session: Session) -> int:
    try:
        try:
            with root.make_context(PROG, words, obj=session) as context:
                result = root.invoke(context)
            sys.stdout.flush()
        finally:
            session.close()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else PROG
        session.out.error(InvalidRequest(error.format_message(), f"{where} --help"))
        return USAGE
    except KeyholeError as error:
        session.out.error(error)
        _trace()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, BrokenPipeError):
        raise
    except click.ClickException as error:
        session.out.error(KeyholeError(error.format_message()))
        return FAILED
    except OSError as error:
        session.out.error(_system_error(error))
        _trace()
        return FAILED
    except Exception as error:  # noqa: BLE001  # whatever it is, a person gets one line and a script gets a code
        session.out.error(_internal_error(error))
        _trace()
        return FAILED
    return result if isinstance(result, int) else 0


def _system_error(error: OSError) -> KeyholeError:
    """What the system refused: a file or folder that it names, else what was printed."""
    if error.filename is not None:
        return KeyholeError(f"{error.filename}: {error.strerror}", "check that it is yours and can be written")
    if error.errno in _UNWRITABLE:
        return KeyholeError(f"the output cannot be written: {error.strerror}")
    if isinstance(error, FileNotFoundError) and not _has_folder():
        return InvalidRequest("the folder where this was started is gone", "go to another one: cd")
    return _internal_error(error)


def _has_folder() -> bool:
    try:
        return bool(os.getcwd())  # noqa: PTH109  # Path.cwd() is the same
    except FileNotFoundError:
        return False


def _internal_error(error: Exception) -> KeyholeError:
    # The text of an unknown error could quote a value; its type cannot.
    hint = "run it again with KEYHOLE_DEBUG=1 and report what it says"
    return InternalError(f"internal error: {type(error).__name__}", hint)


def _trace() -> None:
    if os.environ.get("KEYHOLE_DEBUG") == "1":
        import traceback  # noqa: PLC0415  # only for whoever looks for a fault of ours

        traceback.print_exc()  # no locals, where values are
