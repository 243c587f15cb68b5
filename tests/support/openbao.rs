//! The real OpenBao, which `scripts/setup` fetches: dev servers over TLS, and clusters of three.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keysheath::key::{Origin, Roots};
use keysheath::openbao::{Login, OpenBao};
use serde_json::{Value, json};

pub(crate) use super::waiting::{PATIENCE, eventually};

/// The token of a dev server that may do everything.
pub(crate) const ROOT: &str = "root";

/// A server process that is ended with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the server's program is.
fn program() -> PathBuf {
    let folder = std::env::var_os("KEYSHEATH_TOOLS")
        .map_or_else(|| std::env::home_dir().expect("a home").join(".cache/keysheath"), PathBuf::from);
    let program = folder.join("openbao-2.7.2/bao");
    assert!(program.is_file(), "{} is not there: run scripts/setup", program.display());
    program
}

/// Ports that no process listens on. They are held until all are chosen, so that no two are the same.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Sends a request as an administrator does. The status, and what came.
pub(crate) fn ask(
    agent: &ureq::Agent,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<(u16, Value), ureq::Error> {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = super::http::send(agent, request.body(body).unwrap())?;
    Ok((answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null)))
}

/// One dev server, unsealed, with a key-value engine of version 2 at `secret`.
pub(crate) struct Server {
    process: Option<Process>,
    folder: super::Folder,
    pub(crate) port: u16,
    pub(crate) pem: String,
    agent: ureq::Agent,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With what a configuration file says beside.
    pub(crate) fn start_with(config: &str) -> Self {
        let folder = super::Folder::new();
        folder.write("server.hcl", config);
        let [port] = free_ports();
        let process = Self::launch(folder.path(), port);
        let certificate = folder.at("vault-ca.pem");
        eventually("the certificate", || {
            std::fs::read_to_string(&certificate).is_ok_and(|pem| pem.contains("END"))
        });
        let pem = std::fs::read_to_string(certificate).unwrap();
        let agent = super::http::agent(Some(&pem));
        let server = Self { process: Some(process), folder, port, pem, agent };
        eventually("the server", || server.health() == Some(200));
        eventually("its engine", || {
            ask(
                &server.agent,
                "GET",
                &server.url("sys/mounts/secret/tune"),
                &[("x-vault-token", ROOT)],
                &Value::Null,
            )
            .is_ok_and(|(status, _)| status == 200)
        });
        server
    }

    fn launch(folder: &Path, port: u16) -> Process {
        let mut command = Command::new(program());
        command
            .args(["server", "-dev", "-dev-tls", "-dev-no-store-token"])
            .arg(format!("-dev-root-token-id={ROOT}"))
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-tls-cert-dir={}", folder.display()))
            .arg(format!("-config={}", folder.join("server.hcl").display()))
            .env("HOME", folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Process(command.spawn().expect("OpenBao can be started"))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}/v1/{path}", self.port)
    }

    /// A path in its folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.at(name)
    }

    fn health(&self) -> Option<u16> {
        let answer = ask(&self.agent, "GET", &self.url("sys/health"), &[], &Value::Null);
        answer.ok().map(|(status, _)| status)
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Does something as the administrator, and gives what came.
    #[track_caller]
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> Value {
        self.admin_in("", method, path, body)
    }

    /// As [`Server::admin`], in a namespace.
    #[track_caller]
    pub(crate) fn admin_in(&self, namespace: &str, method: &str, path: &str, body: &Value) -> Value {
        let headers = [("x-vault-token", ROOT), ("x-vault-namespace", namespace)];
        let (status, answer) = ask(&self.agent, method, &self.url(path), &headers, body).unwrap();
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    /// Writes a secret.
    pub(crate) fn put(&self, place: &str, data: &Value) {
        let (mount, path) = place.split_once('/').unwrap();
        self.admin("POST", &format!("{mount}/data/{path}"), &json!({ "data": data }));
    }

    /// A token that these rules hold for.
    pub(crate) fn token(&self, policy: &str, ttl: &str) -> String {
        let name =
            format!("p{:x}", policy.bytes().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte)));
        self.admin("POST", &format!("sys/policies/acl/{name}"), &json!({ "policy": policy }));
        let made = self.admin("POST", "auth/token/create", &json!({ "policies": [name], "ttl": ttl }));
        made["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn address(&self) -> Origin {
        Origin::parse(&format!("https://127.0.0.1:{}", self.port)).unwrap()
    }

    pub(crate) fn client(&self, login: Login) -> OpenBao {
        let roots = Roots::from_pem(self.pem.as_bytes()).unwrap();
        OpenBao::at(self.address(), login).unwrap().with_roots(roots)
    }

    /// A client that may do everything.
    pub(crate) fn root(&self) -> OpenBao {
        self.client(Login::token(ROOT.to_owned()))
    }
}

/// Servers that keep one store, on a disk: three, or one alone.
pub(crate) struct Cluster {
    nodes: Vec<Option<Process>>,
    folder: super::Folder,
    pub(crate) ports: Vec<u16>,
    pub(crate) pem: String,
    pub(crate) token: String,
    agent: ureq::Agent,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::of(3)
    }

    /// One server.
    pub(crate) fn alone() -> Self {
        Self::of(1)
    }

    fn of(count: usize) -> Self {
        let folder = super::Folder::new();
        let all: [u16; 6] = free_ports();
        let ports = all[..count].to_vec();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let pem = cert.pem();
        folder.write("cert.pem", &pem);
        folder.write("key.pem", signing_key.serialize_pem());
        folder.write("seal.key", [7; 32]);
        for node in 0..count {
            let data = folder.at(&format!("data{node}"));
            std::fs::create_dir(&data).unwrap();
            let at = folder.path().display();
            let mut config = format!(
                "disable_mlock = true\n\
                 api_addr = \"https://127.0.0.1:{api}\"\ncluster_addr = \"https://127.0.0.1:{peer}\"\n\
                 listener \"tcp\" {{\n address = \"127.0.0.1:{api}\"\n\
                 cluster_address = \"127.0.0.1:{peer}\"\n\
                 tls_cert_file = \"{at}/cert.pem\"\n tls_key_file = \"{at}/key.pem\"\n}}\n\
                 seal \"static\" {{\n current_key_id = \"one\"\n current_key = \"file://{at}/seal.key\"\n}}\n\
                 storage \"raft\" {{\n path = \"{data}\"\n node_id = \"n{node}\"\n\
                 performance_multiplier = 1\n",
                api = ports[node],
                peer = all[node + 3],
                data = data.display(),
            );
            for other in (0..count).filter(|other| *other != node) {
                let api = ports[other];
                config.push_str(" retry_join {\n leader_api_addr = ");
                let join =
                    format!("\"https://127.0.0.1:{api}\"\n leader_ca_cert_file = \"{at}/cert.pem\"\n }}\n");
                config.push_str(&join);
            }
            folder.write(&format!("node{node}.hcl"), config + "}\n");
        }
        let agent = super::http::agent(Some(&pem));
        let token = String::new();
        let nodes = (0..count).map(|_| None).collect();
        let mut cluster = Self { nodes, folder, ports, pem, token, agent };
        (0..count).for_each(|node| cluster.start_node(node));
        let init = json!({ "recovery_shares": 1, "recovery_threshold": 1 });
        let mut made = Value::Null;
        eventually("the first node", || {
            match ask(&cluster.agent, "POST", &cluster.url(0, "sys/init"), &[], &init) {
                Ok((200, answer)) => {
                    made = answer;
                    true
                }
                _ => false,
            }
        });
        made["root_token"].as_str().unwrap().clone_into(&mut cluster.token);
        cluster.wait_for(count);
        let mount = json!({ "type": "kv", "options": { "version": "2" } });
        eventually("its engine", || {
            cluster.admin("POST", "sys/mounts/secret", &mount).is_some_and(|status| status < 300)
        });
        // It is made ready in the background, and refuses requests meanwhile.
        let first = json!({ "data": {} });
        eventually("its engine's upgrade", || {
            cluster.admin("POST", "secret/data/first", &first) == Some(200)
        });
        cluster
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let log = std::fs::File::create(self.folder.at(&format!("node{node}.log"))).unwrap();
        let mut command = Command::new(program());
        command
            .arg("server")
            .arg(format!("-config={}", self.folder.at(&format!("node{node}.hcl")).display()))
            .env("HOME", self.folder.path())
            .stdout(log)
            .stderr(Stdio::null());
        self.nodes[node] = Some(Process(command.spawn().expect("OpenBao can be started")));
    }

    fn url(&self, node: usize, path: &str) -> String {
        format!("https://127.0.0.1:{}/v1/{path}", self.ports[node])
    }

    fn admin(&self, method: &str, path: &str, body: &Value) -> Option<u16> {
        self.ask(method, path, body).map(|(status, _)| status)
    }

    /// Asks the active node as the administrator; `None` where there is none.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        let url = self.url(self.leader()?, path);
        ask(&self.agent, method, &url, &[("x-vault-token", &self.token)], body).ok()
    }

    /// 200: active; 429: standby.
    fn health(&self, node: usize) -> Option<u16> {
        ask(&self.agent, "GET", &self.url(node, "sys/health"), &[], &Value::Null)
            .ok()
            .map(|(status, _)| status)
    }

    pub(crate) fn leader(&self) -> Option<usize> {
        (0..self.nodes.len()).find(|node| self.nodes[*node].is_some() && self.health(*node) == Some(200))
    }

    /// Waits until one node is active and so many take requests.
    pub(crate) fn wait_for(&self, count: usize) {
        eventually("the cluster", || {
            let health: Vec<_> = (0..self.nodes.len()).filter_map(|node| self.health(node)).collect();
            health.iter().filter(|status| **status == 200).count() == 1
                && health.iter().filter(|status| matches!(status, 200 | 429)).count() >= count
        });
    }

    /// Waits until every node has a vote: one that has joined a short while ago has none, and two that are
    /// left without one elect no leader.
    pub(crate) fn wait_for_votes(&self) {
        eventually("the votes", || {
            let Some(leader) = self.leader() else { return false };
            let url = self.url(leader, "sys/storage/raft/configuration");
            let answer = ask(&self.agent, "GET", &url, &[("x-vault-token", &self.token)], &Value::Null);
            answer.is_ok_and(|(_, answer)| {
                let servers = answer["data"]["config"]["servers"].as_array().cloned().unwrap_or_default();
                servers.len() == 3 && servers.iter().all(|server| server["voter"] == true)
            })
        });
    }

    /// The process of a node that runs.
    pub(crate) fn process(&self, node: usize) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.nodes[node].as_ref().expect("it runs").0)
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// Asks a node to end, and waits until it has.
    pub(crate) fn stop(&mut self, node: usize) {
        let mut process = self.nodes[node].take().expect("it runs");
        let number = rustix::process::Pid::from_child(&process.0);
        rustix::process::kill_process(number, rustix::process::Signal::TERM).unwrap();
        let end = Instant::now() + PATIENCE;
        while process.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn start_if_killed(&mut self, node: usize) {
        if self.nodes[node].is_none() {
            self.start_node(node);
        }
    }

    pub(crate) fn origin(&self, node: usize) -> Origin {
        Origin::parse(&format!("https://127.0.0.1:{}", self.ports[node])).unwrap()
    }

    /// A client of one node, that knows the others where `others` is set.
    pub(crate) fn client(&self, node: usize, others: bool) -> OpenBao {
        let roots = Roots::from_pem(self.pem.as_bytes()).unwrap();
        let client =
            OpenBao::at(self.origin(node), Login::token(self.token.clone())).unwrap().with_roots(roots);
        if others {
            client.with_members((0..self.nodes.len()).map(|node| self.origin(node))).unwrap()
        } else {
            client
        }
    }
}
