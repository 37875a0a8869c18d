"""What we grow: recipes, phases, objectives, the growing engine."""
