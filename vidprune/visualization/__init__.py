"""Pictures of what a pruner kept: a contact sheet (PNG) and an overlay video (MP4), like the papers' figures.

view = ViewPicture(frames, keep_mask(kept_index, grid), proposal_map)
save_picture(contact_sheet(view, Caption(file="clip.mp4", model="videomae_base", method="papr")), "clip.png")
overlay_video("clip-overlay.mp4", [view], Caption(file="clip.mp4"), fps=7.5)
"""

from vidprune.visualization.output import save_picture
from vidprune.visualization.overlay import overlay_video
from vidprune.visualization.sheet import contact_sheet
from vidprune.visualization.view import Caption, ViewPicture, keep_mask

__all__ = ["Caption", "ViewPicture", "contact_sheet", "keep_mask", "overlay_video", "save_picture"]
