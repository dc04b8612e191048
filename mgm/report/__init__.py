"""What people read: tables, figures, claims, the page and MLflow."""
