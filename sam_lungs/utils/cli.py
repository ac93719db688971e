"""Command lines: options from the fields of a dataclass, one-line errors, exit statuses.

Exit statuses: 0 success, 1 bad input or a mistake on the command line, 130 Ctrl-C, 141 closed
output, 143 SIGTERM.
"""

import argparse
import difflib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, field, fields
from functools import partial, wraps
from types import FrameType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import sam_lungs
from sam_lungs.utils.errors import InputError, is_out_of_memory, report

T = TypeVar("T")


def run_script(main: Callable[[], int | None], resume: str = "run the same command again") -> None:
    """Run a script's `main` and exit with its status.

    resume: printed after SIGINT and SIGTERM: how to resume.

    `InputError` and too little memory give one line on standard error and exit status 1. SIGINT
    (Ctrl-C), SIGTERM and a closed output end the process immediately, without clean-up: all files
    are crash-safe.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # A signal that the caller ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, partial(_interrupt, resume))
    try:
        status = main()
        print(end="", flush=True)
        sys.exit(status)
    except BrokenPipeError:  # the reader of the output has ended, as with `| head`
        os._exit(128 + signal.SIGPIPE)
    except InputError as error:
        report(error)
        sys.exit(1)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        report(InputError("too little memory; close other programs, or use a larger machine"))
        sys.exit(1)


def _interrupt(resume: str, number: int, _frame: FrameType | None) -> None:
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, f"\ninterrupted: finished work is kept; to resume, {resume}\n".encode())
    # Not sys.exit, which waits for running threads.
    os._exit(128 + number)


class _Parser(argparse.ArgumentParser):
    """argparse, but a mistake raises `InputError`, and names may have `-` in place of `_`."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        args = [_with_underscores(text) for text in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # Without a positional argument, Python 3.11 checks the empty list against the choices.
        if value != []:
            super()._check_value(action, value)

    def error(self, message: str) -> None:
        """Raise `InputError`; for an unknown option, suggest the most similar one."""
        unknown = re.fullmatch(r"unrecognized arguments: (-\S+).*", message, re.DOTALL)
        if unknown:
            name = unknown[1].partition("=")[0]
            nearest = difflib.get_close_matches(name, self._option_string_actions, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else "--help lists the options"
            raise InputError(f"unknown option {name}; {hint}")
        raise InputError(f"{' '.join(message.split())}; see --help")


def _with_underscores(text: str) -> str:
    if not text.startswith("--"):
        return text
    name, equals, value = text[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def option(
    help: str,
    default: object = MISSING,
    group: str = "options",
    short: str | None = None,
    *,
    parse: Callable[[str], object] | None = None,
    positional: bool = False,
    choices: Sequence[str] | None = None,
    metavar: str | None = None,
    shown_default: str | None = None,
    decides: bool = False,
) -> Any:
    """Return a dataclass field that is also a command-line option of the same name.

    Values are parsed by the field's type; a `list` or `Sequence` takes one or more values.

    help: for `--help` and the docs. default: without one the option is mandatory; True makes a pair
        of switches `--name` and `--no_name`, False one switch.
    group: heading in `--help`. short: a short form such as `-i`.
    parse: text -> value, in place of the type; raises `InputError` with the rest of the sentence
        "--name text: ...".
    positional: values without an option name. shown_default: shown in place of the default.
    decides: whether another value gives other results, see `study.run_record`.
    """
    metadata = {name: value for name, value in locals().items() if name != "default"}
    return field(default=default, metadata=metadata)


def parse_options(
    options_class: type[T], description: str, example: str, prog: str | None = None
) -> T:
    """Parse the command line into an instance of a dataclass whose fields are `option`s.

    example: a command line that works, shown at the end of `--help`. prog: the program's name in
        `--help`, for a module that is run with `python -m`.

    Raises `InputError` for a mistake on the command line.
    """
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Otherwise argparse treats the value in `--window -650,1500` as an option.
    parser._negative_number_matcher = re.compile(r"-\.?\d.*$")
    parser.add_argument("--version", action="version", version=sam_lungs.__version__)
    groups, hints = {}, get_type_hints(options_class)
    for each in fields(options_class):
        name = each.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        _add_option(groups[name], each, hints[each.name])
    values = vars(parser.parse_args())
    # An empty list is a positional argument that was not given; the field's default is used.
    return options_class(**{name: value for name, value in values.items() if value != []})


def option_names(each: Field) -> list[str]:
    """Return the names of an option on the command line."""
    if each.metadata["positional"]:
        return [each.name]
    names = [each.metadata["short"], f"--{each.name}"]
    if each.default is True:
        names.append(f"--no_{each.name}")
    return [name for name in names if name]


def shown_default(each: Field) -> str | None:
    """Return the default of an option as text for the user; None when there is none to show."""
    if each.metadata["shown_default"]:
        return each.metadata["shown_default"]
    if each.default in (None, MISSING) or isinstance(each.default, bool):
        return None
    return str(each.default)


def _add_option(group: argparse._ArgumentGroup, each: Field, hint: object) -> None:
    metadata, names, shown = each.metadata, option_names(each), shown_default(each)
    help = metadata["help"] + (f" (default: {shown})" if shown else "")
    if isinstance(each.default, bool):
        on = [name for name in names if not name.startswith("--no_")]
        group.add_argument(*on, action="store_true", default=each.default, help=help)
        if each.default:
            off = {"dest": each.name, "help": f"turn --{each.name} off"}
            group.add_argument(names[-1], action="store_false", **off)
        return
    several = get_origin(hint) in (list, Sequence)
    arguments = {"nargs": "*"}
    if not metadata["positional"]:
        is_required = each.default is MISSING
        arguments = {"required": is_required, "nargs": "+" if several else None}
        arguments["default"] = None if is_required else each.default
    inner = next((each for each in get_args(hint) if each is not type(None)), hint)
    group.add_argument(
        *names,
        **arguments,
        type=_named_parser(each.name, metadata["parse"] or inner),
        choices=metadata["choices"],
        metavar=metadata["metavar"],
        help=help,
    )


def _named_parser(name: str, parse: Callable[[str], object]) -> Callable[[str], object]:
    @wraps(parse, updated=())  # argparse shows the name: "invalid int value"
    def parse_value(text: str) -> object:
        try:
            return parse(text)
        except InputError as error:
            raise InputError(f"--{name} {text}: {error}") from None

    return parse_value
