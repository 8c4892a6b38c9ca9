"""The command line, which at a moment of its run sends itself signals: `stopping_command.py MOMENT SIGNALS train ...`.

MOMENT: the beginning of a progress line, such as "step 3/". SIGNALS: names with commas between; before them "group"
sends them to the whole process group, as a terminal and some schedulers do, and "rank 1" means this process alone.
"""

import os
import signal
import sys

from veduta.cli import app
from veduta.engine.progress import ProgressLine

moment, names = sys.argv[1:3]
del sys.argv[1:3]
update = ProgressLine.update


def stop(self: ProgressLine, text: str) -> None:
    global moment
    if moment and text.startswith(moment):
        moment = ""
        whom, *numbers = names.split(",")
        if whom == "group":
            for number in numbers:
                os.killpg(0, signal.Signals[number])
        elif whom == f"rank {os.environ.get('RANK', 0)}":
            for number in numbers:
                os.kill(os.getpid(), signal.Signals[number])
    update(self, text)


ProgressLine.update = stop  # type: ignore[method-assign]
if __name__ == "__main__":
    app()
