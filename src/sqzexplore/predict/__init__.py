"""From measured networks to a whole space: predictions with intervals that are audited."""
