//! A PostgreSQL server: the one that `ECR_AUDIT_TEST_DATABASE_URL` names, else one of our own
//! from the installed package (Debian: `postgresql`).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use tokio::sync::OnceCell;

use super::servers::{Folder, Server, free_ports};

const READY_LIMIT: Duration = Duration::from_mins(1);

/// The user and group `nobody`: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server that is there, or one that ends with this.
pub struct Postgres {
    /// Up to the database's name.
    server_url: String,
    own: Option<Own>,
}

struct Own {
    // In this order: the server ends before its folder goes.
    server: Server,
    folder: Folder,
    port: u16,
    settings: Vec<String>,
}

impl Postgres {
    /// The server that the tests of one process share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED
            .get_or_init(|| async {
                match std::env::var("ECR_AUDIT_TEST_DATABASE_URL") {
                    Ok(url) => Self::given(&url),
                    Err(_) => Self::start().await,
                }
            })
            .await
    }

    /// The server of this URL; its path is a database that may be connected to.
    fn given(url: &str) -> Self {
        let (server, _database) = url.rsplit_once('/').expect("a URL with a database");
        Self {
            server_url: server.to_owned(),
            own: None,
        }
    }

    /// A server of our own, on a free port.
    pub async fn start() -> Self {
        Self::start_prepared(|_| vec![]).await
    }

    /// One whose user `audit` has this password and has to come by TLS, to `localhost`; and the
    /// certificate of the authority that vouches for it.
    pub async fn start_with_tls(password: &str) -> (Self, PathBuf) {
        let postgres = Self::start_prepared(|folder| {
            certify(folder);
            let data = folder.join("data");
            let rules = "host all postgres 127.0.0.1/32 trust\n\
                         hostssl all audit 127.0.0.1/32 scram-sha-256\n";
            fs::write(data.join("pg_hba.conf"), rules).expect("a folder of ours");
            [
                "ssl=on",
                "ssl_cert_file=../server.crt",
                "ssl_key_file=../server.key",
            ]
            .iter()
            .flat_map(|setting| ["-c".to_owned(), (*setting).to_owned()])
            .collect()
        })
        .await;
        postgres
            .execute(&format!("CREATE USER audit PASSWORD '{password}'"))
            .await;
        let own = postgres.own.as_ref().expect("a server of our own");
        let authority = own.folder.path().join("ca.crt");
        (postgres, authority)
    }

    /// Runs a statement as the superuser.
    pub async fn execute(&self, statement: &str) {
        let url = format!("{}/postgres", self.server_url);
        let mut connection = sqlx::AnyConnection::connect(&url)
            .await
            .expect("a running server");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
        connection.close().await.expect("a connection");
    }

    /// `HOST:PORT`, for a proxy.
    pub fn address(&self) -> &str {
        let (_, address) = self.server_url.split_once('@').expect("a user in it");
        address
    }

    /// Starts one; `prepare` may change what is in its folder, and adds arguments.
    async fn start_prepared(prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        sqlx::any::install_default_drivers();
        let folder = Folder::new("postgres-");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("a writable folder");
        if is_root() {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
                .expect("a folder of ours");
            chown(&data, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let mut initdb = unprivileged(&program("initdb"));
        initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
            .args(["--no-locale", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(folder.path());
        let output = initdb.output().expect("a program");
        assert!(
            output.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let settings = prepare(folder.path());
        let [port] = free_ports();
        let server = spawn(&folder, port, &settings);
        let mut postgres = Self {
            server_url: format!("postgres://postgres@127.0.0.1:{port}"),
            own: Some(Own {
                server,
                folder,
                port,
                settings,
            }),
        };
        postgres.wait().await;
        postgres
    }

    /// Kills the server and starts it again on the same data.
    pub async fn restart(&mut self) {
        self.kill();
        self.begin().await;
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        let own = self.own.as_mut().expect("a server of our own");
        own.server.stop();
        // What belonged to the server is still ending: it must let go of the data.
        let lock = own.folder.path().join("data/postmaster.pid");
        let _ = fs::remove_file(lock);
        std::thread::sleep(Duration::from_millis(500));
    }

    /// Starts it again on the same data.
    pub async fn begin(&mut self) {
        let own = self.own.as_mut().expect("a server of our own");
        own.server = spawn(&own.folder, own.port, &own.settings);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let url = format!("{}/postgres", self.server_url);
        let start = Instant::now();
        while let Err(error) = sqlx::AnyConnection::connect(&url).await {
            if let Some(failure) = self.own.as_mut().and_then(|own| own.server.failure()) {
                panic!("{failure}");
            }
            assert!(start.elapsed() < READY_LIMIT, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The URL of a new, empty database.
    pub async fn database(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        sqlx::any::install_default_drivers();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ecr_audit_test_{}_{number}", std::process::id());
        let mut connection = sqlx::AnyConnection::connect(&format!("{}/postgres", self.server_url))
            .await
            .expect("a running server");
        for statement in [
            format!("DROP DATABASE IF EXISTS {name}"),
            format!("CREATE DATABASE {name}"),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
                .execute(&mut connection)
                .await
                .expect("a database of our own");
        }
        connection.close().await.expect("a connection");
        format!("{}/{name}", self.server_url)
    }
}

fn spawn(folder: &Folder, port: u16, settings: &[String]) -> Server {
    let mut command = unprivileged(&program("postgres"));
    command
        .arg("-D")
        .arg(folder.path().join("data"))
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
        .args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "max_connections=300",
        ])
        .args(settings);
    folder.spawn("postgres", command)
}

/// Makes an authority, and a certificate for `localhost` that it vouches for.
fn certify(folder: &Path) {
    const MAKE: &str = "
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost
        echo subjectAltName=DNS:localhost > names
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out server.crt
        chmod 600 server.key";
    let mut make = Command::new("sh");
    make.args(["-c", MAKE]).current_dir(folder);
    let output = make.output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl: {errors}");
    if is_root() {
        chown(folder.join("server.key"), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

/// Debian keeps the server's programs out of `PATH`, in a folder for each version.
fn program(name: &str) -> PathBuf {
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = packaged
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|program| program.exists())
        .collect();
    found.sort();
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(
        std::env::split_paths(&in_path)
            .map(|folder| folder.join(name))
            .find(|program| program.exists()),
    );
    found.pop().unwrap_or_else(|| {
        panic!("{name} is missing: install postgresql, or set ECR_AUDIT_TEST_DATABASE_URL")
    })
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").expect("Linux").uid() == 0
}

/// The program, as a user that is not root.
pub fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .arg(program);
    command
}
