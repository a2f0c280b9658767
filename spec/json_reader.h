// SPDX-License-Identifier: BSD-3-Clause
// JSON of somebody else's making, in time and memory that grow with the text alone. nlohmann::json::parse
// with a callback looks through all that an object or array holds each time that something in it ends, which
// is quadratic. Include it where nlohmann_json is linked.
#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flashplus {

/// What is refused or left out.
struct JsonRules {
  size_t most_depth = 16;    ///< Of objects and arrays in each other; the text itself is the first.
  bool unique_keys = false;  ///< Else the last of equal keys counts.
  std::string_view left_out; ///< What has this key is checked and not kept; "": nothing.
};

/// Builds a value from the parser's events. The names and types of the functions are nlohmann's.
class JsonReader final : public nlohmann::json_sax<nlohmann::json> {
public:
  using Json = nlohmann::json;

  /// The value, or a discarded one and, if it is not the grammar, a clause in `problem`.
  static Json parse(std::string_view text, const JsonRules &rules, std::string &problem) {
    JsonReader reader(rules, problem);
    return Json::sax_parse(text.begin(), text.end(), &reader) ? std::move(reader.root_)
                                                              : Json(Json::value_t::discarded);
  }

  bool null() override { return add(nullptr) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t &) override { return add(value) != nullptr; }
  bool string(string_t &value) override { return add(std::move(value)) != nullptr; }
  bool binary(binary_t &) override { return false; } // not of text
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string &, const nlohmann::detail::exception &) override {
    return false;
  }

  bool key(string_t &name) override {
    if (skipped_)
      return true;
    if (rules_.unique_keys && stack_.back()->contains(name)) {
      problem_ = "key '" + printable(name) + "' occurs twice";
      return false;
    }
    skip_next_ = !rules_.left_out.empty() && name == rules_.left_out;
    name_ = std::move(name);
    return true;
  }

private:
  JsonReader(const JsonRules &rules, std::string &problem) : rules_(rules), problem_(problem) {}

  static std::string printable(std::string_view text) {
    std::string out;
    for (char c : text.substr(0, 60))
      out += c >= 32 && c != 127 ? c : '?';
    return out;
  }

  /// Where the value is now; something that is not null where it is left out.
  Json *add(Json value) {
    if (skipped_)
      return &root_;
    if (std::exchange(skip_next_, false))
      return &root_;
    if (stack_.empty())
      return &(root_ = std::move(value));
    if (stack_.back()->is_array())
      return &stack_.back()->emplace_back(std::move(value));
    return &((*stack_.back())[name_] = std::move(value));
  }

  bool open(Json empty) {
    if (stack_.size() + skipped_ == rules_.most_depth) {
      problem_ = "nested deeper than " + std::to_string(rules_.most_depth) + " levels";
      return false;
    }
    if (skipped_ || std::exchange(skip_next_, false)) {
      ++skipped_;
      return true;
    }
    // Children of an array move when it grows, but only the last one is open, and it grows after that is
    // closed.
    stack_.push_back(add(std::move(empty)));
    return true;
  }

  bool close() {
    if (skipped_)
      --skipped_;
    else
      stack_.pop_back();
    return true;
  }

  const JsonRules &rules_;
  std::string &problem_;
  Json root_;
  std::vector<Json *> stack_; ///< Objects and arrays that are open.
  std::string name_;          ///< Of the value that comes next.
  size_t skipped_ = 0;        ///< Of what is left out: objects and arrays that are open.
  bool skip_next_ = false;
};

} // namespace flashplus
