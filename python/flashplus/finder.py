# SPDX-License-Identifier: BSD-3-Clause
"""How `flash_attn` is ours without a file of that name (docs/rationale/python-face.md).

Two finders on sys.meta_path, put there at interpreter start by flash_attn_plus.pth, or by install():

* Face, in front: answers for `flash_attn` itself, so that ours is found before an original in the same site-packages,
  and tells importlib.metadata of a distribution `flash-attn` while no other one is installed.
  A user's own module or package `flash_attn`, which is no copy of the original, is left alone.
* Rest, at the end: answers for submodules of the original that nobody has (`flash_attn.modules.mha`, ...) with modules
  whose functions say, when they are called, that they are not there.

Submodules that an original beside ours has and we don't are found by the usual path search: the face's `__path__`
goes on into the original's folder.
"""

import os
import sys

FACES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "faces")


def _spec_of_file(fullname, path, folder=None):
    from importlib.util import spec_from_file_location

    return spec_from_file_location(fullname, path, submodule_search_locations=[folder] if folder else None)


def _is_a_users(spec):
    """Whether a `flash_attn` that the others found is neither the original (or a fork of it) nor a folder without
    __init__.py, such as what flash-attn-4 leaves for its flash_attn.cute; the face's path goes on into both."""
    if spec is None or spec.loader is None or spec.origin in (None, "namespace"):
        return False
    return not any(os.path.isfile(os.path.join(folder, "flash_attn_interface.py"))
                   for folder in spec.submodule_search_locations or ())


def _others_find(fullname):
    for other in sys.meta_path:
        if not _is_ours(other) and hasattr(other, "find_spec"):
            spec = other.find_spec(fullname, None)
            if spec is not None:
                return spec
    return None


def _is_ours(other):
    """Also of a flashplus that was imported before this one (whoever clears sys.modules)."""
    return getattr(other, "__module__", None) == __name__ and getattr(other, "__name__", None) in ("Face", "Rest")


class Face:
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname == "flash_attn" and not _is_a_users(_others_find(fullname)):
            folder = os.path.join(FACES, "flash_attn")
            return _spec_of_file(fullname, os.path.join(folder, "__init__.py"), folder)
        return None

    @staticmethod
    def find_distributions(context):
        """A distribution `flash-attn` for those who look for one by name, such as transformers.

        Only for a search of everything that can be imported. Whoever asks what is in a folder (pip does) is told of
        the files there, and there are none: to pip, only flash-attn-plus is installed."""
        if "path" in vars(context):
            return ()
        name = getattr(context, "name", None)
        if name is not None and name.lower().replace("_", "-").replace(".", "-") != "flash-attn":
            return ()
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        for _ in MetadataPathFinder.find_distributions(DistributionFinder.Context(name="flash-attn")):
            return ()
        from flashplus.distribution import FaceDistribution

        return (FaceDistribution(FACES),)

    @staticmethod
    def invalidate_caches():
        pass


class Rest:
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname == "flash_attn_interface":
            return _spec_of_file(fullname, os.path.join(FACES, "flash_attn_interface.py"))
        face = sys.modules.get("flash_attn")
        if fullname.startswith("flash_attn.") and os.path.join(FACES, "flash_attn") in getattr(face, "__path__", ()):
            from flashplus import absent

            return absent.find_spec(fullname)
        return None

    @staticmethod
    def invalidate_caches():
        pass


def install():
    """Idempotent. Needed only where .pth files are not read: PYTHONPATH, `pip install --target`, `python -S`."""
    if Face not in sys.meta_path or Rest not in sys.meta_path:
        remove()
        sys.meta_path.insert(0, Face)
        sys.meta_path.append(Rest)


def remove():
    sys.meta_path[:] = [finder for finder in sys.meta_path if not _is_ours(finder)]
