"""A procedural renderer of stained blood smears whose classes, attributes and masks are known exactly.

It needs no download and gives tests a ground truth. It is no evidence about real cells.
"""
