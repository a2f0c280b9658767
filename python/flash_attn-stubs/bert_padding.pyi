# SPDX-License-Identifier: BSD-3-Clause
from flashplus.bert_padding import IndexFirstAxis as IndexFirstAxis
from flashplus.bert_padding import IndexFirstAxisResidual as IndexFirstAxisResidual
from flashplus.bert_padding import IndexPutFirstAxis as IndexPutFirstAxis
from flashplus.bert_padding import index_first_axis as index_first_axis
from flashplus.bert_padding import index_first_axis_residual as index_first_axis_residual
from flashplus.bert_padding import index_put_first_axis as index_put_first_axis
from flashplus.bert_padding import pad_input as pad_input
from flashplus.bert_padding import rearrange as rearrange
from flashplus.bert_padding import repeat as repeat
from flashplus.bert_padding import unpad_input as unpad_input
from flashplus.bert_padding import unpad_input_for_concatenated_sequences as unpad_input_for_concatenated_sequences
