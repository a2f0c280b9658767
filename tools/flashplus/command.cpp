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

GivenFlags GivenFlags::of(const CLI::App &verb) {
  GivenFlags given;
  for (const CLI::Option *option : verb.get_options())
    if (option->count() > 0 && !option->get_lnames().empty())
      given.names.push_back("--" + option->get_lnames().front());
  return given;
}

std::string GivenFlags::but(const std::vector<std::string> &allowed) const {
  const auto at = std::ranges::find_if(
      names, [&](const std::string &name) { return std::ranges::find(allowed, name) == allowed.end(); });
  return at == names.end() ? "" : *at;
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
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const Result<int64_t> value = sizeOf(text.substr(begin, end - begin));
    if (!value)
      return invalidArgument(flag + " '" + text + "': column " + std::to_string(begin + 1) + ": " +
                             value.status().message());
    values.push_back(*value);
    begin = end + 1;
  }
  if (values.size() < min_count || values.size() > max_count)
    return invalidArgument(flag + " '" + text + "': has " + std::to_string(values.size()) + " integers, " +
                           (min_count == max_count
                                ? std::to_string(min_count)
                                : std::to_string(min_count) + " to " + std::to_string(max_count)) +
                           " are expected");
  return values;
}

Result<int64_t> sizeOf(const std::string &text) {
  int64_t value = 0;
  const char *end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  const std::string unit(stop, end);
  const int shift = unit == "k" || unit == "K" || unit == "Ki" ? 10
                    : unit == "M" || unit == "Mi"              ? 20
                    : unit == "G" || unit == "Gi"              ? 30
                                                               : 0;
  if (error == std::errc::invalid_argument || (shift == 0 && !unit.empty()) || (shift && value < 0))
    return invalidArgument("'" + text + "' is no integer; one may have a unit (4k is 4096; k, M and G)");
  if (error == std::errc::result_out_of_range || value > (INT64_MAX >> shift))
    return invalidArgument("'" + text +
                           "' is too large; the largest is 2^63 - 1, units (k, M and G) counted");
  return value << shift;
}

CLI::Validator sizeUnits() {
  return CLI::Validator(
      [](std::string &text) {
        const Result<int64_t> value = sizeOf(text);
        if (!value)
          return value.status().message();
        text = std::to_string(*value);
        return std::string();
      },
      "");
}

CLI::Validator unsignedNumber() {
  return CLI::Validator(
      [](std::string &text) -> std::string {
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc() && end == text.data() + text.size()
                   ? ""
                   : "'" + text + "' is no whole number from 0 to 2^64 - 1";
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

namespace {
bool printed = false;
} // namespace

bool jsonPrinted() { return printed; }

void printJson(const Json &value) {
  printed = true;
  std::printf("%s\n", value.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
}

} // namespace flashplus::tool
