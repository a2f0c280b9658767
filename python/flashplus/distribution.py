# SPDX-License-Identifier: BSD-3-Clause
"""The distribution `flash-attn` that importlib.metadata is told of while no real one is installed (finder.py)."""

import os
from importlib.metadata import Distribution

from flashplus import FLASH_ATTN_VERSION, __version__

_FILES = {
    "METADATA": f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {FLASH_ATTN_VERSION}\n"
                f"Summary: The face of flash-attn-plus {__version__}\n",
    "top_level.txt": "flash_attn\n",
    "INSTALLER": "flash-attn-plus\n",
}


class FaceDistribution(Distribution):
    """`folder` is where the face's files lie: said by the finder, which imports this module when it is asked."""

    def __init__(self, folder):
        self._folder = folder

    def read_text(self, filename):
        return _FILES.get(filename)

    def locate_file(self, path):
        import pathlib

        return pathlib.Path(os.path.join(self._folder, path))
