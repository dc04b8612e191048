"""What people read: tables, figures, claims, the page, MLflow and archives to share."""
