//! Manifests: YAML and JSON files in and out.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// Why manifests could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be opened or read.
    #[error("{source_name}: {error}")]
    Io {
        /// The file, or `standard input`.
        source_name: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Not YAML or JSON.
    #[error("{source_name} is neither YAML nor JSON: {error}")]
    Syntax {
        /// The file, or `standard input`.
        source_name: String,
        /// Where and why.
        error: String,
    },
    /// A document that is no Kubernetes object.
    #[error("{source_name}, document {number}: {what}")]
    Object {
        /// The file, or `standard input`.
        source_name: String,
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
}

/// One object out of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file, or `standard input`.
    pub source_name: String,
    /// Which document of it, counted from 1.
    pub number: usize,
    /// The object.
    pub value: Value,
}

/// Reads every object of a file; `-` is standard input. Lists are taken apart.
///
/// # Errors
/// [`ManifestError`] with the file's name.
pub fn read_file(path: &Path) -> Result<Vec<Manifest>, ManifestError> {
    parse(&source_name(path), &read_text(path)?)
}

fn source_name(path: &Path) -> String {
    if path.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Reads a file as text; `-` is standard input.
///
/// # Errors
/// [`ManifestError::Io`] with the file's name.
pub fn read_text(path: &Path) -> Result<String, ManifestError> {
    let from_stdin = path.as_os_str() == "-";
    let mut text = String::new();
    let read = if from_stdin {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut f| f.read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(ManifestError::Io {
            source_name: source_name(path),
            error,
        }),
    }
}

/// Reads every object of a text.
///
/// # Errors
/// [`ManifestError`] with the given name.
pub fn parse(source_name: &str, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| ManifestError::Syntax {
            source_name: source_name.to_owned(),
            error: error.to_string(),
        })?;
    let mut manifests = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let number = index + 1;
        let mut add = |value: Value| {
            let named = value["kind"].is_string()
                && value["apiVersion"].is_string()
                && value
                    .pointer("/metadata/name")
                    .is_some_and(Value::is_string);
            if !named {
                return Err(ManifestError::Object {
                    source_name: source_name.to_owned(),
                    number,
                    what: "a Kubernetes object has apiVersion, kind and metadata.name".to_owned(),
                });
            }
            manifests.push(Manifest {
                source_name: source_name.to_owned(),
                number,
                value,
            });
            Ok(())
        };
        match document {
            Value::Null => {}
            Value::Object(mut list)
                if list
                    .get("kind")
                    .and_then(Value::as_str)
                    .is_some_and(|k| k.ends_with("List"))
                    && list.get("items").is_some_and(Value::is_array) =>
            {
                let items = list.remove("items").unwrap_or_default();
                let Value::Array(items) = items else { continue };
                items.into_iter().try_for_each(&mut add)?;
            }
            other => add(other)?,
        }
    }
    Ok(manifests)
}

/// Writes objects as YAML documents.
///
/// # Errors
/// What the YAML writer says; it does not for values that came from JSON.
pub fn to_yaml<'a>(
    values: impl IntoIterator<Item = &'a Value>,
) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for value in values {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        text.push_str(&serde_saphyr::to_string(value)?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_documents_and_lists() {
        let text = "---\napiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\n\n---\nkind: List\n\
                    apiVersion: v1\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: b}}\n";
        let names: Vec<_> = parse("x", text)
            .unwrap()
            .iter()
            .map(|m| m.value["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn says_where_it_is_wrong() {
        let error = parse("x.yaml", "kind: Node\n").unwrap_err().to_string();
        assert!(error.contains("x.yaml, document 1"), "{error}");
        assert!(
            parse("x.yaml", "a: [")
                .unwrap_err()
                .to_string()
                .contains("x.yaml")
        );
    }
}
