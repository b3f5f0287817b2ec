"""Runs several of qvft's programs in one process, so that many launches cost one start.

Argument: JSON, a list of [program, [argument, ...]].
"""

from __future__ import annotations

import importlib
import json
import os
import sys

import torch

if __name__ == "__main__":
    for program, arguments in json.loads(sys.argv[1]):
        status = importlib.import_module(f"qvft.{program}").main(arguments)
        if status != 0:
            sys.exit(f"rank {os.environ['RANK']}: {program} {arguments} ended with {status}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
