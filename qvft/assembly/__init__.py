"""The composition root: from a recipe to the objects that work. The only room that knows all."""
