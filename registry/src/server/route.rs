//! Paths below `/v2/`, read from their end: a repository's name has slashes of its own.

use super::error::{Code, Problem};
use crate::{DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Digest, Name, store::Place};

/// A resource of the registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Catalog,
    Tags(Name),
    Referrers(Name, Digest),
    Manifest(Place),
    Blob(Name, Digest),
    Uploads(Name),
    Upload(Name, String),
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Route, Problem> {
        let segments: Vec<&str> = path.split('/').collect();
        Ok(match segments.as_slice() {
            ["_catalog"] => Route::Catalog,
            [repository @ .., "tags", "list"] => Route::Tags(parse_repository(repository)?),
            [repository @ .., "manifests", reference] => {
                Route::Manifest(parse_reference(parse_repository(repository)?, reference)?)
            }
            [repository @ .., "blobs", "uploads"] | [repository @ .., "blobs", "uploads", ""] => {
                Route::Uploads(parse_repository(repository)?)
            }
            [repository @ .., "blobs", "uploads", id] => {
                Route::Upload(parse_repository(repository)?, (*id).to_owned())
            }
            [repository @ .., "blobs", digest] => {
                Route::Blob(parse_repository(repository)?, parse_digest(digest)?)
            }
            [repository @ .., "referrers", digest] => {
                Route::Referrers(parse_repository(repository)?, parse_digest(digest)?)
            }
            _ => return Err(Problem::new(Code::NotFound, "no such resource")),
        })
    }
}

/// `namespace/model`, or `model` alone for an official one.
fn parse_repository(segments: &[&str]) -> Result<Name, Problem> {
    let (namespace, model) = match segments {
        [model] => (DEFAULT_NAMESPACE, *model),
        [namespace, model] => (*namespace, *model),
        _ => {
            let message = "a repository is a namespace and a model, nothing deeper";
            return Err(Problem::new(Code::NameInvalid, message));
        }
    };
    Name::from_parts(DEFAULT_HOST, namespace, model, DEFAULT_TAG)
        .map_err(|error| Problem::new(Code::NameInvalid, error.to_string()))
}

fn parse_reference(repository: Name, text: &str) -> Result<Place, Problem> {
    if text.contains(':') {
        return Ok(Place::Digest(repository, parse_digest(text)?));
    }
    let name = repository.with_tag(text);
    name.map(Place::Tag).map_err(|error| Problem::new(Code::TagInvalid, error.to_string()))
}

pub(super) fn parse_digest(text: &str) -> Result<Digest, Problem> {
    text.parse()
        .map_err(|error: crate::DigestError| Problem::new(Code::DigestInvalid, error.to_string()))
}

/// `namespace/model`, as paths and lists have it.
pub(super) fn repository(name: &Name) -> String {
    format!("{}/{}", name.namespace(), name.model())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(path: &str) -> Option<Code> {
        Route::parse(path).err().map(|problem| problem.code)
    }

    #[test]
    fn resources_are_found_from_the_end_of_the_path() {
        let digest = Digest::of(b"x");
        let name = Name::parse("me/model").unwrap();
        let route = |path: &str| Route::parse(path).unwrap();
        assert_eq!(route("_catalog"), Route::Catalog);
        assert_eq!(route("me/model/tags/list"), Route::Tags(name.clone()));
        assert_eq!(route("me/model/blobs/uploads/"), Route::Uploads(name.clone()));
        assert_eq!(route("me/model/blobs/uploads/7"), Route::Upload(name.clone(), "7".to_owned()));
        assert_eq!(route(&format!("me/model/blobs/{digest}")), Route::Blob(name.clone(), digest));
        assert_eq!(
            route(&format!("me/model/referrers/{digest}")),
            Route::Referrers(name.clone(), digest)
        );
        assert_eq!(
            route("model/manifests/q8"),
            Route::Manifest(Place::Tag(Name::parse("model:q8").unwrap()))
        );
        assert_eq!(
            route(&format!("me/model/manifests/{digest}")),
            Route::Manifest(Place::Digest(name, digest))
        );
    }

    #[test]
    fn paths_that_are_no_resource_are_refused() {
        assert_eq!(code("a/b/c/tags/list"), Some(Code::NameInvalid));
        assert_eq!(code("tags/list"), Some(Code::NameInvalid));
        assert_eq!(code("../x/tags/list"), Some(Code::NameInvalid));
        assert_eq!(code("a/b/manifests/.."), Some(Code::TagInvalid));
        assert_eq!(code("a/b/blobs/sha256:../../etc/passwd"), Some(Code::NotFound));
        assert_eq!(code("a/b/blobs/sha256:00"), Some(Code::DigestInvalid));
        assert_eq!(code("a/b/manifests/sha512:00"), Some(Code::DigestInvalid));
        assert_eq!(code("a/b"), Some(Code::NotFound));
        assert_eq!(code(""), Some(Code::NotFound));
    }
}
