"""Reads texts as a JSON list, and prints what python-dotenv finds of one variable in each. Arguments: its folder, the name."""

import io
import json
import logging
import os
import sys

sys.path.insert(0, sys.argv[1])
from dotenv import dotenv_values  # noqa: E402

logging.disable(logging.CRITICAL)
os.environ.clear()


def value(text):
    # As a file is read: every line end becomes LF.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return dotenv_values(stream=io.StringIO(text)).get(sys.argv[2])


json.dump([value(text) for text in json.load(sys.stdin)], sys.stdout)
