"""Which videos to evaluate, and their labels: one reader for the lists and folders that people have.

`read_manifest` reads a list or raises; `scan_manifest` also returns what is wrong, one line per problem.
"""

from vidprune.evaluation.manifests.entries import Manifest, ManifestEntry
from vidprune.evaluation.manifests.files import VIDEO_SUFFIXES, find_missing
from vidprune.evaluation.manifests.names import RENAMED_KINETICS400, ClassLookup
from vidprune.evaluation.manifests.reading import FORMATS, read_manifest, scan_manifest

__all__ = [
    "FORMATS",
    "RENAMED_KINETICS400",
    "VIDEO_SUFFIXES",
    "ClassLookup",
    "Manifest",
    "ManifestEntry",
    "find_missing",
    "read_manifest",
    "scan_manifest",
]
