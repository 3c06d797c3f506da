"""The programs that pages call: Python's run in a process that has imported them, the others are checked.

Examples and benchmarks take minutes and have tests of their own; here a script is run until it has read its
arguments, so that a wrong option or module fails. What would install or download something is replaced by a
check of what it is asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
import types
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tests.helpers import page_files
from tests.helpers.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]

BASH = shutil.which("bash") or "bash"  # found before the folder of these commands is in the path


def refuse(message: str) -> None:
    """End this program as with a wrong command line."""
    sys.stderr.write(f"{message}\n")
    raise SystemExit(2)


# --- Programs that run -----------------------------------------------------------------------


def python(arguments: list[str]) -> None:
    """Run ``-c code``, ``-m module`` or a script."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), vars(main))
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        if arguments[1].startswith("benchmarks."):
            stop_after_arguments()
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        script = Path(arguments[0])
        if script.parent == Path("examples"):
            script = ROOT / script
            stop_after_arguments()
        sys.argv = [str(script), *arguments[1:]]
        sys.path.insert(0, str(script.parent))
        runpy.run_path(str(script), run_name="__main__")


def stop_after_arguments() -> None:
    """End a program as soon as its arguments are read and correct."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *args: Any) -> None:
        parse(parser, *args)
        raise SystemExit(0)

    argparse.ArgumentParser.parse_args = parse_and_stop  # type: ignore[method-assign, assignment]


def flip_sklearn(arguments: list[str]) -> None:
    """Run the command line of the package; a page to explore is read once, at a free port."""
    from flip_sklearn.cli import main

    if "explore" in arguments[:1]:
        from flip_sklearn.cli.explorer.server import Server

        serve = Server.run

        def serve_once(server: Server) -> None:
            thread = threading.Thread(target=serve, args=(server,))
            thread.start()
            read_page(server.url)
            server.stop()
            thread.join()
            raise SystemExit(0)

        Server.run = serve_once  # type: ignore[method-assign]
        arguments += ["--port", "0"]
    main(arguments)


def read_page(url: str) -> None:
    """Wait until a server answers."""
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as page:
            assert b"gradio" in page.read()
            return
        time.sleep(0.05)
    refuse(f"there is no page at {url}")


def torchrun(arguments: list[str]) -> int:
    """Run a script in several processes; of a call for several machines read the arguments only."""
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    if not Path(given.training_script).is_file():
        refuse(f"there is no {given.training_script}")
    if not given.standalone:
        return 0
    n_processes, children = int(given.nproc_per_node), []
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for rank in range(n_processes):
        if (pid := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n_processes)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            python([given.training_script, *given.training_script_args])
            return 0
        children.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children)


def bash(arguments: list[str]) -> int:
    """Read a script of the benchmarks, which takes minutes, without running it; run any other one."""
    if arguments[0].startswith("benchmarks/"):
        arguments = ["-n", str(ROOT / arguments[0])]
    return subprocess.run([BASH, *arguments]).returncode


# --- Programs whose arguments are checked ----------------------------------------------------


def pip(arguments: list[str]) -> None:
    """Check that requirements can be read, and that the package has the extras."""
    parser = argparse.ArgumentParser("pip", allow_abbrev=False)
    parser.add_argument("command", choices=["install"])
    parser.add_argument("requirements", nargs="+")
    parser.add_argument("--index-url", type=re.compile("https://.+").fullmatch)
    parser.add_argument("--editable", "-e", action="store_true")
    for flag in ("--no-deps", "--upgrade", "--quiet"):
        parser.add_argument(flag, action="store_true")
    for text in parser.parse_args(arguments).requirements:
        found = re.fullmatch(r"\.(\[.+\])?", text)
        requirement = Requirement(f"{PROJECT['name']}{found[1] or ''}" if found else text)
        if requirement.name == PROJECT["name"]:
            missing = requirement.extras - set(PROJECT["optional-dependencies"])
            if missing:
                refuse(f"pip: there is no extra {', '.join(sorted(missing))}")


def make(arguments: list[str]) -> None:
    """Check that the Makefile has the targets."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf8")
    targets = set(re.findall(r"^([\w-]+):", makefile, flags=re.MULTILINE))
    if missing := {name for name in arguments if "=" not in name} - targets:
        refuse(f"make: there is no target {', '.join(sorted(missing))}")


def git(arguments: list[str]) -> None:
    """Check the address of the repository, and make its folder."""
    if arguments != ["clone", PROJECT["urls"]["Source"]]:
        refuse(f"git: {arguments} is not the command that clones {PROJECT['urls']['Source']}")
    Path(PROJECT["urls"]["Source"].rpartition("/")[2]).mkdir()


def apt_get(arguments: list[str]) -> None:
    """Check the form of the command."""
    command, *packages = arguments
    if command != "install" or not all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in packages):
        refuse(f"apt-get: {arguments}")


def hf(arguments: list[str]) -> None:
    """Write small files in the place of the published data."""
    parser = argparse.ArgumentParser("hf", allow_abbrev=False)
    parser.add_argument("command", choices=["download"])
    parser.add_argument("repository", choices=["BUT-FIT/FLiP-data"])
    parser.add_argument("--repo-type", choices=["dataset"], required=True)
    parser.add_argument("--local-dir", type=Path, required=True)
    page_files.write_published_data(parser.parse_args(arguments).local_dir)


COMMANDS: dict[str, Callable[[list[str]], int | None]] = {
    "python": python,
    "flip-sklearn": flip_sklearn,
    "torchrun": torchrun,
    "bash": bash,
    "pip": pip,
    "make": make,
    "git": git,
    "apt-get": apt_get,
    "hf": hf,
}
