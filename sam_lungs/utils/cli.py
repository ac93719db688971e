"""Command lines: options from the fields of a dataclass, one-line errors, exit statuses.

Exit statuses: 0 success; 1 bad input, a mistake on the command line, or a standard output that
cannot be written; 130 Ctrl-C; 143 SIGTERM. A reader that ends early (`| head`), a closed output,
and a standard error that cannot be written change nothing: the status is that of the work.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, field, fields
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, get_args, get_type_hints

import sam_lungs
from sam_lungs.utils.config_file import config_words
from sam_lungs.utils.errors import InputError, is_out_of_memory, report
from sam_lungs.utils.output import lost_output, protect_output
from sam_lungs.utils.parser import Parser, takes_several

T = TypeVar("T")

CONFIG_HELP = (
    "YAML file with options by their names, as model: vit_b; the command line overrules it"
    " (docs/running.md)"
)


def run_script(main: Callable[[], int | None], resume: str = "run the same command again") -> None:
    """Run a script's `main` and exit with its status.

    resume: printed after SIGINT and SIGTERM: how to resume.

    `InputError` and too little memory give one line on standard error and exit status 1. SIGINT
    (Ctrl-C) and SIGTERM end the process immediately, without clean-up: all files are crash-safe.
    Printing never ends it, see `output.protect_output`. When standard output cannot be written, as
    on a full disk, the work goes on to its end; then there is one line, and status 1.
    """
    protect_output()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A signal that the caller ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, partial(_interrupt, resume))
    try:
        status = main()
    except SystemExit as ended:  # of --help and --version
        status = ended.code
    except InputError as error:
        report(error)
        status = 1
    except UnicodeEncodeError as error:
        # In a table or a page. Python has a surrogate for a byte that is not UTF-8.
        if not "\ud800" <= error.object[error.start] <= "\udfff":
            raise
        report(InputError(f"{_word_of(error)}: its name is not UTF-8; rename it"))
        status = 1
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        report(InputError("too little memory; close other programs, or use a larger machine"))
        status = 1
    if lost := lost_output():
        report(
            InputError(
                f"standard output: cannot be written ({lost.strerror}), so part of it is missing,"
                " but no file is; send it elsewhere and run the same command again"
            )
        )
        status = status or 1
    sys.exit(status)


def _word_of(error: UnicodeEncodeError) -> str:
    """Return the word in a text that cannot be encoded."""
    before, after = error.object[: error.start], error.object[error.start :]
    edge = r"""\s"'<>,:"""
    return re.search(f"[^{edge}]*$", before)[0] + re.match(f"[^{edge}]*", after)[0]


def _interrupt(resume: str, number: int, _frame: FrameType | None) -> None:
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(OSError):
        os.write(2, f"\ninterrupted: finished work is kept; to resume, {resume}\n".encode())
    # Not sys.exit, which waits for running threads.
    os._exit(128 + number)


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

    Values that are not there are taken from the file of `--config`, if that is given.

    example: a command line that works, shown at the end of `--help`. prog: the program's name in
        `--help`, for a module that is run with `python -m`.

    Raises `InputError` for a mistake on the command line or in the file of `--config`.
    """
    words = sys.argv[1:]
    # What is required may be in the file.
    has_config = any(word.partition("=")[0] == "--config" for word in words)
    parser = Parser(prog=prog, description=description, epilog=f"example:\n  {example}")
    parser.add_argument("--version", action="version", version=sam_lungs.__version__)
    parser.add_argument("--config", type=Path, metavar="FILE", help=CONFIG_HELP)
    groups, hints = {}, get_type_hints(options_class)
    for each in fields(options_class):
        name = each.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(name)
        is_required = each.default is MISSING and not has_config
        _add_option(groups[name], each, hints[each.name], is_required)
    values = parser.values(words)
    config = values.pop("config", None)
    if config:
        values = _config_values(config, options_class, parser) | values
    for each in fields(options_class):
        if each.default is MISSING and each.name not in values:
            raise InputError(f"{config}: has no {each.name}; add it, or give --{each.name}")
    return options_class(**values)


def _config_values(path: Path, options_class: type, parser: Parser) -> dict[str, Any]:
    values = {}
    for words in config_words(path, options_class):
        try:
            values |= parser.values(words)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return values


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


def _add_option(
    group: argparse._ArgumentGroup, each: Field, hint: object, is_required: bool
) -> None:
    metadata, names, shown = each.metadata, option_names(each), shown_default(each)
    help = metadata["help"] + (f" (default: {shown})" if shown else "")
    if isinstance(each.default, bool):
        on = [name for name in names if not name.startswith("--no_")]
        group.add_argument(*on, action="store_true", help=help)
        # To overrule a config file, also for a switch that is off by default.
        help = f"turn --{each.name} off" if each.default else argparse.SUPPRESS
        group.add_argument(f"--no_{each.name}", action="store_false", dest=each.name, help=help)
        return
    arguments = {"nargs": "*", "default": None}
    if not metadata["positional"]:
        arguments = {"required": is_required, "nargs": "+" if takes_several(hint) else None}
    prefix = "" if metadata["positional"] else f"--{each.name} "
    inner = next((each for each in get_args(hint) if each is not type(None)), hint)
    group.add_argument(
        *names,
        **arguments,
        type=_named_parser(prefix, metadata["parse"]) if metadata["parse"] else inner,
        choices=metadata["choices"],
        metavar=metadata["metavar"],
        help=help,
    )


def _named_parser(prefix: str, parse: Callable[[str], object]) -> Callable[[str], object]:
    @wraps(parse, updated=())  # argparse shows the name: "invalid int value"
    def parse_value(text: str) -> object:
        try:
            if text.endswith(","):
                raise InputError("ends with a comma; leave it out, or the space after it")
            return parse(re.sub(r"\s*,\s*", ",", text))
        except InputError as error:
            raise InputError(f"{prefix}{text}: {error}") from None

    return parse_value
