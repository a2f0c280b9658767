// SPDX-License-Identifier: BSD-3-Clause
#include "tools/flashplus/command.h"

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
  const char *at = text.data(), *end = at + text.size();
  while (true) {
    int64_t value = 0;
    auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || (next != end && *next != ','))
      return invalidArgument(flag + " '" + text + "': an integer expected at column " +
                             std::to_string(at - text.data() + 1));
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

void printJson(const Json &value) {
  std::printf("%s\n", value.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

} // namespace flashplus::tool
