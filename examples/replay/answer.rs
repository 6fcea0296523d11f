//! Answers as AWS writes them: JSON 1.1 of CloudTrail, the Query protocol's XML of STS.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderName, Response, StatusCode, header},
};
use futures::stream;
use serde_json::json;

use super::{connection::Reset, faults::Fault};

/// A body with its content type, and an id that errors name.
pub(crate) fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Body> {
    let id = format!("{:032x}", rand::random::<u128>());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    if let Ok(id) = id.parse() {
        headers.insert(HeaderName::from_static("x-amzn-requestid"), id);
    }
    response
}

/// A JSON 1.1 answer.
pub(crate) fn json_answer(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    answer(status, "application/x-amz-json-1.1", body)
}

/// A JSON 1.1 error. Those of the caller are 400, `ThrottlingException` and
/// `AccessDeniedException` included.
pub(crate) fn json_error(kind: &str, message: &str) -> Response<Body> {
    let body = json!({"__type": kind, "message": message});
    json_answer(StatusCode::BAD_REQUEST, body.to_string().into_bytes())
}

/// The result of an STS operation, given its inner XML.
pub(crate) fn xml_answer(operation: &str, result: &str) -> Response<Body> {
    let body = format!(
        "<{operation}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <{operation}Result>{result}</{operation}Result>\
         <ResponseMetadata><RequestId>{:032x}</RequestId></ResponseMetadata>\
         </{operation}Response>",
        rand::random::<u128>(),
    );
    answer(StatusCode::OK, "text/xml", body.into_bytes())
}

/// An error of STS.
pub(crate) fn xml_error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
         <Type>Sender</Type><Code>{code}</Code><Message>{}</Message></Error>\
         <RequestId>{:032x}</RequestId></ErrorResponse>",
        escape(message),
        rand::random::<u128>(),
    );
    answer(status, "text/xml", body.into_bytes())
}

/// Text as XML content.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            other => out.push(other),
        }
    }
    out
}

/// The status and body of the faults `serverError` and `answer`.
pub(crate) fn faulty(fault: &Fault, default: StatusCode) -> Response<Body> {
    let status = fault
        .status
        .and_then(|code| StatusCode::from_u16(code).ok());
    let body = fault.body.clone().unwrap_or_default();
    json_answer(status.unwrap_or(default), body.into_bytes())
}

/// No answer: the connection is reset.
pub(crate) fn reset(reset: &Reset) -> Response<Body> {
    reset.arm();
    Response::new(Body::empty())
}

/// The same head, the first half of the body, and then the end of the connection.
pub(crate) async fn truncated(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX)
        .await
        .unwrap_or_default();
    head.headers
        .insert(header::CONTENT_LENGTH, whole.len().into());
    let half = whole.slice(..whole.len() / 2);
    let parts = stream::unfold(Some(half), |half| async {
        match half {
            Some(half) if !half.is_empty() => Some((Ok::<Bytes, std::io::Error>(half), None)),
            _ => {
                // What was sent has to be on its way before the connection ends.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Err(std::io::ErrorKind::ConnectionAborted.into()), None))
            }
        }
    });
    Response::from_parts(head, Body::from_stream(parts))
}
