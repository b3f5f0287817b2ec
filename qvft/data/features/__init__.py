"""Feature cache: outputs of a frozen ViT, computed once per image and kept in safetensors shards.

`cache_spec` says what features depend on and makes their keys; `fill` computes what is missing,
`shards` writes and reads one file, `store` finds features by key or by image; `folders` lists and
prunes. Nothing here depends on a model: the caller passes the function that encodes pixels.
"""
