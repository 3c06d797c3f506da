"""The log-linear model: objective, penalty, optimizer, solver."""
