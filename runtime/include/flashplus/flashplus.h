/* SPDX-License-Identifier: BSD-3-Clause */
/**
 * FlashAttention-Plus, C API of libflashplus.so.
 *
 * Attention kernels that are compiled when they are needed. Link libflashplus.so; libflashplus-compiler.so is
 * opened on the first cache miss, from the directory of libflashplus.so unless the options say otherwise, in
 * a process of its own (flashplus-compile-helper).
 *
 * Errors. Every function that can fail returns a flashplus_status; flashplus_last_error() then gives one
 * sentence that names the argument, its value and what is allowed. Nothing is printed, thrown or aborted.
 * Threads. All functions may be called from many threads. A plan may be run on several streams at once if
 * each run has a workspace of its own. The message of flashplus_last_error() belongs to the calling thread.
 * The thread's floating-point state is neither used nor changed. If it is cancelled, it ends after the call,
 * or in the CUDA driver where a launch of a kernel that was launched before waits there.
 * Ownership. Everything passed in is borrowed for the duration of the call, except that device memory
 * (tensors, workspace) must stay valid until the work enqueued on the stream is done. Handles are freed by
 * their _destroy.
 * Structs. Set `struct_size` to sizeof the struct and zero the rest, or use the FLASHPLUS_..._INIT macros,
 * which mean the same. All structs, those that are still to come too, keep these rules:
 *   - All zero after struct_size is the plain case: full attention, what is not given is chosen, nobody is
 *     told. A number for which 0 is no plain case has a flag beside it (has_window), or 0 stands for its
 *     default (lse_empty).
 *   - A struct grows at its end. A caller with an older header, which struct_size tells, gets what its header
 *     said: fields that it lacks are 0, and where a rule has changed since, the older one holds. A binary
 *     need not be built again.
 *   - A library that is older than its caller refuses what it does not know, unless that is 0.
 *   - A flag is 0 or 1. Another value, as of an enum that has no such member, is FLASHPLUS_INVALID_ARGUMENT.
 *   - No struct ends in padding, which sizeof would not tell from a field: it is named `reserved` and is 0.
 *   - Elements of arrays (flashplus_score_tensor, flashplus_score_scalar) have no struct_size and never
 *     change.
 *   - A struct that the library fills in gets as much as its struct_size has room for, and 0 beyond what the
 *     library knows.
 */
#ifndef FLASHPLUS_H
#define FLASHPLUS_H

#include <dlpack/dlpack.h>
#include <math.h> /* INFINITY */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FLASHPLUS_API __attribute__((visibility("default")))

typedef enum flashplus_status {
  FLASHPLUS_OK = 0,
  FLASHPLUS_INVALID_ARGUMENT = 1, /**< A value of the caller's. */
  FLASHPLUS_UNSUPPORTED = 2,      /**< Well-formed, but no target or schedule can do it. */
  FLASHPLUS_NO_DEVICE = 3,        /**< The device or its driver is not there. */
  FLASHPLUS_OUT_OF_MEMORY = 4,
  FLASHPLUS_COMPILE_FAILED = 5,
  FLASHPLUS_NOT_RESIDENT = 6, /**< Kernel not loaded, and compiling is not allowed now (capture, offline,
                                 marked ready). */
  FLASHPLUS_DEVICE_ERROR = 7,
  FLASHPLUS_IO_ERROR = 8,
  FLASHPLUS_INTERNAL = 9,
  FLASHPLUS_TIMED_OUT = 10,        /**< A compilation took longer than its limit (compile_seconds). */
  FLASHPLUS_COMPILER_CRASHED = 11, /**< The compiler's process did; this one is unharmed. */
} flashplus_status;

/** "0.1.0" */
FLASHPLUS_API const char *flashplus_version(void);
/** Message of the last failure on this thread; "" if there was none. Valid until the next call on this
 * thread. */
FLASHPLUS_API const char *flashplus_last_error(void);
/** "invalid_argument", ... */
FLASHPLUS_API const char *flashplus_status_name(flashplus_status status);

/* --------------------------------------------------------------------------------------------- context -- */

/** Devices, the in-process kernel table, the disk cache and the CPU workers. One per process is usual. */
typedef struct flashplus_context flashplus_context;

/** Runs body(body_context, i) for every i in [0, count), in any order, on any threads; returns when all are
 * done. */
typedef void (*flashplus_parallel_for)(void *pool, int64_t count, void (*body)(void *body_context, int64_t i),
                                       void *body_context);
/** Receives one-line warnings (a damaged cache entry, a fallback). Called from any thread, in the middle of a
 *  call: it must not call back into the library. */
typedef void (*flashplus_log)(void *log_context, const char *message);

/** What happened to a kernel. Finding it in memory, the hot path, is counted but is no event. */
typedef enum flashplus_event_kind {
  FLASHPLUS_EVENT_DISK_HIT = 1,       /**< Read from the disk cache; ms: reading and verifying. */
  FLASHPLUS_EVENT_COMPILED = 2,       /**< ms: wall time; *_ms: its stages. */
  FLASHPLUS_EVENT_COMPILE_FAILED = 3, /**< detail: why. */
  FLASHPLUS_EVENT_DAMAGED = 4,        /**< A disk entry failed verification; a compilation follows. */
  FLASHPLUS_EVENT_REFUSED = 5,        /**< The device, or the plan, refused a disk entry (detail: why); a
                                           compilation follows. */
  FLASHPLUS_EVENT_PUBLISH_FAILED = 6, /**< Not written to disk (detail: why); it runs all the same. */
  FLASHPLUS_EVENT_FALLBACK = 7,       /**< The schedule is left out from now on (detail: why); the next one is
                                           used. */
  FLASHPLUS_EVENT_COMPILE_STARTED = 8, /**< In none of the caches; COMPILED or COMPILE_FAILED follows. */
  FLASHPLUS_EVENT_COMPILING = 9,       /**< Still, and told every few seconds; ms: so far. */
} flashplus_event_kind;

/** All text is borrowed for the length of the call; never null. */
typedef struct flashplus_event {
  size_t struct_size;
  flashplus_event_kind kind;
  const char *key; /**< Hexadecimal cache key; "" for a fallback. */
  const char *spec;
  const char *schedule;
  const char *target;
  const char *detail; /**< One sentence where the kind says so, else "". */
  double ms;
  double build_ms; /**< Stages of a compilation: spec to IR, */
  double passes_ms;   /**< MLIR passes and translation to LLVM IR, */
  double optimize_ms; /**< LLVM's optimiser, */
  double emit_ms;     /**< PTX or object code, */
  double assemble_ms; /**< PTX to cubin, by nvJitLink or the driver. */
  int64_t code_bytes; /**< Size of the code, where there is some. */
} flashplus_event;
/** As flashplus_log: from any thread, in the middle of a call; it must not call back into the library. */
typedef void (*flashplus_listener)(void *listener_context, const flashplus_event *event);

typedef struct flashplus_context_options {
  size_t struct_size;
  const char *cache_dir; /**< Null: $FLASHPLUS_CACHE_DIR, else $XDG_CACHE_HOME/flashplus, else
                              ~/.cache/flashplus; if that cannot be used, a warning. "": no disk cache. A
                              folder named here that cannot be used is FLASHPLUS_IO_ERROR, unless
                              cache_optional is 1. */
  const char *compiler_path; /**< Path of libflashplus-compiler.so; null: $FLASHPLUS_COMPILER, else beside
                                  this one. */
  int32_t num_threads;       /**< CPU workers; 0: $FLASHPLUS_NUM_THREADS, else all that the process may use
                                  (its affinity mask, its container's CPU quota). */
  int32_t offline;           /**< 1: never compile; a miss is FLASHPLUS_NOT_RESIDENT. */
  flashplus_parallel_for parallel_for; /**< Null: workers of our own, started on first use and safe across
                                            fork. */
  void *pool;                          /**< First argument of parallel_for. */
  int32_t pool_threads;                /**< How many threads `parallel_for` uses; required with it. */
  flashplus_log log;                   /**< Null: nobody is told; flashplus_counters counts warnings and
                                            flashplus_describe has their text all the same. */
  void *log_context;
  flashplus_listener listener; /**< Null, or told what happens to kernels; for monitoring. */
  void *listener_context;
  int32_t cache_optional; /**< 1: if cache_dir cannot be used, a warning; kernels are then compiled in every
                               process. (A caller whose header lacks this field has 1.) */
  int32_t compile_in_process; /**< 1: compile in this process, which a compilation can then take down; for
                                   those who may not start any. 0: $FLASHPLUS_COMPILE_IN_PROCESS, else in
                                   flashplus-compile-helper, a process that lies beside the compiler library;
                                   where it is missing, in this one all the same, with a warning. */
  int64_t compile_bytes;   /**< Most memory of a compilation, and of the assembler that it runs; 0:
                                $FLASHPLUS_COMPILE_MEMORY, else 4 GiB; -1: no limit. Passed, it is
                                FLASHPLUS_OUT_OF_MEMORY. Not in this process. */
  int32_t compile_seconds; /**< Most time of a compilation with its assembler; 0: $FLASHPLUS_COMPILE_SECONDS,
                                else 300; -1: no limit. Passed, it is FLASHPLUS_TIMED_OUT. In this process it
                                holds for the assembler ptxas only. */
  int32_t reserved;
} flashplus_context_options;

/** `options` may be null. On success *out is owned by the caller. */
FLASHPLUS_API flashplus_status flashplus_context_create(const flashplus_context_options *options,
                                                        flashplus_context **out);
/** Null is allowed. No call on the context may be in flight. Plans and kernels made from it stay valid and
 *  keep what they need of it (the log and the embedder's pool too) until they are destroyed, in any order. */
FLASHPLUS_API void flashplus_context_destroy(flashplus_context *context);

/** Counters since the context was made. A kernel counts once for each place that it was looked for in. */
typedef struct flashplus_counters {
  size_t struct_size;
  int64_t memory_hits;      /**< Kernel found in the in-process table. */
  int64_t disk_hits;        /**< Read from the disk cache. */
  int64_t compiles;         /**< Compiled. */
  int64_t corrupt;          /**< Disk entries that were damaged or refused by the device, and were rebuilt. */
  int64_t publish_failures; /**< Kernels that could not be written to the disk cache (they still ran). */
  double compile_ms;        /**< Total wall time of compilations. */
  double load_ms;           /**< Total wall time of reading and verifying entries found on disk. */
  /* Misses of the disk cache by reason: */
  int64_t miss_absent;     /**< No such entry, or no disk cache. */
  int64_t miss_damaged;    /**< The entry failed verification. */
  int64_t miss_unreadable; /**< The system would not read it, or others can have written it. */
  int64_t miss_refused;    /**< The device, or the plan, refused it. */
  int64_t compile_failures;
  int64_t fallbacks;       /**< Schedules left out because they did not compile. */
  /* compile_ms by stage, as in flashplus_event; what is left is opening the compiler, handing code over. */
  double build_ms;
  double passes_ms;
  double optimize_ms;
  double emit_ms;
  double assemble_ms;
  int64_t resident_kernels; /**< Loaded on a device now. */
  int64_t resident_bytes;   /**< Their code. */
  int64_t warnings; /**< Lines that `log` got, or would have got. */
  int64_t late_compiles; /**< Compilations that flashplus_mark_ready warned of or refused. */
  int64_t evicted; /**< Kernels that this context removed from the disk cache because it was too large. */
} flashplus_counters;
/** Fills in as much of *out as its struct_size has room for. */
FLASHPLUS_API flashplus_status flashplus_get_counters(flashplus_context *context, flashplus_counters *out);

/** What a kernel that has to be compiled is, once the context is marked ready. */
typedef enum flashplus_late_compile {
  FLASHPLUS_LATE_ENVIRONMENT =
      0,                    /**< What $FLASHPLUS_LATE_COMPILE says ("warn" or "error"), else a warning. */
  FLASHPLUS_LATE_WARN = 1,  /**< A warning to the log, which names the kernel; then it is compiled. */
  FLASHPLUS_LATE_ERROR = 2, /**< FLASHPLUS_NOT_RESIDENT with the same sentence; nothing is compiled. */
  FLASHPLUS_LATE_ALLOW = 3, /**< As before the first mark: for a server that loads another model. */
} flashplus_late_compile;
/** Says that everything is warm: from now on each compilation is what `late` says, and is counted
 *  (flashplus_counters.late_compiles). Kernels that are resident or in the disk cache are none; PTX on disk
 * is left to the driver and not assembled anew. May be called again, at any time, by any thread. */
FLASHPLUS_API flashplus_status flashplus_mark_ready(flashplus_context *context, flashplus_late_compile late);

/** What devices there are and why others are not, as JSON text:
 *  {"devices": [{"name": "cpu", "target": "x86-64-v3", "detail": "...", ...}, ...], "missing": [{"name":
 *   "cuda", "reason": "..."}], "compiler": {...}, "cache": {"dir": ..., "state": ...}, "warnings": [the last
 *   few, oldest first]}
 *  The text belongs to the context and is valid until the next call of this function on it. */
FLASHPLUS_API flashplus_status flashplus_describe(flashplus_context *context, const char **json);

/* --------------------------------------------------------------------------------------------- forward -- */

/** An auxiliary input of a score expression (spec/score.h has the grammar). An index that leaves its tensor
 *  is clamped, so that no score reads outside: below 0 or NaN reads the first element of the dimension, past
 *  the end the last. A plain b, h or hk and a number must be inside, and where there are neither cu_seqlens
 *  nor seqused a plain q or k. */
typedef struct flashplus_score_tensor {
  const char *name;
  const DLTensor *tensor; /**< fp32, on the device of q, rank = number of indices; any strides. Not empty if
                               there is a key. */
} flashplus_score_tensor;
typedef struct flashplus_score_scalar {
  const char *name;
  float value;
} flashplus_score_scalar;
/** Where the gradient of one of them goes. */
typedef struct flashplus_score_gradient {
  const char *name; /**< Of a tensor or a scalar of the score. */
  DLTensor *tensor; /**< fp32, on the device of q, compact: of a tensor's shape, or (1) of a scalar. */
} flashplus_score_gradient;

/**
 * Arguments of a forward. All tensors live on one device (kDLCPU or kDLCUDA); a null `strides` means compact
 * row-major. With p = i + seqlen_k - seqlen_q for query row i (bottom-right alignment), key j is visible iff
 * p - window_left <= j <= p + window_right and 0 <= j < seqlen_k. A window side of -1 bounds nothing, nor
 * does either if has_window is 0; causal sets window_right to 0.
 *
 * All zero but the tensors is full attention. (With the header of 0.1 it was the window (0, 0): a caller of
 * that struct_size still gets it, and lse_empty, max_seqlen_* and flags that are not 0 as that header had
 * them.)
 */
typedef struct flashplus_forward_args {
  size_t struct_size;
  const DLTensor *q; /**< (batch, seqlen_q, heads_q, head_dim_qk), or (total_q, heads_q, head_dim_qk) with
                          cu_seqlens_q. fp16, bf16, or fp32 (CPU only). Last stride 1, the others any. */
  const DLTensor *k; /**< (batch, seqlen_k, heads_k, head_dim_qk) or (total_k, heads_k, head_dim_qk). heads_k
                          divides heads_q; query head h uses key head h / (heads_q / heads_k). */
  const DLTensor *v; /**< As k with head_dim_v. */
  DLTensor *o;       /**< As q with head_dim_v; q's dtype. */
  DLTensor *lse;     /**< Null, or fp32 (batch, heads_q, seqlen_q) / (heads_q, total_q): natural logarithm of
                          the sum of exponentials of the final scores. Last stride 1. */
  const DLTensor *cu_seqlens_q; /**< int32 (batch + 1) or null. First 0, not decreasing; the CPU checks. */
  const DLTensor *cu_seqlens_k; /**< Both or none, but with a cache (below) cu_seqlens_q alone is allowed. */
  const DLTensor *seqused_q;    /**< int32 (batch) or null: leading rows in use. */
  const DLTensor *seqused_k;    /**< With a cache: its keys ("cache_seqlens"), without the new ones. */
  int64_t max_seqlen_q; /**< With cu_seqlens only: upper bounds; any value >= the true maximum gives one
                             result. 0: not known; the rows of q (of k) are taken, which may cost time. */
  int64_t max_seqlen_k; /**< The same; also with a cache, where any value gives one result. */
  const float *softmax_scale; /**< Null: 1 / sqrt(head_dim_qk). Any finite value. */
  int32_t causal;      /**< 0 or 1 */
  int32_t window_left; /**< >= -1; with has_window only, else both sides are 0 or both -1. */
  int32_t window_right;
  float lse_empty;                /**< LSE of a row that sees no key (its o is 0). 0: +inf, as flash_attn 2;
                                       else this number, such as -INFINITY. */
  float softcap;                  /**< > 0: s -> softcap * tanh(s / softcap). 0: off. */
  const DLTensor *alibi_slopes; /**< fp32 (heads_q) or (batch, heads_q), or null: s -> s - slope * |p - j|. */
  const char *score;            /**< Score expression, applied before softcap and ALiBi, or null. */
  const flashplus_score_tensor *score_tensors;
  int32_t num_score_tensors;
  const flashplus_score_scalar *score_scalars;
  int32_t num_score_scalars;
  int32_t num_splits;      /**< 0: chosen; 1: never split over the keys; n <= 128: exactly n. */
  int32_t batch_invariant; /**< 1: a row's result does not depend on the rest of the batch. */
  int64_t *tile_counter;   /**< Null, or an int64 on the device that the key tiles visited are added to. */
  const char *schedule;    /**< Null: chosen. Text of one of this spec (flashplus inspect prints some). */
  int32_t has_window;      /**< 1: window_left and window_right hold. */
  int32_t reserved;
  /* A cache of keys and values. k and v are pools of pages, (num_blocks, page_size, heads_k, head_dim), each
   * with strides of its own (last stride 1), if there is a block_table or page_indices; else a cache of rows,
   * (batch_cache, seqlen_cache, heads_k, head_dim), if cache_batch_idx or leftpad_k is given, or k has 4
   * dimensions beside packed queries of 3. Slot s of a sequence is slot s % page_size of the page that entry
   * s / page_size of its table names. A sequence has as many keys as seqused_k or the differences of
   * cu_seqlens_k say; without either all its slots hold keys. Table entries beyond the last key, or before
   * the first that a window shows, are never read. Entries and lengths are read on the device: on the CPU
   * one that is read and outside the pool is FLASHPLUS_INVALID_ARGUMENT; elsewhere the result is undefined,
   * unless $FLASHPLUS_DEBUG_VALUES is 1, which checks as on the CPU (docs/debugging.md). */
  const DLTensor *block_table;     /**< int32 (batch, max_blocks) or null. Last stride 1. */
  const DLTensor *page_indptr;     /**< int32 (batch + 1) and */
  const DLTensor *page_indices;    /**< int32 (n), or null: the table as compressed rows, of which sequence b
                                        has entries [page_indptr[b], page_indptr[b + 1]). */
  const DLTensor *cache_batch_idx; /**< int32 (batch) or null: entry b uses row cache_batch_idx[b] of the
                                      cache (null: row b). Not with a table. */
  const DLTensor *leftpad_k; /**< int32 (batch) or null: leading slots of each sequence that hold no key; with
                                  pages, too. The sequence has as many keys less. */
  /* New keys and values, which the call writes into the cache before it attends to it: row i of sequence b
   * into slot seqused_k[b] + i, which must be given (cu_seqlens_k must not); the sequence then has as many
   * keys more. k and v are written, and share no memory with q, o and the new rows. A cache of any kind will
   * do, and so will plain k and v, (batch, seqlen_k, heads_k, head_dim). Rows that find no room, or a page
   * outside the pool, are FLASHPLUS_INVALID_ARGUMENT on the CPU, before anything is written; elsewhere they
   * are dropped, unless that switch is on. On all devices a sequence whose first new row has a negative table
   * entry or slot keeps its length: it fills up a batch. Two must not write into one row of the cache. */
  const DLTensor *k_new; /**< (batch, seqlen_new, heads_k, head_dim), or (total_new, heads_k, head_dim) with
                              cu_seqlens_k_new, or null; q's dtype. Last stride 1, the others any. */
  const DLTensor *v_new; /**< The same of v. */
  const DLTensor *cu_seqlens_k_new; /**< int32 (batch + 1) or null. */
  const DLTensor *slot_mapping; /**< int64 (total_new, or batch * seqlen_new) or null: the slots of the new
                                   rows, page * page_size + slot in the page; a negative one drops its row.
                                   With block_table or page_indices only, by which they are read again. */
  /* Rotary embedding of the new keys, and of q for this call (q itself is not written): of the first
   * rotary_dim columns pairs (i, i + rotary_dim / 2), or (2i, 2i + 1) if interleaved, are turned by the
   * angles of their position, in fp32, rounded once. New row i has position seqused_k[b] + i; so has query
   * row i if causal is set or a side of the window bounds, else every query row has seqused_k[b]. What is
   * past the table does not turn. */
  const DLTensor *rotary_cos;     /**< (positions, rotary_dim / 2) of q's dtype, or null. Last stride 1. */
  const DLTensor *rotary_sin;     /**< The same. */
  const DLTensor *rotary_seqlens; /**< int32 (batch) or null: to count positions from, not seqused_k. */
  int32_t rotary_interleaved;     /**< 0 or 1 */
  int32_t max_seqlen_k_new; /**< With cu_seqlens_k_new: an upper bound, as max_seqlen_q; 0: not known. */
  const DLTensor *rng_state; /**< With dropout_p: int64 or uint64 (2) on the device of q, {seed, offset}, read
                                  by the kernels when they run, so that a replayed graph may draw anew; or
                                  null: dropout_seed and dropout_offset. */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  float dropout_p; /**< 0 <= p < 1: every probability is dropped with probability p and else multiplied by
                        1 / (1 - p). Which are is a function of seed, offset, batch entry, query head, query
                        row and key alone (docs/rationale/dropout.md). Below 1/8192 none is. lse does not
                        know of it. */
  int32_t reserved2;
  /* Attention sinks (docs/rationale/sinks.md): the softmax of every row of query head h has one score more,
   * sinks[h], to which no value belongs and which no mask, scale, score or dropout touches. */
  const DLTensor *sinks; /**< (heads_q) of fp16, bf16 or fp32, whatever q's dtype, stride 1; or null. One of
                              -INFINITY is none. */
  int32_t lse_without_sinks; /**< 0: lse includes the sink, as FlashAttention's and FlashInfer's do and as a
                                  backward wants it; a row that sees no key has it as its lse, and o = 0.
                                  1: it does not; o is the same. */
  int32_t reserved3;
} flashplus_forward_args;

/** Full attention, with a window that bounds nothing, so that setting a side is enough. */
#define FLASHPLUS_FORWARD_ARGS_INIT                                                                          \
  {.struct_size = sizeof(flashplus_forward_args), .window_left = -1, .window_right = -1, .has_window = 1}

/** Plans, compiles or loads what is missing, and runs. If the plan needs a workspace, on CUDA the stream
 *  keeps a small one for its next call, and a graph that is captured as long as the context lives; a large
 *  one is allocated in stream order. `stream` is a CUstream (null: the default stream); ignored on the CPU,
 *  where the call returns when done. Under stream capture a kernel that is not resident is
 *  FLASHPLUS_NOT_RESIDENT. */
FLASHPLUS_API flashplus_status flashplus_forward(flashplus_context *context,
                                                 const flashplus_forward_args *args, void *stream);

/* -------------------------------------------------------------------------------------------- backward -- */

/**
 * Arguments of a backward: the gradients of q, k and v of the forward that has the same fields. What has the
 * name of a field of flashplus_forward_args means the same; only what is new is explained. Gradients have the
 * shape and dtype of what they are the gradient of, strides of their own (last stride 1), and memory of their
 * own. All rows that belong to a sequence and are in use are written, and nothing else; nothing need be zero
 * before.
 *
 * The result is the same bits from run to run, on a CPU whatever the number of threads; but for gradients of
 * the score's own inputs on a GPU, whose terms are added in the order in which blocks run.
 */
typedef struct flashplus_backward_args {
  size_t struct_size;
  const DLTensor *q;
  const DLTensor *k;
  const DLTensor *v;
  const DLTensor *o;    /**< As the forward wrote it. */
  const DLTensor *lse;  /**< As the forward wrote it. Where the keys are a part of a longer softmax (ring
                             attention), o and lse of the whole give this part's share of the gradients. A row
                             whose lse is not finite contributes nothing, and has dq = 0. */
  const DLTensor *dout; /**< As o: the gradient that reaches o. */
  DLTensor *dq;
  DLTensor *dk; /**< Summed over the query heads of a key head. */
  DLTensor *dv;
  const DLTensor *dlse; /**< As lse, or null: the gradient that reaches lse. */
  DLTensor *delta;      /**< As lse, or null: gets sum_d dout o - dlse of every row (0 where lse is not
                             finite). */
  const DLTensor *cu_seqlens_q;
  const DLTensor *cu_seqlens_k;
  const DLTensor *seqused_q;
  const DLTensor *seqused_k;
  int64_t max_seqlen_q;
  int64_t max_seqlen_k;
  const float *softmax_scale;
  int32_t causal;
  int32_t window_left;
  int32_t window_right;
  float softcap;
  const DLTensor *alibi_slopes;
  const char *score;
  const flashplus_score_tensor *score_tensors;
  const flashplus_score_scalar *score_scalars;
  int32_t num_score_tensors;
  int32_t num_score_scalars;
  int64_t *tile_counter; /**< Null, or an int64 on the device that pairs of a tile of keys and a tile of
                              queries are added to. */
  const char *schedule;  /**< Null: chosen. Text of a schedule of one of the plan's steps. */
  int32_t has_window;
  int32_t reserved;
  const DLTensor *rng_state; /**< What the forward had, with the values that it had. */
  uint64_t dropout_seed;
  uint64_t dropout_offset;
  float dropout_p;
  int32_t reserved2;
  /* Gradients of the score's own inputs, as many as are wanted; all written, whatever they hold before. An
     element gets the sum over all scores that read it, so that one nobody reads gets 0; a clamped index is
     one of the element that it reads; an index's own tensor, and a condition's, has none and gets 0. Costs a
     pass over the scores. */
  DLTensor *dalibi_slopes; /**< fp32, compact, of the shape of alibi_slopes; or null. */
  DLTensor *dsoftcap;      /**< fp32 (1), or null; softcap must not be 0. */
  const flashplus_score_gradient *score_gradients; /**< Of tensors and scalars of `score`. */
  int32_t num_score_gradients;
  int32_t any_order; /**< 1: dq may be summed in any order, whose last bits differ from run to run. */
} flashplus_backward_args;

/** Full attention, with a window that bounds nothing. */
#define FLASHPLUS_BACKWARD_ARGS_INIT                                                                         \
  {.struct_size = sizeof(flashplus_backward_args), .window_left = -1, .window_right = -1, .has_window = 1}

/** As flashplus_forward. */
FLASHPLUS_API flashplus_status flashplus_backward(flashplus_context *context,
                                                  const flashplus_backward_args *args, void *stream);

/* ---------------------------------------------------------------------------------------- plan and run -- */

typedef struct flashplus_plan flashplus_plan;

/** Plans for problems up to the size of `args` and makes every kernel of the plan resident. Data pointers
 *  inside the tensors may be null here; with cu_seqlens, `args` bounds the batch, totals and max_seqlen. */
FLASHPLUS_API flashplus_status flashplus_plan_create(flashplus_context *context,
                                                     const flashplus_forward_args *args,
                                                     flashplus_plan **out);
FLASHPLUS_API void flashplus_plan_destroy(flashplus_plan *plan);
/** The first so many bytes of a workspace hold counters: zero before the first run, and left zero by every
 * run, of any plan. What lies behind them may hold anything: plans may share a workspace of the largest's
 * bytes if no two run at the same time. */
#define FLASHPLUS_WORKSPACE_ZEROED 256
/** Bytes of device memory, 256-byte aligned, that a run needs; often 0. Two runs at the same time need one
 * each. */
FLASHPLUS_API size_t flashplus_plan_workspace(const flashplus_plan *plan);
/** The plan as JSON text (steps with spec, schedule, grid, key); owned by the plan. */
FLASHPLUS_API const char *flashplus_plan_describe(const flashplus_plan *plan);
/** Runs a plan: no allocation, compilation or synchronisation; on CUDA it may be captured. `args` must have
 *  the spec of the plan and sizes within its bounds. */
FLASHPLUS_API flashplus_status flashplus_plan_run(flashplus_plan *plan, const flashplus_forward_args *args,
                                                  void *workspace, size_t workspace_bytes, void *stream);

/** The same of a backward. A plan of one kind does not run arguments of the other. */
FLASHPLUS_API flashplus_status flashplus_backward_plan_create(flashplus_context *context,
                                                              const flashplus_backward_args *args,
                                                              flashplus_plan **out);
FLASHPLUS_API flashplus_status flashplus_backward_plan_run(flashplus_plan *plan,
                                                           const flashplus_backward_args *args,
                                                           void *workspace, size_t workspace_bytes,
                                                           void *stream);

#ifdef __cplusplus
}
#endif
#include "dropout.h" /* the mask of dropout */
#include "kernels.h" /* single kernels, warm-up, device memory */
#include "merge.h"   /* results over different keys */
#include "python.h"  /* calls with a Python framework's tensors */

#endif /* FLASHPLUS_H */
