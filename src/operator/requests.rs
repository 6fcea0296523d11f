//! Counts requests to the Kubernetes API, and how long each was waited for.
//!
//! Whatever the server answers, the labels are bounded: verbs and resources as RBAC spells them, of
//! which the operator uses a few, and the status codes that an API server is known to give. A
//! request that the client repeats by itself (429, 503, 504) counts once, with its last answer; one
//! that nobody waits for any more counts as one without an answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use http::{Method, Request, Response, Uri};
use kube::{Client, Config, client::ClientBuilder};
use tower::{Layer, Service};

use crate::report::metrics::Metrics;

/// What the operator asks for; anything else is `other`.
const RESOURCES: [&str; 9] = [
    "pods",
    "nodes",
    "namespaces",
    "leases",
    "events",
    "ecrauditpolicies",
    "ecrauditpolicies/status",
    "ecrauditfindings",
    "openapi",
];

/// A client whose requests are counted.
pub(super) fn client(config: Config, metrics: &Metrics) -> Result<Client, kube::Error> {
    let count = Count(metrics.clone());
    Ok(ClientBuilder::try_from(config)?.with_layer(&count).build())
}

#[derive(Clone)]
struct Count(Metrics);

impl<S> Layer<S> for Count {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counting {
            inner,
            metrics: self.0.clone(),
        }
    }
}

struct Counting<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, A, B> Service<Request<A>> for Counting<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (verb, resource) = asked(request.method(), request.uri());
        let mut waited = Waited {
            metrics: self.metrics.clone(),
            verb,
            resource,
            code: "none",
            began: Instant::now(),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let result = answer.await;
            if let Ok(response) = &result {
                waited.answered(response.status().as_u16());
            }
            result
        })
    }
}

/// A request that is waited for; counted when it no longer is.
struct Waited {
    metrics: Metrics,
    verb: &'static str,
    resource: &'static str,
    code: &'static str,
    began: Instant,
}

impl Waited {
    fn answered(&mut self, status: u16) {
        self.code = code(status);
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        self.metrics
            .api_request(self.verb, self.resource, self.code, took);
    }
}

/// Verb and resource of a request, as an RBAC rule names them.
fn asked(method: &Method, uri: &Uri) -> (&'static str, &'static str) {
    let mut parts = uri.path().split('/').filter(|part| !part.is_empty());
    // `/api/VERSION` or `/apis/GROUP/VERSION`; what lies elsewhere is named by its first part.
    let first = parts.next().unwrap_or_default();
    let above = match first {
        "api" => 1,
        "apis" => 2,
        _ => 0,
    };
    let path: Vec<&str> = parts.skip(above).collect();
    let path = match path.as_slice() {
        _ if above == 0 => &[first],
        ["namespaces", _, within @ ..] if !within.is_empty() => within,
        all => all,
    };
    let resource = path.first().copied().unwrap_or_default();
    let (name, below) = (path.get(1), path.get(2));
    let watches = uri.query().unwrap_or_default().split('&').any(|pair| {
        let value = pair.strip_prefix("watch=");
        value.is_some_and(|value| matches!(value, "true" | "1"))
    });
    let verb = match (method.as_str(), name) {
        ("GET", _) if watches => "watch",
        ("GET", None) if above > 0 => "list",
        ("GET", _) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", Some(_)) => "delete",
        ("DELETE", None) => "deletecollection",
        _ => "other",
    };
    let known = RESOURCES.into_iter().find(|known| {
        let mut parts = known.split('/');
        parts.next() == Some(resource) && parts.next() == below.copied()
    });
    (verb, known.unwrap_or("other"))
}

/// What an API server answers with.
const CODES: [(u16, &str); 19] = [
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (409, "409"),
    (410, "410"),
    (413, "413"),
    (415, "415"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// The status code's text, or its class where an API server does not give it.
fn code(status: u16) -> &'static str {
    let known = CODES.iter().find(|(code, _)| *code == status);
    known.map_or_else(
        || match status {
            0..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        },
        |(_, text)| *text,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        convert::Infallible,
        future::{Ready, pending, ready},
    };

    use super::*;

    fn asked_by(method: &str, uri: &str) -> (&'static str, &'static str) {
        asked(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn requests_are_named_as_rbac_names_them() {
        for (method, uri, verb, resource) in [
            ("GET", "/api/v1/pods?limit=500", "list", "pods"),
            (
                "GET",
                "/api/v1/pods?&watch=true&timeoutSeconds=290",
                "watch",
                "pods",
            ),
            ("GET", "/api/v1/namespaces", "list", "namespaces"),
            ("GET", "/api/v1/namespaces/kube-system", "get", "namespaces"),
            (
                "PUT",
                "/apis/coordination.k8s.io/v1/namespaces/a/leases/ecr-audit-operator",
                "update",
                "leases",
            ),
            (
                "PATCH",
                "/apis/ecraudit.io/v1alpha1/ecrauditpolicies/production/status?force=true",
                "patch",
                "ecrauditpolicies/status",
            ),
            (
                "POST",
                "/apis/events.k8s.io/v1/namespaces/shop/events?",
                "create",
                "events",
            ),
            (
                "DELETE",
                "/apis/ecraudit.io/v1alpha1/namespaces/shop/ecrauditfindings/web-1",
                "delete",
                "ecrauditfindings",
            ),
            (
                "GET",
                "/openapi/v3/apis/ecraudit.io/v1alpha1",
                "get",
                "openapi",
            ),
        ] {
            assert_eq!(asked_by(method, uri), (verb, resource), "{method} {uri}");
        }
    }

    #[test]
    fn a_namespace_that_is_named_as_a_resource_is_none() {
        let uri = "/api/v1/namespaces/pods";
        assert_eq!(asked_by("GET", uri), ("get", "namespaces"));
        let uri = "/api/v1/namespaces/shop/pods/secrets";
        assert_eq!(asked_by("GET", uri), ("get", "pods"));
    }

    #[test]
    fn labels_stay_few_whatever_is_asked_and_answered() {
        let codes: BTreeSet<_> = (0..=u16::MAX).map(code).collect();
        assert_eq!(codes.len(), 24, "{codes:?}");
        let mut asked = BTreeSet::new();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "MADE-UP"] {
            for path in [
                "/",
                "/x",
                "/api",
                "/apis/a",
                "/api/v1/secrets",
                "/api/v1/pods/a/log",
            ] {
                for n in 0..3 {
                    asked.insert(asked_by(method, &format!("{path}{n}?a={n}")));
                }
            }
        }
        assert!(
            asked.iter().all(|(_, resource)| *resource == "other"),
            "{asked:?}"
        );
        assert!(asked.len() <= 8, "{asked:?}");
    }

    /// Answers every request with a status, or, where there is none, never.
    struct Server(Option<u16>);

    impl Service<Request<()>> for Server {
        type Response = Response<()>;
        type Error = Infallible;
        type Future = futures::future::Either<
            Ready<Result<Response<()>, Infallible>>,
            std::future::Pending<Result<Response<()>, Infallible>>,
        >;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            use futures::future::Either;
            match self.0 {
                Some(status) => {
                    let response = Response::builder().status(status).body(()).unwrap();
                    Either::Left(ready(Ok(response)))
                }
                None => Either::Right(pending()),
            }
        }
    }

    #[tokio::test]
    async fn an_answer_is_counted_by_its_code_and_one_that_is_given_up_as_none() {
        let metrics = Metrics::new().unwrap();
        let count = Count(metrics.clone());
        for status in [200, 200, 403] {
            let request = Request::get("/api/v1/pods").body(()).unwrap();
            count
                .layer(Server(Some(status)))
                .call(request)
                .await
                .unwrap();
        }
        let request = Request::get("/api/v1/pods").body(()).unwrap();
        drop(count.layer(Server(None)).call(request));
        let text = metrics.text().unwrap();
        for line in [
            r#"ecr_audit_api_requests_total{code="200",resource="pods",verb="list"} 2"#,
            r#"ecr_audit_api_requests_total{code="403",resource="pods",verb="list"} 1"#,
            r#"ecr_audit_api_requests_total{code="none",resource="pods",verb="list"} 1"#,
            r#"ecr_audit_api_request_duration_seconds_count{resource="pods",verb="list"} 4"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
