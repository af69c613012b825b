"""One small file per method: a frozen config dataclass and its step. This module only knows the names."""

from vidprune.registry import Registry

METHODS = Registry("method", "vidprune.methods")
METHODS.register("papr", "vidprune.pruners.papr:PaPr", "keep what a light ConvNet's feature mean marks (ECCV 2024)")
METHODS.register("random", "vidprune.pruners.controls:Random", "keep a random subset")
METHODS.register("uniform", "vidprune.pruners.controls:Uniform", "keep an even spread over time and space")
METHODS.register("centre", "vidprune.pruners.controls:Centre", "keep the centre of the frame")
METHODS.register("frame_difference", "vidprune.pruners.controls:FrameDifference", "keep where pixels change most")
METHODS.register("norm", "vidprune.pruners.controls:Norm", "keep the tokens with the longest embedding")
METHODS.register("tome", "vidprune.pruners.tome:ToMe", "merge the most similar tokens in every block (ICLR 2023)")
METHODS.register("tofu", "vidprune.pruners.tofu:ToFu", "drop early what ToMe would merge late (WACV 2024)")
METHODS.register(
    "evit", "vidprune.pruners.evit:EViT", "keep what the class token attends to, fuse the rest (ICLR 2022)"
)
METHODS.register("etps", "vidprune.pruners.etps:ETPS", "as evit, the rest squeezed into its like (CVPR 2023)")
METHODS.register("gtp", "vidprune.pruners.gtp:GTP", "drop tokens after passing them on along a graph (WACV 2024)")
METHODS.register("ats", "vidprune.pruners.ats:ATS", "sample by what the class token sees; counts vary (ECCV 2022)")
METHODS.register("rlt", "vidprune.pruners.rlt:RLT", "drop tubelets that repeat the one before (NeurIPS 2024)")
METHODS.register("star", "vidprune.pruners.star:STAR", "attention here times importance to the end (ICLR 2024)")
METHODS.register(
    "adaptive_star", "vidprune.pruners.star:AdaptiveSTAR", "as star, as many tokens as hold the score (ICLR 2024)"
)
METHODS.register("sta", "vidprune.pruners.sta:STA", "drop what earlier time slots have shown; video only (ICCV 2023)")
METHODS.register("diffrate", "vidprune.pruners.diffrate:DiffRate", "prune, then merge, to listed counts (ICCV 2023)")
