"""What a recipe or a command line names, as objects: model, data, prompt template, alignment heads.

Everything here is shared by training, inference, evaluation and merging. What training alone does
with these objects is in `training/prepare_training.py`.
"""
