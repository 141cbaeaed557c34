//! Modelfile text to AST and diagnostics, chat templates, and the library of known models.
