"""Drawn stand-ins for medical images, with the truth about what is in them; no clinical meaning.

A modality is a module with `CLASSES`, `DEVICES`, `VIEWS`, `MEAN_AGES`, `draw_patient` and `render`. A rendered image
is a pure function of its parameters and its random streams, and changes with a finding only inside that finding's mask.
"""
