"""A surgery as one small file, which gives any fine-tune of the same source the new tokenizer.

A row of the patched checkpoint is a sum of source rows (most are one, copied) plus, where that is
not all of it, a remainder: what calibration changed, hidden states, floor rows. The file holds the
sums as sparse weights and the remainders that are not nothing, with the tokenizer's files. Applied
to a fine-tune, the sums are taken of *its* rows and the remainders added; applied to the source
itself, the rows are those of the surgery, bit for bit. Where the surgery changed the body, the file
holds the factors of that change, which are merged into the fine-tune's weights.

No row or weight of the model itself is in the file, unless it is a remainder.
"""

from tokensurgeon.patches.apply import apply_patch
from tokensurgeon.patches.export import Exported, export_patch

__all__ = ["Exported", "apply_patch", "export_patch"]
