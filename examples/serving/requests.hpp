// SPDX-License-Identifier: BSD-3-Clause
// What the server does on the host: pages and who has them, requests that come and go, and who gets how many
// tokens of the next step. Nothing here knows of attention.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <random>
#include <utility>
#include <vector>

namespace serving {

/// Numbers of free pages. A sequence is promised all pages that it may come to need before it starts, and
/// takes one when a token wants it, so that none ever waits in the middle. (A server that promises less and
/// puts sequences out when pages run short replaces this class.)
class PagePool {
public:
  explicit PagePool(int32_t pages) : unpromised_(pages) {
    for (int32_t page = pages; page-- > 0;)
      free_.push_back(page);
  }
  bool promise(int32_t pages) {
    if (pages > unpromised_)
      return false;
    unpromised_ -= pages;
    return true;
  }
  int32_t take() {
    const int32_t page = free_.back();
    free_.pop_back();
    return page;
  }
  /// `promised`: the whole promise of who had `pages`.
  void giveBack(const std::vector<int32_t> &pages, int32_t promised) {
    free_.insert(free_.end(), pages.begin(), pages.end());
    unpromised_ += promised;
  }
  int32_t unpromised() const { return unpromised_; }
  int32_t free() const { return int32_t(free_.size()); }

private:
  std::vector<int32_t> free_;
  int32_t unpromised_;
};

/// A request, waiting or running. Its tokens are those of the prompt, then each output but the last, which
/// no step reads.
struct Sequence {
  int32_t id = 0;
  int32_t prompt = 0, output = 0; ///< Tokens, at least 1 each.
  int32_t cached = 0;             ///< Tokens whose keys are in the cache.
  int32_t now = 0;                ///< Tokens that the step adds.
  int32_t promised = 0;           ///< Pages.
  std::vector<int32_t> pages;

  int32_t tokens() const { return prompt + output - 1; }
  /// The step's last token gives one that is new.
  bool speaks() const { return now && cached + now >= prompt; }
};

struct Limits {
  int32_t batch = 8;      ///< Sequences a step.
  int32_t tokens = 64;    ///< Tokens a step.
  int32_t page_size = 16; ///< Tokens a page.
  int32_t prompt = 96;    ///< Tokens of the longest prompt,
  int32_t output = 48;    ///< and of the longest answer.

  int32_t pagesFor(int32_t count) const { return (count + page_size - 1) / page_size; }
  /// Columns of a block table.
  int32_t pagesOfSequence() const { return pagesFor(prompt + output - 1); }
  /// Of the pool: for three quarters of a batch of the longest, so that a full house has to wait.
  int32_t pagesOfPool() const { return std::max(pagesOfSequence(), pagesOfSequence() * batch * 3 / 4); }
};

/// Continuous batching: sequences that run get a token each, what is left of a step's tokens goes to prompts,
/// in pieces where they do not fit (chunked prefill). Requests come at random times; the same seed gives the
/// same ones.
class Scheduler {
public:
  Scheduler(const Limits &limits, uint32_t seed)
      : limits_(limits), pool_(limits.pagesOfPool()), engine_(seed) {}

  /// The step's sequences, each with its tokens and pages; never none.
  std::vector<Sequence> &next() {
    arrive();
    admit();
    int32_t left = limits_.tokens;
    for (Sequence &s : running_) { // tokens >= batch: there is one for each
      s.now = s.cached >= s.prompt ? 1 : 0;
      left -= s.now;
    }
    for (Sequence &s : running_)
      if (s.cached < s.prompt) {
        s.now = std::min(left, s.prompt - s.cached);
        left -= s.now;
        prefilled += s.now;
      }
    for (Sequence &s : running_) {
      while (int32_t(s.pages.size()) < limits_.pagesFor(s.cached + s.now))
        s.pages.push_back(pool_.take());
      spoken += s.speaks();
    }
    return running_;
  }

  /// After the step: who is done leaves its pages.
  void finish() {
    const auto done = [](const Sequence &s) { return s.cached == s.tokens(); };
    for (Sequence &s : running_) {
      s.cached += std::exchange(s.now, 0);
      if (!done(s))
        continue;
      pool_.giveBack(s.pages, s.promised);
      ++finished;
    }
    running_.erase(std::remove_if(running_.begin(), running_.end(), done), running_.end());
  }

  const PagePool &pool() const { return pool_; }
  const std::vector<Sequence> &running() const { return running_; }

  int64_t arrived = 0, finished = 0; ///< Requests.
  int64_t prefilled = 0, spoken = 0; ///< Tokens of prompts, tokens of answers.

private:
  int32_t upTo(int32_t most) { return 1 + int32_t(engine_() % uint32_t(most)); }

  /// At most one a step; one at once if the server would have nothing to do.
  void arrive() {
    if (--wait_ > 0 && !(running_.empty() && waiting_.empty()))
      return;
    // So many steps to the next one keep about two thirds of a batch, or of a step's tokens, busy.
    wait_ = upTo(std::max({1, limits_.output * 3 / (2 * limits_.batch),
                           limits_.prompt * 3 / (2 * limits_.tokens)}));
    Sequence s;
    s.id = int32_t(arrived++);
    s.prompt = upTo(limits_.prompt);
    s.output = upTo(limits_.output);
    waiting_.push_back(std::move(s));
  }

  void admit() {
    while (!waiting_.empty() && int32_t(running_.size()) < limits_.batch) {
      Sequence &s = waiting_.front();
      s.promised = limits_.pagesFor(s.tokens());
      if (!pool_.promise(s.promised))
        return;
      running_.push_back(std::move(s));
      waiting_.pop_front();
    }
  }

  Limits limits_;
  PagePool pool_;
  std::mt19937 engine_;
  std::deque<Sequence> waiting_;
  std::vector<Sequence> running_;
  int32_t wait_ = 0;
};

} // namespace serving
