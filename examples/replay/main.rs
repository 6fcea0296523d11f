//! CloudTrail's Event history from files: an endpoint that answers `LookupEvents` with
//! the records it is given, and STS's `GetCallerIdentity` and `AssumeRole` beside it.
//!
//! Point `AWS_ENDPOINT_URL` of any AWS client at the address that it prints, with any
//! credentials. It pages, throttles and fails as the service does, and on request in the
//! ways the service does once a year; `README.md` beside this file has the details.

mod answer;
mod auth;
mod cloudtrail;
mod connection;
mod control;
mod faults;
mod history;
mod records;
mod stats;
mod sts;

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, DefaultBodyLimit, Query, State},
    http::{HeaderMap, Response},
    routing::post,
};
use clap::Parser;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use cloudtrail::Tokens;
use connection::{Listener, Reset};
use faults::Faults;
use history::History;
use stats::{Quota, Stats};

/// Answers CloudTrail's LookupEvents with records from files, and STS beside it.
#[derive(Parser)]
struct Arguments {
    /// Files and folders of CloudTrail records: trail files, lookup output, single
    /// records, arrays, JSON lines; plain or gzip.
    files: Vec<PathBuf>,
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Account of callers and records that name no other.
    #[arg(long, default_value = "111122223333")]
    account: String,
    /// Account of an access key.
    #[arg(long, value_name = "KEY=ACCOUNT", value_parser = pair)]
    access_key: Vec<(String, String)>,
    /// External id that a role asks for.
    #[arg(long, value_name = "ROLE_ARN=ID", value_parser = pair)]
    external_id: Vec<(String, String)>,
    /// The moment that the files' records take for now: every time in them is moved by
    /// what has passed since.
    #[arg(long, value_name = "TIME")]
    as_of: Option<Timestamp>,
    /// Seconds after its eventTime at which a record is delivered.
    #[arg(long, default_value_t = 0)]
    delay: i64,
    /// Requests a second for each account and region; 0 is no quota.
    #[arg(long, default_value_t = 2.0)]
    quota: f64,
    /// Requests that may come at once.
    #[arg(long, default_value_t = 2.0)]
    burst: f64,
    /// Seconds after which a `NextToken` expires.
    #[arg(long, default_value_t = 3600)]
    token_seconds: i64,
    /// Lifetime of assumed roles' sessions, whatever the caller asks for.
    #[arg(long)]
    session_seconds: Option<i64>,
    /// End when standard input does: with the process that started this one.
    #[arg(long)]
    until_stdin_closes: bool,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("no = in it")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What the handlers share.
pub(crate) struct Server {
    account: String,
    access_keys: Vec<(String, String)>,
    tokens: Tokens,
    session_seconds: Option<i64>,
    state: Mutex<Mutable>,
}

/// What calls change.
pub(crate) struct Mutable {
    history: History,
    faults: Faults,
    quota: Quota,
    stats: Stats,
    external_ids: BTreeMap<String, String>,
}

impl Server {
    fn state(&self) -> MutexGuard<'_, Mutable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::unused_self, reason = "the clock is the server's")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let now = Timestamp::now();
    let delay = SignedDuration::from_secs(arguments.delay);
    let mut history = History::new(arguments.account.clone(), delay);
    let shift = control::shift(arguments.as_of, now);
    for path in &arguments.files {
        let given = records::read_path(path, shift)?;
        history
            .add(given, now)
            .with_context(|| path.display().to_string())?;
    }
    let server = Arc::new(Server {
        account: arguments.account,
        access_keys: arguments.access_key,
        tokens: Tokens::new(arguments.token_seconds),
        session_seconds: arguments.session_seconds,
        state: Mutex::new(Mutable {
            history,
            faults: Faults::default(),
            quota: Quota::new(arguments.quota, arguments.burst),
            stats: Stats::default(),
            external_ids: arguments.external_id.into_iter().collect(),
        }),
    });

    let router = Router::new()
        .route("/", post(aws).layer(DefaultBodyLimit::max(1 << 20)))
        .merge(control::routes())
        .with_state(server);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, arguments.port)).await?;
    let address = listener.local_addr()?;
    let service = router.into_make_service_with_connect_info::<Reset>();
    let mut stdout = std::io::stdout();
    writeln!(stdout, "http://{address}")?;
    stdout.flush()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        end = axum::serve(Listener(listener), service) => end?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closed(), if arguments.until_stdin_closes => {}
    }
    Ok(())
}

/// Waits in a thread of its own, which does not keep the process when another end comes.
async fn stdin_closed() {
    let (closed, wait) = oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = closed.send(());
    });
    let _ = wait.await;
}

/// Every AWS call is a `POST /`; the protocols tell themselves apart.
async fn aws(
    State(server): State<Arc<Server>>,
    ConnectInfo(connection): ConnectInfo<Reset>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let now = server.now();
    let caller = auth::caller(&headers, &server.access_keys, &server.account, now);
    if let Some(target) = headers.get("x-amz-target") {
        // SDKs differ in what precedes the name of the service.
        return if target
            .as_bytes()
            .ends_with(b"CloudTrail_20131101.LookupEvents")
        {
            cloudtrail::lookup_events(&server, caller, &body, &connection).await
        } else {
            answer::json_error("UnknownOperationException", "only LookupEvents is known")
        };
    }
    // A form is written like a query.
    let form = std::str::from_utf8(&body)
        .ok()
        .and_then(|form| format!("/?{form}").parse().ok())
        .and_then(|uri| Query::<HashMap<String, String>>::try_from_uri(&uri).ok());
    let form = form.map(|Query(form)| form).unwrap_or_default();
    sts::answer(&server, caller, &form, &connection).await
}
