"""The command line: one place for what each command takes, so that only the command that is run has to be imported."""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

DEFAULT_INSTANCE = "/run/ipsecd"
DEFAULT_SPD = "/etc/ipsec.spd"
DEFAULT_TIMEOUT_S = 30.0


class Command(NamedTuple):
    """One verb; `ipsecctl.commands.NAME` has its `run`."""

    name: str
    help: str
    example: str
    aliases: tuple[str, ...] = ()
    takes_spd: bool = False
    takes_json: bool = False
    takes_lsb: bool = False
    needs_root: bool = True
    add_options: Callable[[argparse.ArgumentParser], None] | None = None
    """Adds what this command alone takes."""


def _add_packet(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "file", metavar="FILE", nargs="?", help=f"policy file (default: the one that runs, else {DEFAULT_SPD})"
    )
    verb.add_argument("--src", metavar="ADDRESS", required=True, help="the packet's source address")
    verb.add_argument("--dst", metavar="ADDRESS", required=True, help="its destination address")
    verb.add_argument("--proto", metavar="NAME", help="its protocol, by name or number")
    verb.add_argument("--sport", metavar="PORT", help="its source port")
    verb.add_argument("--dport", metavar="PORT", help="its destination port")
    verb.add_argument("--icmp-type", metavar="TYPE[/CODE]", help="its ICMP type, by name or number")
    verb.add_argument("--interface", metavar="NAME", help="where it comes in; where it goes out with --dir out")
    verb.add_argument("--out-interface", metavar="NAME", help="where it goes out with --dir fwd")
    verb.add_argument("--dir", choices=("in", "out", "fwd"), default="out", help="which way it goes (default out)")


def _add_check(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--kernel", action="store_true", help="try in a network namespace aside what only the kernel says"
    )
    _add_checked_file(verb)


def _add_checked_file(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", metavar="FILE", nargs="?", help=f"policy file (default {DEFAULT_SPD})")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f'"{text}" is no number of seconds above 0')
    return seconds


def _add_confirm(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--confirm",
        metavar="SECONDS",
        type=_seconds,
        default=0.0,
        help="go back by itself after so long, unless `ipsecctl confirm` is given before",
    )


def _add_cut_me_off(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--cut-me-off", action="store_true", help="do it even if it cuts your own SSH connection")


def _add_ways_back(verb: argparse.ArgumentParser) -> None:
    _add_confirm(verb)
    _add_cut_me_off(verb)


def _add_reload(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dry-run", action="store_true", help="say what a reload would change, and which SAs it cuts")
    _add_confirm(verb)
    _add_cut_me_off(verb)


def _add_policy(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "action", choices=("history", "rollback"), help="show the policies that were in force, or go back to one"
    )
    verb.add_argument("number", metavar="NUMBER", type=int, nargs="?", help="the one to go back to, as in the history")
    _add_confirm(verb)
    _add_cut_me_off(verb)


def _add_start(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-b", "--backup", action="store_true", help="start on the backup of the policy file")
    verb.add_argument("-l", "--log-unmatched", action="store_true", help="log packets that no rule matches")
    verb.add_argument("-m", "--level", metavar="LEVEL", help="message level, 0 to 2")
    verb.add_argument("-o", "--output", metavar="FILE", help="write the log to FILE")
    verb.add_argument("--boot", action="store_true", help="only if ipsecd is enabled to come up at boot")
    _add_confirm(verb)
    _add_cut_me_off(verb)


def _add_secure(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--boot", action="store_true", help="only if secure mode was on when the machine went down")
    _add_confirm(verb)
    _add_cut_me_off(verb)


def _add_switch(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("switch", choices=("on", "off"), help="log them, or don't")


def _add_insecure(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--yes", action="store_true", help="do not ask")


def _add_rule(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("rule", metavar="RULE", help="a protect rule of the policy")
    _add_timeout(verb)


def _add_rule_or_peer(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("target", metavar="RULE|PEER", help="a protect rule of the policy, or else a peer")
    _add_timeout(verb)


def _add_rule_peer_or_spi(verb: argparse.ArgumentParser) -> None:
    help_text = "a protect rule: its Child SAs; a peer: its IKE SAs; or the SPI of a Child SA or IKE SA in hex"
    verb.add_argument("target", metavar="RULE|PEER|SPI", help=help_text)
    _add_timeout(verb)


def _add_why(verb: argparse.ArgumentParser) -> None:
    help_text = "a peer, a protect rule, or the address of somebody who is no peer"
    verb.add_argument("target", metavar="PEER|RULE|ADDRESS", help=help_text)
    _add_timeout(verb)


def _add_timeout(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=DEFAULT_TIMEOUT_S, help="wait no longer (default 30)"
    )


def _add_monitor(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--count", metavar="NUMBER", type=int, default=0, help="end after so many events")


def _add_capture_keys(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("directory", metavar="DIRECTORY", help="where the two tables are written; it is made if need be")
    verb.add_argument("--peer", metavar="NAME", default="", help="only the SAs with this peer")
    _add_timeout(verb)


COMMANDS = (
    Command(
        name="start",
        help="start ipsecd; nothing to do if it runs",
        example="ipsecctl start --spd /etc/ipsec.spd",
        takes_spd=True,
        add_options=_add_start,
    ),
    Command(
        name="stop",
        help="stop ipsecd, tear down all connections, and clean up after any accident",
        example="ipsecctl stop",
        add_options=_add_ways_back,
    ),
    Command(
        name="restart",
        help="stop, then start; nothing is stopped for a policy file that is not good",
        example="ipsecctl restart",
        takes_spd=True,
        add_options=_add_ways_back,
    ),
    Command(
        name="condrestart",
        aliases=("try-restart",),
        help="restart ipsecd if it runs, as restart does; else nothing",
        example="ipsecctl condrestart",
        takes_spd=True,
        add_options=_add_ways_back,
    ),
    Command(
        name="reload",
        aliases=("force-reload",),
        help="read the policy file again; what runs goes on if the file is not good",
        example="ipsecctl reload --confirm 60",
        takes_json=True,
        add_options=_add_reload,
    ),
    Command(
        name="confirm",
        help="keep what a start, secure, a reload or a rollback with --confirm has done",
        example="ipsecctl confirm",
    ),
    Command(
        name="policy",
        help="show the policies that were in force, or go back to one of them",
        example="ipsecctl policy rollback 3 --confirm 60",
        takes_spd=True,
        takes_json=True,
        add_options=_add_policy,
    ),
    Command(
        name="status",
        help="say how ipsecd is; exit code 1 if something strange is found",
        example="ipsecctl status --json",
        takes_json=True,
        takes_lsb=True,
    ),
    Command(
        name="list",
        help="list all IKE SAs and Child SAs, with their traffic and when they are rekeyed",
        example="ipsecctl list --json",
        takes_json=True,
        add_options=_add_timeout,
    ),
    Command(
        name="up",
        help="have the SAs of a rule negotiated, and wait for them",
        example="ipsecctl up branch-lan",
        takes_json=True,
        add_options=_add_rule,
    ),
    Command(
        name="down",
        help="delete the SAs of a rule or a peer; a packet may bring them up again",
        example="ipsecctl down branch-lan",
        takes_json=True,
        add_options=_add_rule_or_peer,
    ),
    Command(
        name="rekey",
        help="have SAs take new keys now; no packet is lost",
        example="ipsecctl rekey branch",
        takes_json=True,
        add_options=_add_rule_peer_or_spi,
    ),
    Command(
        name="why",
        help="say why the last negotiation with a peer failed, and what would have matched",
        example="ipsecctl why branch",
        takes_json=True,
        add_options=_add_why,
    ),
    Command(
        name="monitor",
        help="show what happens to SAs, processes and policy, as it happens",
        example="ipsecctl monitor --json",
        takes_json=True,
        add_options=_add_monitor,
    ),
    Command(
        name="capture-keys",
        help="write the keys of the present SAs as tables for Wireshark; who has them can read the traffic",
        example="ipsecctl capture-keys --peer branch ./keys",
        takes_json=True,
        add_options=_add_capture_keys,
    ),
    Command(
        name="doctor",
        help="say what this machine can do for IPsec, and what is missing; exit code 1 if ipsecd can't work",
        example="ipsecctl doctor --spd /etc/ipsec.spd",
        takes_spd=True,
        takes_json=True,
    ),
    Command(
        name="check",
        help="say what is wrong with a policy file, and what is doubtful; exit code 1 if it is not good",
        example="ipsecctl check --kernel /etc/ipsec.spd",
        takes_json=True,
        add_options=_add_check,
    ),
    Command(
        name="explain",
        help="say which rule decides about a packet, what is done with it, and by which SA",
        example="ipsecctl explain --src 10.1.0.5 --dst 10.2.0.9 --proto tcp --dport 443",
        takes_json=True,
        add_options=_add_packet,
    ),
    Command(
        name="secure",
        help="enter secure mode: the kernel drops what the policy does not allow, with or without ipsecd",
        example="ipsecctl secure",
        add_options=_add_secure,
    ),
    Command(
        name="insecure",
        help="leave secure mode; the policy of an ipsecd that runs goes on",
        example="ipsecctl insecure --yes",
        add_options=_add_insecure,
    ),
    Command(
        name="log-unmatched",
        help="log packets that no rule of the policy matches, while ipsecd runs",
        example="ipsecctl log-unmatched on",
        add_options=_add_switch,
    ),
    Command(name="enable", help="have ipsecd come up at boot", example="ipsecctl enable"),
    Command(
        name="disable",
        help="have ipsecd not come up at boot; its next stop ends secure mode",
        example="ipsecctl disable",
    ),
    Command(name="version", help="say the version", example="ipsecctl version", needs_root=False),
)


# A fixed width: to ask the terminal for its own, argparse loads more than all else that a status needs.
_FORMATTER = functools.partial(argparse.RawDescriptionHelpFormatter, width=80)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command and its options; SystemExit with 2 and the usage on stderr if there is no such command."""
    parser = argparse.ArgumentParser(
        prog="ipsecctl",
        description="Control the IP security (IPsec) daemon.",
        epilog="examples:\n" + "\n".join(f"  {command.example:<38} {command.help}" for command in COMMANDS),
        formatter_class=_FORMATTER,
    )
    _add_instance(parser, DEFAULT_INSTANCE)
    # Named, or else argparse loads much to find out how it is called.
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, prog="ipsecctl")
    # Only what is asked for, if it can be told: a parser for each takes longer than a status does.
    place, named = _command_in(arguments)
    for command in named or COMMANDS:
        verb = verbs.add_parser(
            command.name,
            aliases=command.aliases,
            help=command.help,
            description=command.help,
            epilog=f"example: {command.example}",
            formatter_class=_FORMATTER,
        )
        # The option may stand on either side of the command; here it must not overwrite what stood before it.
        _add_instance(verb, argparse.SUPPRESS)
        if command.takes_spd:
            verb.add_argument("--spd", "-f", metavar="FILE", help=f"Security Policy Database (default {DEFAULT_SPD})")
        if command.takes_json:
            verb.add_argument("--json", action="store_true", help="as JSON, with everything")
        if command.takes_lsb:
            verb.add_argument(
                "--lsb", action="store_true", help="exit with 0 running, 1 or 2 dead but not cleaned up, 3 stopped"
            )
        if command.add_options is not None:
            command.add_options(verb)
        verb.set_defaults(command=command.name, needs_root=command.needs_root)
    # `--start` is another spelling of `start`; behind it, `--confirm` is an option.
    plain = [argument.removeprefix("--") if index == place else argument for index, argument in enumerate(arguments)]
    return parser.parse_args(plain)


def _add_instance(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--instance", metavar="DIR", default=default, help=f"run directory (default {DEFAULT_INSTANCE})"
    )


def _command_in(arguments: list[str]) -> tuple[int, tuple[Command, ...]]:
    """Where the command stands, and which it is; -1 and nothing if there is none."""
    for index, argument in enumerate(arguments):
        named = tuple(command for command in COMMANDS if _names(command, argument))
        if named:
            return index, named
    return -1, ()


def _names(command: Command, argument: str) -> bool:
    return argument.removeprefix("--") in (command.name, *command.aliases)
