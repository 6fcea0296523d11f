//! Reads the policy file of `check`: YAML or JSON, as strictly as an API server would, and with
//! the line and field of what is wrong.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Error, Options, Spanned};

use crate::{
    api::{API_VERSION, EcrAuditPolicy},
    audit::Rules,
};

/// Most that a policy file may hold; objects in a cluster are limited to 1.5 MiB.
pub const MAX_FILE: usize = 4 << 20;

/// A policy as a file states it.
#[derive(Debug)]
pub struct PolicyFile {
    /// The object.
    pub policy: EcrAuditPolicy,
    /// Its compiled rules.
    pub rules: Rules,
}

/// Why a file is no policy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Not YAML or JSON, or a field of another type.
    #[error("{}{}{message}", Line(*line), Field(field))]
    Syntax {
        /// Line, from 1, where known.
        line: Option<u64>,
        /// Path of the field; empty where there is none.
        field: String,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// A field that a policy does not have.
    #[error("{}{field}: unknown field", Line(*line))]
    UnknownField {
        /// Line, from 1, where known.
        line: Option<u64>,
        /// Path of the field.
        field: String,
    },
    /// A field whose value cannot be used.
    #[error("{}{field}: {reason}", Line(*line))]
    Invalid {
        /// Line, from 1, where known.
        line: Option<u64>,
        /// Path of the field.
        field: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// None or several policies, or other objects alone.
    #[error("expected exactly one EcrAuditPolicy document, found {found}")]
    Documents {
        /// What the file holds instead.
        found: String,
    },
    /// Larger than any object of a cluster.
    #[error("larger than {} MiB", MAX_FILE >> 20)]
    TooLarge,
    /// Not text.
    #[error("not UTF-8 text")]
    NotText,
}

struct Line(Option<u64>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
    }
}

struct Field<'a>(&'a str);

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "{}: ", self.0)
    }
}

/// What says which object a document is.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: Option<String>,
    #[serde(default)]
    kind: Option<String>,
}

/// Reads the one policy in a file's bytes.
pub fn parse(bytes: &[u8]) -> Result<PolicyFile, PolicyError> {
    if bytes.len() > MAX_FILE {
        return Err(PolicyError::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| PolicyError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let document = only_policy(text)?;

    let mut unknown = Vec::new();
    let policy: EcrAuditPolicy = typed(&document, |path| unknown.push(path))?;
    let lines = Tree::read(&document);
    // The object's type has been read already; these two are no fields of its Rust type.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    if let Some(field) = unknown.into_iter().next() {
        return Err(PolicyError::UnknownField {
            line: lines.line(&field),
            field,
        });
    }
    if policy.metadata.name.as_deref().is_none_or(str::is_empty) {
        return Err(PolicyError::Invalid {
            line: lines.line("metadata"),
            field: "metadata.name".to_owned(),
            reason: "is missing".to_owned(),
        });
    }
    let rules = Rules::compile(&policy.spec).map_err(|invalid| PolicyError::Invalid {
        line: lines.line(&invalid.field),
        field: invalid.field,
        reason: invalid.reason,
    })?;
    Ok(PolicyFile { policy, rules })
}

/// The text of the one policy document; the rest of the file is left as empty lines, so that line
/// numbers stay those of the file.
fn only_policy(text: &str) -> Result<String, PolicyError> {
    let documents = documents(text);
    let mut policies = Vec::new();
    let mut others = Vec::new();
    for document in documents {
        let head: Option<Head> = typed(&document, |_| {})?;
        let head = head.unwrap_or_default();
        match (head.api_version.as_deref(), head.kind.as_deref()) {
            (Some(API_VERSION), Some("EcrAuditPolicy")) => policies.push(document),
            (version, Some(kind)) => {
                others.push(format!("{} {kind}", version.unwrap_or("(no apiVersion)")));
            }
            (_, None) => others.push("a document without a kind".to_owned()),
        }
    }
    match (policies.pop(), policies.len(), others.first()) {
        (Some(policy), 0, _) => Ok(policy),
        (Some(_), more, _) => Err(PolicyError::Documents {
            found: format!("{}", more + 1),
        }),
        (None, _, Some(other)) => Err(PolicyError::Documents {
            found: other.clone(),
        }),
        (None, _, None) => Err(PolicyError::Documents {
            found: "none".to_owned(),
        }),
    }
}

/// The documents of a YAML stream that hold anything, each with all other lines emptied.
fn documents(text: &str) -> Vec<String> {
    let marker = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
    };
    let lines: Vec<&str> = text.split('\n').collect();
    let starts = (0..lines.len()).filter(|&n| n == 0 || marker(lines[n]));
    let starts: Vec<usize> = starts.collect();
    let ends = starts.iter().copied().skip(1).chain([lines.len()]);
    let holds_something = |line: &&str| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with('#') && line != "..."
    };
    starts
        .iter()
        .zip(ends)
        .filter(|&(&start, end)| lines[start..end].iter().any(holds_something))
        .map(|(&start, end)| {
            let mut document = "\n".repeat(start);
            document.push_str(&lines[start..end].join("\n"));
            document
        })
        .collect()
}

fn options() -> Options {
    let mut options = Options::default();
    options.with_snippet = false;
    // An API server takes a number for no text and `yes` for no boolean: neither does this.
    options.no_schema = true;
    options.strict_booleans = true;
    options
}

/// Deserializes a document; `unknown` gets the path of each field that the type does not have.
fn typed<T: for<'de> Deserialize<'de>>(
    document: &str,
    mut unknown: impl FnMut(String),
) -> Result<T, PolicyError> {
    let mut track = serde_path_to_error::Track::new();
    serde_saphyr::with_deserializer_from_str_with_options(document, options(), |deserializer| {
        let deserializer = serde_path_to_error::Deserializer::new(deserializer, &mut track);
        serde_ignored::deserialize(deserializer, |path| unknown(field_path(&path.to_string())))
    })
    .map_err(|error| {
        let line = error.location().map(|location| location.line());
        let field = track.path().to_string();
        let field = field.strip_suffix(".?").unwrap_or(&field).to_owned();
        PolicyError::Syntax {
            line,
            field: if field == "." || field == "?" {
                String::new()
            } else {
                field
            },
            message: message(error.without_snippet()),
        }
    })
}

/// What is wrong in words of the reader, not of the parser.
fn message(error: &Error) -> String {
    match error {
        Error::Unexpected { expected, .. } => match *expected {
            "mapping start" => "expected an object".to_owned(),
            "sequence start" => "expected a list".to_owned(),
            "string scalar" => "expected a text".to_owned(),
            other => format!("expected {other}"),
        },
        Error::QuotingRequired { value, .. } => {
            format!("expected a text: write \"{value}\", with quotes")
        }
        Error::NullIntoString { .. } => "expected a text, found null".to_owned(),
        Error::InvalidBooleanStrict { .. } => "expected true or false".to_owned(),
        Error::InvalidScalar { ty, .. } => match *ty {
            "i64" => "expected a whole number".to_owned(),
            ty => format!("expected {ty}"),
        },
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key} is given twice"),
        Error::SerdeMissingField { field, .. } => format!("{field} is missing"),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => format!("{variant:?} is none of {}", expected.join(", ")),
        other => {
            // The position is given apart.
            let text = other.to_string();
            let end = text.rfind(" at line ").unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

/// `serde_ignored` writes `spec.exceptions.0.untill`, and `?` for an `Option`'s inside.
fn field_path(path: &str) -> String {
    let mut field = String::with_capacity(path.len());
    for part in path.split('.').filter(|part| *part != "?") {
        if !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            field.extend(["[", part, "]"]);
        } else {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(part);
        }
    }
    field
}

/// Where the fields of a document stand.
enum Tree {
    Map(BTreeMap<String, (u64, Tree)>),
    List(Vec<(u64, Tree)>),
    Scalar,
}

impl Tree {
    fn read(document: &str) -> Self {
        serde_saphyr::from_str_with_options(document, options()).unwrap_or(Self::Scalar)
    }

    /// The line of a field such as `spec.exceptions[0].until`, or of what is nearest to it.
    fn line(&self, field: &str) -> Option<u64> {
        let mut tree = self;
        let mut found = None;
        let parts = field.split(['.', '[', ']']).filter(|part| !part.is_empty());
        for part in parts {
            let next = match tree {
                Self::Map(entries) => entries.get(part),
                Self::List(entries) => part.parse().ok().and_then(|n: usize| entries.get(n)),
                Self::Scalar => None,
            };
            let Some((line, inner)) = next else { break };
            found = Some(*line);
            tree = inner;
        }
        found
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        macro_rules! scalars {
            ($($visit:ident($type:ty))*) => {
                $(fn $visit<E>(self, _: $type) -> Result<Tree, E> {
                    Ok(Tree::Scalar)
                })*
            };
        }
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a document")
            }
            scalars!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128)
                visit_f64(f64) visit_str(&str) visit_bytes(&[u8]));
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }
            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let line = key.referenced.line();
                    entries.insert(key.value, (line, map.next_value()?));
                }
                Ok(Tree::Map(entries))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = seq.next_element::<Spanned<Tree>>()? {
                    entries.push((entry.referenced.line(), entry.value));
                }
                Ok(Tree::List(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
