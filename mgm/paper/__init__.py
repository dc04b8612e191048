"""The paper as values: recipes, experiments, scales, tables, figures and their cost."""
