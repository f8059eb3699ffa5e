"""Looking into a run: plans, costs, gradients, profiles, bad steps."""
