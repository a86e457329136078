"""Where the commands say what they have to say."""

import os
import sys
from contextlib import suppress


class Output:
    """Standard output, for whoever still reads it: a line that cannot be written ends nothing but the output.

    `problem` says why, unless it was a reader who has had enough.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._is_open = True

    def say(self, text: str) -> None:
        if not self._is_open:
            return
        try:
            print(text, flush=True)
        except OSError as error:
            self._is_open = False
            self.problem = "" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
            with suppress(OSError):  # so that Python's own flush at exit has nowhere to fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


OUTPUT = Output()
say = OUTPUT.say
