"""What is shown: terminal, tables, figures, pages, TensorBoard."""
