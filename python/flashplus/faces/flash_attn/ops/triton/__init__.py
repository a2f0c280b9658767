# SPDX-License-Identifier: BSD-3-Clause
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
