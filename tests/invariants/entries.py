"""Runs several of qvft's programs in one process, so that many launches cost one start.

Argument: JSON, a list of [program, [argument, ...], {variable: value}].
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from unittest import mock

import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))  # where tools/ is

from tools.tiny_blip2 import scene_format

if __name__ == "__main__":
    scene_format.register()
    for program, arguments, variables in json.loads(sys.argv[1]):
        with mock.patch.dict(os.environ, variables):
            status = importlib.import_module(f"qvft.{program}").main(arguments)
        if status != 0:
            sys.exit(f"rank {os.environ['RANK']}: {program} {arguments} ended with {status}")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
