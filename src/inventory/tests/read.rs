//! The file reader: every form that `kubectl` and its users write, and errors that say where.

use std::io::{self, Read};

use proptest::prelude::*;

use super::*;
use crate::inventory::read::{Counts, ReadError, read};

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

fn objects() -> [Value; 5] {
    [
        pod_json("shop", "web-1", &image("a:v1"), &digest('a')),
        node_json("node-1", "aws:///a/i-0abc", "arm64"),
        pod_json("shop", "web-2", &image("b:v1"), ""),
        namespace_json("shop", &json!({"team": "a"})),
        json!({"kind": "Service", "spec": {"containers": 3}}),
    ]
}

fn read_text(text: &str) -> Result<(Counts, Index), ReadError> {
    let mut index = Index::new();
    let counts = read("pods.json", text.as_bytes(), &mut index)?;
    Ok((counts, index))
}

fn failure(text: &str) -> String {
    read_text(text).unwrap_err().to_string()
}

/// Gives as few bytes at a time as it is told.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.1.min(self.0.len()).min(buffer.len());
        buffer[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

#[test]
fn every_form_of_the_same_objects_is_read_alike() {
    let objects = objects();
    let expected = Counts {
        pods: 2,
        nodes: 1,
        namespaces: 1,
        others: 1,
    };
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap();
    let lines = |values: &[Value]| {
        let lines: Vec<String> = values.iter().map(Value::to_string).collect();
        lines.join(
            "
",
        )
    };
    let mixed = list(&objects);
    let dumps: Vec<Vec<String>> = [
        pretty(&mixed),
        mixed.to_string(),
        // List first or last makes no difference, nor do keys before and after.
        mixed.to_string().replacen(r#""apiVersion":"v1","#, "", 1),
        lines(&objects),
        objects.iter().map(pretty).collect(),
        objects.iter().map(Value::to_string).collect(),
        Value::from(objects.to_vec()).to_string(),
        // Two kubectl calls into one file, and what `jq -s` makes of them.
        format!(
            "{}\n{}",
            pretty(&list(&objects[..2])),
            pretty(&list(&objects[2..]))
        ),
        json!([list(&objects[..2]), list(&objects[2..])]).to_string(),
        format!("\u{feff}{mixed}\r\n"),
    ]
    .iter()
    .map(|text| {
        let (counts, index) = read_text(text).unwrap();
        assert_eq!(counts, expected, "{text}");
        assert_eq!(index.instances().len(), 1);
        assert!(index.namespaces_without_labels().is_empty());
        dump(&index)
    })
    .collect();
    assert_eq!(dumps[0].len(), 2);
    for dump in &dumps {
        assert_eq!(dump, &dumps[0]);
    }
}

#[test]
fn items_of_an_api_answer_have_the_kind_of_their_list() {
    let mut item = pod_json("shop", "web", &image("a"), "");
    item.as_object_mut().unwrap().remove("kind");
    // As the API server orders it, which is not the order of `json!`.
    let text = format!(r#"{{"kind":"PodList","apiVersion":"v1","items":[{item}]}}"#);
    assert_eq!(read_text(&text).unwrap().0.pods, 1);
    let message = failure(&format!(r#"{{"items":[{item}]}}"#));
    assert_eq!(
        message,
        "pods.json:1:11: items[0]: expected a `kind`: Pod, Node, Namespace, or a list of these"
    );
}

#[test]
fn an_empty_list_is_no_error_but_an_empty_file_is() {
    assert_eq!(read_text(r#"{"items":[]}"#).unwrap().0, Counts::default());
    assert_eq!(read_text("[]").unwrap().0, Counts::default());
    for text in ["", " \n\t", "\u{feff}"] {
        let message = failure(text);
        assert!(message.starts_with("pods.json: is empty"), "{message}");
    }
}

#[test]
fn an_error_names_the_line_the_field_and_what_was_expected() {
    let text = r#"{
  "apiVersion": "v1",
  "items": [
    {"kind": "Namespace", "metadata": {"name": "a\n{]"}},
    {
      "kind": "Pod",
      "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-11-22T12:00:00Z"},
      "spec": {
        "containers": 3
      }
    }
  ]
}"#;
    assert_eq!(
        failure(text),
        "pods.json:9:23: items[1].spec.containers: invalid type: integer `3`, expected an array"
    );
    let on_one_line = r#"{"items": [{"kind": "Pod", "metadata": []}]}"#;
    let message = failure(on_one_line);
    assert!(
        message.starts_with("pods.json:1:") && message.contains(": items[0].metadata: "),
        "{message}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let mut value = pod_json("shop", "web", &image("a"), "");
    value["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("creationTimestamp");
    let message = failure(&value.to_string());
    assert!(
        message.contains("metadata: missing field `creationTimestamp`"),
        "{message}"
    );
}

#[test]
fn text_that_is_no_kubernetes_json_is_refused_where_it_begins() {
    for (text, expected) in [
        (
            "apiVersion: v1\n",
            "pods.json:1:1: expected an object, or a list of objects",
        ),
        (
            "[1]",
            "pods.json:1:2: [0]: expected an object, or a list of objects",
        ),
        (
            "{}",
            "pods.json:1:1: expected a `kind`: Pod, Node, Namespace, or a list of these",
        ),
        (
            r#"{"kind":"List"}"#,
            "pods.json:1:1: expected `items`, an array",
        ),
        ("{1}", "pods.json:1:2: expected a key in quotes"),
        (r#"{"a" 1}"#, "pods.json:1:6: expected `:`"),
        (
            r#"{"kind":"Pod" "a"}"#,
            "pods.json:1:15: expected `,` or `}`",
        ),
        (
            "[{\"kind\":\"X\"}\n {}]",
            "pods.json:2:2: expected `,` or `]`",
        ),
        (
            "[{\"kind\":\"X\"},]",
            "pods.json:1:15: [1]: expected an object, or a list of objects",
        ),
        (r#"{"kind":"X","a":tru}"#, "pods.json:1:20: expected ident"),
        (
            r#"{"kind":"X"} x"#,
            "pods.json:1:14: expected an object, or a list of objects",
        ),
    ] {
        assert_eq!(failure(text), expected, "{text}");
    }
}

#[test]
fn an_input_that_breaks_off_is_told_wherever_it_does() {
    let text = list(&objects()).to_string();
    for end in 1..text.len() {
        if text.is_char_boundary(end) {
            let message = failure(&text[..end]);
            assert!(
                message.contains("the input ends before"),
                "{end}: {message}"
            );
        }
    }
}

#[test]
fn hostile_text_is_neither_printed_raw_nor_at_length() {
    let text = format!(
        r#"{{"kind":"Pod","metadata":{{"name":{{}},"x":"{}"}}}}"#,
        "y".repeat(1000)
    );
    assert!(failure(&text).len() < 400);
    let text = format!(
        r#"{{"kind":"Pod","metadata":"\u001b[31m{}"}}"#,
        "y".repeat(100_000)
    );
    let message = failure(&text);
    assert!(
        message.len() < 1000 && !message.contains('\u{1b}'),
        "{message}"
    );
}

#[test]
fn depth_is_bounded() {
    let message = failure(&"[".repeat(1_000_000));
    assert!(
        message.contains("expected no more lists within lists"),
        "{message}"
    );
    let deep = format!(
        r#"{{"kind":"Other","a":{}1{}}}"#,
        "[".repeat(1_000_000),
        "]".repeat(1_000_000)
    );
    assert_eq!(read_text(&deep).unwrap().0.others, 1);
}

#[test]
fn a_single_object_longer_than_the_bound_is_refused_and_not_held() {
    let endless = Read::chain(
        &br#"{"kind":"Pod","metadata":{"name":""#[..],
        io::repeat(b'a'),
    );
    let mut index = Index::new();
    let message = read("-", endless, &mut index).unwrap_err().to_string();
    assert_eq!(message, "-:1:1: a single object is longer than 7 MiB");
}

#[test]
fn a_read_that_fails_is_no_end() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let input = Read::chain(&br#"{"items":["#[..], Broken);
    let error = read("pods.json", input, &mut Index::new()).unwrap_err();
    assert!(matches!(error, ReadError::Io { .. }), "{error}");
}

proptest! {
    /// However the bytes arrive, the same objects and the same error come out.
    #[test]
    fn chunks_of_any_size_read_alike(step in 1..40_usize, cut in 0..4000_usize, pretty: bool) {
        let list = list(&objects());
        let mut text = if pretty {
            serde_json::to_string_pretty(&list).unwrap()
        } else {
            list.to_string()
        };
        while cut < text.len() && text.len() > cut {
            text.pop();
        }
        let mut index = Index::new();
        let slow = read("pods.json", Slow(text.as_bytes(), step), &mut index);
        match (read_text(&text), slow) {
            (Ok((counts, whole)), Ok(slow)) => {
                prop_assert_eq!(counts, slow);
                prop_assert_eq!(dump(&whole), dump(&index));
            }
            (Err(whole), Err(slow)) => prop_assert_eq!(whole.to_string(), slow.to_string()),
            (whole, slow) => prop_assert!(false, "{:?} {:?}", whole.map(|_| ()), slow.map(|_| ())),
        }
    }

    /// No bytes make the reader panic or loop.
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(
        prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'),
                    Just(b':'), Just(b','), Just(b' '), any::<u8>()], 0..200)) {
        let _ = read("x", &bytes[..], &mut Index::new());
    }
}
