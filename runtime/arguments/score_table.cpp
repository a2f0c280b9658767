// SPDX-License-Identifier: BSD-3-Clause
#include "runtime/arguments/score_table.h"

#include "spec/made_once.h"

#include <memory>

namespace flashplus {

Result<ScoreForm> ScoreForm::make(const ScoreRequest &request) {
  std::string text(request.text.empty() ? "s" : request.text);
  if (!request.text.empty()) {
    // Parsed alone first, so that columns in messages are the caller's.
    auto own = ScoreExpr::parse(text);
    if (!own)
      return own.status();
    auto reserved = [](const std::string &name) {
      return invalidArgument("score uses the name '" + name + "'; names must not begin with 'flashplus_'");
    };
    for (const std::string &name : own->scalars)
      if (name.starts_with(kReserved))
        return reserved(name);
    for (const ScoreTensor &tensor : own->tensors)
      if (tensor.name.starts_with(kReserved))
        return reserved(tensor.name);
  }
  if (request.softcap)
    text = std::string(kSoftcap) + " * tanh((" + text + ") / " + std::string(kSoftcap) + ")";
  if (request.slopes_rank)
    text = "(" + text + ") - " + std::string(kSlopes) + (request.slopes_rank == 1 ? "[h]" : "[b, h]") +
           " * abs(q + sk - sq - k)";
  auto expr = ScoreExpr::parse(text);
  if (!expr) // the caller's own text parses, so together with softcap or ALiBi it passes a limit
    return Status(expr.status().code(),
                  "score together with softcap or alibi_slopes: " + expr.status().message());
  ScoreForm form;
  form.expr = std::move(*expr);
  form.numbers = form.expr.liftNumbers();
  form.canonical = form.expr.canonical();
  for (const ScoreTensor &tensor : form.expr.tensors)
    form.labels.push_back(tensor.name == kSlopes ? "alibi_slopes" : "score tensor '" + tensor.name + "'");
  for (const ScoreNode &node : form.expr.nodes) {
    if (node.op != ScoreOp::Tensor)
      continue;
    for (size_t d = 0; d < node.operands.size(); ++d) {
      const ScoreNode &index = form.expr.nodes[size_t(node.operands[d])];
      switch (index.op) {
      case ScoreOp::Constant:
        form.indices.push_back({node.slot, int(d), index.op, scoreIndex(double(float(index.value)))});
        break;
      case ScoreOp::Batch:
      case ScoreOp::Head:
      case ScoreOp::HeadK:
      case ScoreOp::Query:
      case ScoreOp::Key:
        form.indices.push_back({node.slot, int(d), index.op, 0});
        break;
      default:
        break;
      }
    }
  }
  return form;
}

const ScoreForm &ScoreForm::identity() {
  static constinit MadeOnce<const ScoreForm> form;
  return form.from([] {
    auto made = std::make_unique<ScoreForm>(std::move(*make({})));
    made->shared = made.get();
    return made;
  });
}

struct ScoreTable::Node {
  std::string text; ///< Owns what request.text views.
  ScoreRequest request;
  ScoreForm form;
  Node *next = nullptr;
};

ScoreTable::~ScoreTable() {
  for (std::atomic<Node *> &bucket : buckets_)
    for (Node *node = bucket.load(std::memory_order_relaxed); node;)
      delete std::exchange(node, node->next);
}

const ScoreForm *ScoreTable::sharedOf(const ScoreForm &form) {
  std::unique_ptr<const ScoreForm> &known = shared_[form.canonical];
  if (!known) {
    auto made = std::make_unique<ScoreForm>(form);
    made->shared = made.get();
    known = std::move(made);
  }
  return known.get();
}

Result<const ScoreForm *> ScoreTable::find(const ScoreRequest &request) {
  if (request.isIdentity())
    return &ScoreForm::identity();
  const size_t hash =
      std::hash<std::string_view>()(request.text) + size_t(request.slopes_rank) * 2 + request.softcap;
  std::atomic<Node *> &bucket = buckets_[hash % kBuckets];
  auto search = [&]() -> const ScoreForm * {
    for (const Node *node = bucket.load(std::memory_order_acquire); node; node = node->next)
      if (node->request == request)
        return &node->form;
    return nullptr;
  };
  if (const ScoreForm *found = search())
    return found;
  auto form = ScoreForm::make(request);
  if (!form)
    return form.status();
  if (texts_ >= kMostTexts) {
    thread_local ScoreForm not_kept[2];
    thread_local int next = 0;
    ScoreForm &own = not_kept[next++ % 2];
    own = std::move(*form);
    std::lock_guard lock(adding_);
    own.shared = sharedOf(own);
    return &own;
  }
  auto node = std::make_unique<Node>();
  node->text = request.text;
  node->request = request;
  node->request.text = node->text;
  node->form = std::move(*form);
  std::lock_guard lock(adding_);
  if (const ScoreForm *found = search()) // added meanwhile
    return found;
  node->form.shared = sharedOf(node->form);
  ++texts_;
  node->next = bucket.load(std::memory_order_relaxed);
  bucket.store(node.get(), std::memory_order_release);
  return &node.release()->form;
}

} // namespace flashplus
