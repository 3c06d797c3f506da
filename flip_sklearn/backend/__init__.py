"""The optimizer, torch only: data fit, penalty, solver; it knows no estimator."""
