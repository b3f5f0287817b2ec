"""The feature cache: what a frozen ViT gives of an image, computed once and kept in shards.

`space` says what all features of a folder have in common, `content` and `key` which image a record
is of; `fill` computes what is missing, `store` finds it again, `listing` and `pruning` look after
the folders. Nothing here knows a model: whoever fills passes a function that encodes pixels.
"""
