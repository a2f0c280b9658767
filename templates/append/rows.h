// SPDX-License-Identifier: BSD-3-Clause
// Where the rows that an append moves come from and go to. Each is that of one head: of a new key, of a new
// value, or of a query that is to be rotated.
#pragma once

#include "ir/ir.h"
#include "templates/common/sequence.h"

namespace flashplus {

struct KernelSpec;

/// One row on its way.
struct MovedRow {
  Val from, to; ///< Pointers to the first element.
  Val stored;   ///< It goes somewhere; i1.
  Val columns;  ///< i32
  Val rotated;  ///< Leading columns that turn, an even number; 0 for a row that is copied. i32
  Val position; ///< Row of rotary_cos and rotary_sin; one that there is if `rotated` is not 0. i32

  void fields(auto &&each) { each(from, to, stored, columns, rotated, position); }
};

/// The rows of one batch entry.
class AppendRows {
public:
  AppendRows(Ir &ir, const ParamReader &params, const KernelSpec &spec, Val batch);

  /// How many (i32): those of new keys, of new values, of queries.
  Val count() const { return key_rows_ * 2 + query_rows_; }
  /// The row of number `row` (i32), which must be one of them.
  MovedRow at(Val row) const;
  /// Pointer to element 0 of a row of rotary_cos or rotary_sin.
  Val table(std::string_view name, Val position) const;
  /// The sequence's new length into params.lengths.
  void storeLength() const;

private:
  /// Where a new row of the sequence is stored.
  struct Place {
    Val page, slot; ///< Of the pool; of the page. i64
    Val exists;     ///< i1
    void fields(auto &&each) { each(page, slot, exists); }
  };
  Place place(Val token) const;
  Place placeInTable(Val slot) const;
  MovedRow query(Val row) const;
  MovedRow newRow(Val row) const;
  /// `dim` of a row that is turned to `position`.
  Val rotatedColumns(Val position) const;

  Ir &ir_;
  const ParamReader &params_;
  const int bytes_, head_dim_qk_, head_dim_v_;
  Val batch_; // i64
  const Sequence queries_;
  Val first_new_, count_;     // of the new rows; i64, i32
  Val used_;                  // keys that the cache has; i32
  Val position_;              // of new row 0; i32
  Val first_entry_, entries_; // of the table; i64, i32
  Val key_rows_, query_rows_; // i32
};

} // namespace flashplus
