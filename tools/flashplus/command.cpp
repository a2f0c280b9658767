// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/command.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace flashplus::tool {

void addCommonFlags(CLI::App &verb, CommonFlags &flags) {
  verb.add_flag("--json", flags.json, "Print JSON instead of text");
  addCacheFlag(verb, flags);
}

void addCacheFlag(CLI::App &verb, CommonFlags &flags) {
  verb.add_option_function<std::string>(
          "--cache-dir",
          [&flags](const std::string &dir) {
            flags.cache_dir = dir;
            flags.cache_dir_given = true;
          },
          "Folder of the kernel cache; \"\" for none [$FLASHPLUS_CACHE_DIR, else ~/.cache/flashplus]")
      ->type_name("DIR");
}

Status libraryStatus(flashplus_status status) {
  if (status == FLASHPLUS_OK)
    return Status::ok();
  std::string message = flashplus_last_error();
  if (message.empty())
    message = std::string("the library failed with ") + flashplus_status_name(status);
  return Status(static_cast<StatusCode>(status), std::move(message));
}

Result<Context> makeContext(const CommonFlags &flags, bool offline) {
  flashplus_context_options options = {};
  options.struct_size = sizeof options;
  options.cache_dir = flags.cache_dir_given ? flags.cache_dir.c_str() : nullptr;
  options.cache_optional = true; // the log below says it
  options.num_threads = flags.threads;
  options.offline = offline;
  options.log = [](void *, const char *message) {
    std::fprintf(stderr, "flashplus: warning: %s\n", message);
  };
  flashplus_context *context = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_context_create(&options, &context)));
  return Context(context);
}

Result<Json> describe(flashplus_context *context) {
  const char *text = nullptr;
  FLASHPLUS_RETURN_IF_ERROR(libraryStatus(flashplus_describe(context, &text)));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return Status(StatusCode::Internal, "flashplus_describe gave text that is not a JSON object");
  return json;
}

Result<std::string> hostTarget(flashplus_context *context) {
  Result<Json> json = describe(context);
  if (!json)
    return json.status();
  for (const Json &device : json->value("devices", Json::array()))
    if (device.value("name", "") == "cpu")
      return device.value("target", "");
  for (const Json &missing : json->value("missing", Json::array()))
    if (missing.value("name", "") == "cpu")
      return Status(StatusCode::NoDevice, "target cpu: " + missing.value("reason", ""));
  return Status(StatusCode::NoDevice, "target cpu: not available on this machine");
}

Result<std::vector<int64_t>> parseIntegers(const std::string &flag, const std::string &text, size_t min_count,
                                           size_t max_count) {
  std::vector<int64_t> values;
  const std::string plain = withoutUnits(text);
  const char *at = plain.data(), *end = at + plain.size();
  while (true) {
    int64_t value = 0;
    auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || (next != end && *next != ','))
      return invalidArgument(flag + " '" + text + "': an integer expected at column " +
                             std::to_string(at - plain.data() + 1));
    values.push_back(value);
    if (next == end)
      break;
    at = next + 1;
  }
  if (values.size() < min_count || values.size() > max_count)
    return invalidArgument(flag + " '" + text + "': has " + std::to_string(values.size()) + " integers, " +
                           (min_count == max_count
                                ? std::to_string(min_count)
                                : std::to_string(min_count) + " to " + std::to_string(max_count)) +
                           " are expected");
  return values;
}

std::string withoutUnits(const std::string &text) {
  std::string out;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    int64_t value = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    const std::string unit(stop, part.data() + part.size());
    const int shift = unit == "k" || unit == "K" || unit == "Ki" ? 10
                      : unit == "M" || unit == "Mi"              ? 20
                      : unit == "G" || unit == "Gi"              ? 30
                                                                 : 0;
    const bool fits = error == std::errc() && value >= 0 && value <= (INT64_MAX >> shift);
    out += (begin ? "," : "") + (shift && fits ? std::to_string(value << shift) : part);
    begin = end + 1;
  }
  return out;
}

CLI::Validator sizeUnits() {
  return CLI::Validator(
      [](std::string &text) {
        text = withoutUnits(text);
        return std::string();
      },
      "");
}

CLI::Option *addCausalFlag(CLI::App &verb, bool several, std::function<void(const std::vector<bool> &)> set,
                           const std::string &default_text) {
  const auto parse = [several, set = std::move(set)](const std::vector<std::string> &given) {
    std::vector<bool> out;
    for (const std::string &word : given) {
      const bool both = word == "both", yes = word == "yes" || word == "1" || word == "true" || word.empty();
      if (!both && !yes && word != "no" && word != "0" && word != "false")
        throw CLI::ValidationError("--causal", "'" + word + "' is not known; allowed are yes, no" +
                                                   (several ? " and both" : ""));
      if (both)
        out = {false, true};
      else if (std::find(out.begin(), out.end(), yes) == out.end())
        out.push_back(yes);
    }
    if (out.empty())
      out.push_back(true);
    if (!several && out.size() > 1)
      throw CLI::ValidationError("--causal", "'both' is for bench, tune and warmup; allowed are yes and no");
    set(out);
  };
  return verb
      .add_option_function<std::vector<std::string>>(
          "--causal", parse,
          std::string("Causal mask, aligned at the bottom right: yes, no") + (several ? " or both" : "") +
              "; alone: yes [" + default_text + "]")
      ->expected(0, 2) // "0,1" is two
      ->delimiter(',')
      ->type_name(several ? "[yes|no|both]" : "[yes|no]");
}

void printJson(const Json &value) {
  std::printf("%s\n", value.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

} // namespace flashplus::tool
