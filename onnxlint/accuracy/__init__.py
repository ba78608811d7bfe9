"""How good a converted model still is: images and recipes, metrics, tasks."""
