"""`workbench` without the seconds that importing takes: one process has imported everything and forks itself a command.

`python -I -S quick_start.py SOCKET ARGUMENT…` asks for one, with its own folder, environment, input and output, and ends as
that command ends; the signals that end it end the command. `python quick_start.py SOCKET` is the process that is asked. It
ends when its input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import sys
from typing import Any, NoReturn

_LENGTH = struct.Struct("!I")
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What commands of the documentation import: some of it is of extras that need not be installed.
_HEAVY = {
    "torch": (),
    "transformers": ("AutoModelForCausalLM", "AutoTokenizer", "LlamaForCausalLM", "PreTrainedTokenizerFast", "Trainer"),
    "peft": (),
    "trl": ("SFTTrainer", "DPOTrainer"),
    "polars": (),
    "scipy.stats": (),
    "altair": (),
    "sqlalchemy.orm": (),
    "uvicorn": (),
    "workbench.api": (),
    "workbench.cli.main": (),
    "workbench.finetune.train": (),
    "workbench.serving.app": (),
    "workbench.tuning.tune": (),
}


def ask(address: str, arguments: list[str]) -> int:
    """Have a command run; its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for number in _PASSED_ON:
            signal.signal(number, lambda given, _: connection.send(bytes([given])))
        request = json.dumps([os.getcwd(), dict(os.environ), arguments]).encode()
        socket.send_fds(connection, [_LENGTH.pack(len(request))], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(1)
    return answer[0] if answer else 1


def wait_and_fork(address: str) -> None:
    """Return in each process that is to be a command, with its folder, environment and arguments; never in this one."""
    import selectors

    _import()
    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as selector:
        server.bind(address)
        server.listen(16)
        selector.register(server, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not any(key.fileobj is sys.stdin for key, _ in selector.select()):
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                return _watch(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass
    sys.exit()


def _watch(connection: socket.socket) -> None:
    """Fork the command, in which this returns; pass on its signals and its exit code."""
    import selectors

    head, files, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
    (length,) = _LENGTH.unpack(head)
    request = b""
    while len(request) < length:
        request += connection.recv(length - len(request))
    ends, end = os.pipe()
    child = os.fork()
    if child == 0:
        connection.close()
        # `end` stays open for as long as this process is there.
        return _become(files, *json.loads(request))
    os.close(end)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(ends, selectors.EVENT_READ)
        while not any(key.fd == ends for key, _ in selector.select()):
            # Who asked and is gone wants no command.
            given = connection.recv(1)
            os.kill(child, given[0] if given else signal.SIGKILL)
            if not given:
                os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _become(files: list[int], folder: str, surroundings: dict[str, str], arguments: list[str]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(surroundings)
    for place in filter(None, surroundings.get("PYTHONPATH", "").split(os.pathsep)):
        sys.path.insert(0, place)
        # What lies there comes before what was imported from elsewhere.
        for name in [name for name in sys.modules if os.path.exists(os.path.join(place, name.partition(".")[0]))]:
            del sys.modules[name]
    sys.argv = [os.path.join(os.path.dirname(sys.executable), "workbench"), *arguments]
    # This file is no notebook that a run could have been made by.
    sys.modules["__main__"].__file__ = sys.argv[0]


def _run() -> NoReturn:
    import atexit
    import threading
    import traceback

    from workbench.cli.main import main

    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    # As the interpreter ends, but for tidying away all that was imported, which takes longer than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _import() -> None:
    import gc
    import importlib

    with contextlib.suppress(ImportError):
        from workbench.models.store import share_cores, stay_offline

        share_cores()
        stay_offline()
    for name, parts in _HEAVY.items():
        with contextlib.suppress(ImportError):
            module: Any = importlib.import_module(name)
            for part in parts:
                getattr(module, part)
    gc.freeze()


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    wait_and_fork(sys.argv[1])
    _run()
