"""Training: data sets, losses, recipes and the trainer behind `thermal-enhance train`."""
