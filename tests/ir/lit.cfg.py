import os

import lit.formats

config.name = "flashplus-ir"
config.test_format = lit.formats.ShTest(True)
config.suffixes = [".mlir"]
config.test_source_root = os.path.dirname(__file__)
config.environment["PATH"] = os.pathsep.join(
    [config.flashplus_bin, config.llvm_tools, config.environment["PATH"]]
)
