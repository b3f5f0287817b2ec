"""How the bundled model `qvft/tiny-blip2` was made: drawn scenes, geometry, pretraining.

Not part of the wheel. It uses qvft as any other program would; run it from the repository's root.
"""
