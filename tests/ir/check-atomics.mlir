// RUN: flashplus-opt %s -check-atomics -split-input-file -verify-diagnostics

llvm.func @relaxed(%p: !llvm.ptr<1>, %v: i32) {
  %0 = llvm.atomicrmw add %p, %v syncscope("device") monotonic : !llvm.ptr<1>, i32
  llvm.return
}

// -----

llvm.func @ordered(%p: !llvm.ptr<1>, %v: i32) {
  // expected-error @below {{'acq_rel' is an order that LLVM drops for NVPTX; it must be 'monotonic', or the operation PTX}}
  %0 = llvm.atomicrmw add %p, %v syncscope("device") acq_rel : !llvm.ptr<1>, i32
  llvm.return
}
