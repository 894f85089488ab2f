"""Where results go on disk: paths that a user named, and files and folders written whole or not.

Every room that writes does it through this one, which knows files and folders, not what is in
them. Whatever ends a writer, a signal and a full disk included, what stood at the path stands there
still, and nothing is left beside it. A writer that is killed outright leaves a file or folder whose
name says whose it is; the next writer to the same path removes it.
"""

from tokensurgeon.outputs.leftovers import scratch_folder
from tokensurgeon.outputs.paths import check_file, check_folder, output_path
from tokensurgeon.outputs.whole_file import whole_file, write_whole
from tokensurgeon.outputs.whole_folder import staged

__all__ = [
    "check_file",
    "check_folder",
    "output_path",
    "scratch_folder",
    "staged",
    "whole_file",
    "write_whole",
]
