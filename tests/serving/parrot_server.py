"""The command line with a stand-in for the model `tiny`: `python -m tests.serving.parrot_server serve greet@prod`."""

from __future__ import annotations

from tests.serving.answering import Parrot
from workbench.cli.main import main
from workbench.models.engines import register_engine

if __name__ == "__main__":
    engine = Parrot()
    register_engine("tiny", lambda name, quantization: engine)
    main()
