# SPDX-License-Identifier: BSD-3-Clause
"""The original's module of this name; the code is in flashplus.bert_padding."""

from flashplus.bert_padding import (
    IndexFirstAxis,
    IndexFirstAxisResidual,
    IndexPutFirstAxis,
    index_first_axis,
    index_first_axis_residual,
    index_put_first_axis,
    pad_input,
    rearrange,
    repeat,
    unpad_input,
    unpad_input_for_concatenated_sequences,
)
