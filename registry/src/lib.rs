//! Names, digests, manifests, the content store, the registry clients and the embedded registry.
