"""The audit of a plan: attacks and checks on the product's own code, each with a control that must fail."""
