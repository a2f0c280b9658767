// SPDX-License-Identifier: BSD-3-Clause
// flashplus devices: what was found, what was not and why.
#include "tools/flashplus/command.h"
#include "tools/flashplus/table.h"

namespace flashplus::tool {

namespace {

std::string plain(const Json &value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

Result<int> showDevices(const CommonFlags &flags) {
  Result<Context> context = makeContext(flags);
  if (!context)
    return context.status();
  Result<Json> json = describe(context->get());
  if (!json)
    return json.status();
  if (flags.json) {
    printJson(*json);
    return kExitGood;
  }
  Table table({"device", "target", "detail"});
  for (const Json &device : json->value("devices", Json::array()))
    table.add({device.value("name", "?"), device.value("target", ""), device.value("detail", "")});
  for (const Json &missing : json->value("missing", Json::array()))
    table.add({missing.value("name", "?"), "not found", missing.value("reason", "")});
  table.print();
  Table rest;
  for (const char *part : {"compiler", "cache"}) {
    auto found = json->find(part);
    if (found == json->end())
      continue;
    if (!found->is_object())
      rest.add({part, plain(*found)});
    else
      for (const auto &[name, value] : found->items())
        rest.add({std::string(part) + " " + name, plain(value)});
  }
  if (!rest.empty()) {
    std::printf("\n");
    rest.print();
  }
  return kExitGood;
}

} // namespace

void addDevices(CLI::App &app, Action *selected) {
  CLI::App *verb = app.add_subcommand("devices", "Show which devices were found, and why others were not");
  verb->footer("Example:\n  flashplus devices --json");
  auto flags = std::make_shared<CommonFlags>();
  addCommonFlags(*verb, *flags);
  verb->callback([flags, selected] { *selected = [flags] { return showDevices(*flags); }; });
}

} // namespace flashplus::tool
